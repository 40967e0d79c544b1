package fusefs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// These tests call the operations as go-fuse does, without a kernel.

func testFS(t testing.TB, b Backup, o Options) *fileSystem {
	t.Helper()
	f, err := newFileSystem(b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func (f *fileSystem) testLookup(n node, name string) (fuse.EntryOut, fuse.Status) {
	var out fuse.EntryOut
	status := f.Lookup(nil, &fuse.InHeader{NodeId: uint64(n)}, name, &out)
	return out, status
}

// walk looks up a path from the root of the mount.
func (f *fileSystem) walk(t testing.TB, name string) (node, fuse.Attr) {
	t.Helper()
	n, a := nodeRoot, fuse.Attr{}
	for _, part := range strings.Split(name, "/") {
		out, status := f.testLookup(n, part)
		if !status.Ok() || out.NodeId == 0 {
			t.Fatalf("look up %q of %q: node %d, %v", part, name, out.NodeId, status)
		}
		n, a = node(out.NodeId), out.Attr
		if a.Ino != out.NodeId || out.Generation != f.generation(n) {
			t.Errorf("%q: inode %d of node %d, generation %d", name, a.Ino, out.NodeId, out.Generation)
		}
	}
	return n, a
}

func (f *fileSystem) testRead(n node, off int64, size int) ([]byte, fuse.Status) {
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(n)}, Offset: uint64(off), Size: uint32(size)}
	r, status := f.Read(nil, in, make([]byte, size))
	if !status.Ok() {
		return nil, status
	}
	return r.Bytes(nil)
}

// testList lists a directory with a buffer of some bytes for each request.
func (f *fileSystem) testList(t testing.TB, n node, bufSize int, plus bool) (names []string, outs []fuse.EntryOut) {
	t.Helper()
	off := uint64(0)
	for {
		list := fuse.NewDirEntryList(make([]byte, bufSize), off)
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(n)}, Offset: off}
		read := f.ReadDir
		if plus {
			read = f.ReadDirPlus
		}
		if status := read(nil, in, list); !status.Ok() {
			t.Fatalf("list node %#x at %d: %v", n, off, status)
		}
		if len(list.Bytes()) == 0 {
			return names, outs
		}
		entries, entryOuts, err := parseEntries(list.Bytes(), plus)
		must(t, err)
		for _, e := range entries {
			names = append(names, e.Name)
			off = e.Off
		}
		outs = append(outs, entryOuts...)
	}
}

func parseEntries(buf []byte, plus bool) ([]fuse.DirEntry, []fuse.EntryOut, error) {
	if plus {
		return fuse.ParseDirLookupEntries(buf)
	}
	entries, err := fuse.ParseDirEntries(buf)
	return entries, nil, err
}

// compare checks a directory of the mount against one of this machine.
func compare(t *testing.T, f *fileSystem, n node, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, plus := range []bool{false, true} {
		names, outs := f.testList(t, n, 4096, plus)
		if len(names) != len(entries)+2 || names[0] != "." || names[1] != ".." {
			t.Fatalf("%s: %d entries, want %d", dir, len(names), len(entries)+2)
		}
		for i, out := range outs {
			one, status := f.testLookup(n, names[i])
			if i >= 2 && (!status.Ok() || one != out) {
				t.Errorf("%s: %q: READDIRPLUS says %+v, LOOKUP %+v", dir, names[i], out, one)
			}
		}
	}
	for _, e := range entries {
		out, status := f.testLookup(n, e.Name())
		if !status.Ok() || out.NodeId == 0 {
			t.Errorf("%s/%s: %v", dir, e.Name(), status)
			continue
		}
		child, file := node(out.NodeId), filepath.Join(dir, e.Name())
		compareNode(t, f, child, &out.Attr, file)
		if e.IsDir() {
			compare(t, f, child, file)
		}
	}
}

func compareNode(t *testing.T, f *fileSystem, n node, a *fuse.Attr, file string) {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Lstat(file, &st))
	mode := st.Mode &^ 0222
	if st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		mode = syscall.S_IFLNK | 0777
	}
	if a.Mode != mode || a.Nlink != uint32(st.Nlink) || a.Mtime != 1 || a.Owner.Uid != uint32(os.Getuid()) {
		t.Errorf("%s: mode %o, %d links, time %d, user %d; want mode %o, %d links", file, a.Mode, a.Nlink, a.Mtime, a.Owner.Uid, mode, st.Nlink)
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		want, err := os.ReadFile(file)
		must(t, err)
		got, status := f.testRead(n, 0, len(want)+10)
		if !status.Ok() || !bytes.Equal(got, want) || a.Size != uint64(len(want)) || a.Blocks != uint64(len(want)+511)/512 {
			t.Errorf("%s: read %d bytes (%v) of size %d, %d blocks; want %d", file, len(got), status, a.Size, a.Blocks, len(want))
		}
	case syscall.S_IFLNK:
		want, err := os.Readlink(file)
		must(t, err)
		got, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(n)})
		if !status.Ok() || string(got) != want || a.Size != uint64(len(want)) {
			t.Errorf("%s -> %q (%v), size %d, want %q", file, got, status, a.Size, want)
		}
	}
}

func TestTreesAreRight(t *testing.T) {
	b, oracle := sample(t)
	f := testFS(t, b, Options{RawLinks: true, Logf: t.Logf})
	store, _ := f.walk(t, "store")
	for _, p := range []storepath.Path{samplePath, filePath, linkPath} {
		n, a := f.walk(t, "store/"+string(p))
		compareNode(t, f, n, &a, filepath.Join(oracle, string(p)))
	}
	n, _ := f.walk(t, "store/"+string(samplePath))
	compare(t, f, n, filepath.Join(oracle, string(samplePath)))
	n, _ = f.walk(t, "releases/demo/demo-1.1/"+string(samplePath))
	compare(t, f, n, filepath.Join(oracle, string(samplePath)))
	if names, _ := f.testList(t, store, 4096, true); len(names) != 4+2 {
		t.Errorf("store/ has %q", names)
	}
}

func TestViewsShareFiles(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{Logf: t.Logf})
	for _, c := range []struct {
		name   string
		shared bool
	}{
		{string(filePath), true},
		{string(linkPath), true},
		{string(samplePath), false},
		{string(samplePath) + "/bin", false},
		{string(samplePath) + "/bin/hello", true},
		{string(samplePath) + "/relative", true},
	} {
		n, _ := f.walk(t, "store/"+c.name)
		m, _ := f.walk(t, "releases/demo/demo-1.0/"+c.name)
		if (n == m) != c.shared {
			t.Errorf("%s: node %#x in store/, %#x in releases/, want shared %v", c.name, n, m, c.shared)
		}
	}
	n, _ := f.walk(t, "releases/demo/demo-1.0/"+string(samplePath))
	m, _ := f.walk(t, "releases/demo/demo-1.1/"+string(samplePath))
	if n == m {
		t.Error("two releases share a directory, which has one parent")
	}
}

func TestNodesAreTheSameInEveryMount(t *testing.T) {
	b, _ := sample(t)
	f, g := testFS(t, b, Options{}), testFS(t, b, Options{})
	for _, name := range []string{
		"store", "releases/demo/demo-1.1", "store/" + string(samplePath) + "/big",
		"releases/demo/demo-1.1/" + string(manyPath), "exports/store/" + string(samplePath) + ".closure",
		"exports/releases/demo/demo-1.0.closure",
	} {
		if n, m := first(f.walk(t, name)), first(g.walk(t, name)); n != m {
			t.Errorf("%s: node %#x, then %#x", name, n, m)
		}
		first(g.walk(t, "releases/demo/demo-1.1/"+string(manyPath))) // another order of visits
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestLinksAreRewritten(t *testing.T) {
	b, _ := sample(t)
	for _, c := range []struct{ link, raw, relative string }{
		{string(linkPath), "/nix/store/" + string(samplePath), string(samplePath)},
		{string(samplePath) + "/to-store", "/nix/store/" + string(filePath), "../" + string(filePath)},
		{string(samplePath) + "/lib/a/to-store", "/nix/store/" + string(samplePath) + "/bin/hello", "../../../" + string(samplePath) + "/bin/hello"},
		{string(samplePath) + "/to-nowhere", "/nix/store/" + string(path(99, "absent")), "/nix/store/" + string(path(99, "absent"))},
		{string(samplePath) + "/relative", "bin/hello", "bin/hello"},
		{string(samplePath) + "/not-utf8-\xff", "tar\xffget", "tar\xffget"},
	} {
		for _, raw := range []bool{false, true} {
			f := testFS(t, b, Options{RawLinks: raw})
			want := c.relative
			if raw {
				want = c.raw
			}
			for _, view := range []string{"store/", "releases/demo/demo-1.0/"} {
				n, a := f.walk(t, view+c.link)
				got, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(n)})
				if !status.Ok() || string(got) != want || a.Size != uint64(len(want)) {
					t.Errorf("%s%s -> %q (%v), size %d, want %q", view, c.link, got, status, a.Size, want)
				}
			}
		}
	}
}

func TestUnknownNodes(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	for _, n := range []node{
		0, 3, 99, 1 << 63, 1<<64 - 2,
		pack(viewStore, 5, 0), pack(viewStore, 1, 1000), pack(viewStore, maxNumber, maxEntry),
		pack(viewProjects, 2, 0), pack(viewReleases, 0, 0), pack(viewReleases+3, 0, 0), pack(viewReleases+1, 5, 0),
		pack(viewExportPaths, 5, 0), pack(viewExportStreams, 0, 0), pack(viewExportStreams, 1, 1), pack(viewExportStreams, 3, 0),
		pack(viewExports, 2, 0), pack(40, 0, 0), pack(40, 1, 1),
	} {
		if status := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: uint64(n)}}, new(fuse.AttrOut)); status != fuse.Status(syscall.ESTALE) {
			t.Errorf("stat of node %#x: %v", n, status)
		}
		for _, name := range []string{"x", ".", ".."} {
			if out, status := f.testLookup(n, name); status.Ok() {
				t.Errorf("look up %q in node %#x: node %#x, %v", name, n, out.NodeId, status)
			}
		}
		if _, status := f.testRead(n, 0, 10); status.Ok() {
			t.Errorf("read of node %#x: %v", n, status)
		}
		list := fuse.NewDirEntryList(make([]byte, 4096), 0)
		if status := f.ReadDir(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(n)}}, list); status.Ok() {
			t.Errorf("list of node %#x: %v", n, status)
		}
		if _, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(n)}); status.Ok() {
			t.Errorf("readlink of node %#x", n)
		}
	}
}

func TestWrongKinds(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	file, _ := f.walk(t, "store/"+string(filePath))
	link, _ := f.walk(t, "store/"+string(linkPath))
	stream, _ := f.walk(t, "exports/store/"+string(filePath)+".closure")
	for _, n := range []node{file, link, stream} {
		if _, status := f.testLookup(n, "x"); status != fuse.ENOTDIR {
			t.Errorf("look up in node %#x: %v", n, status)
		}
		list := fuse.NewDirEntryList(make([]byte, 4096), 2)
		if status := f.ReadDir(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(n)}, Offset: 2}, list); status != fuse.ENOTDIR {
			t.Errorf("list of node %#x: %v", n, status)
		}
	}
	for _, name := range []string{"store", "exports", "releases/demo", "store/" + string(samplePath)} {
		n, _ := f.walk(t, name)
		if _, status := f.testRead(n, 0, 10); status != fuse.Status(syscall.EISDIR) {
			t.Errorf("read of %s: %v", name, status)
		}
		if _, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(n)}); status != fuse.EINVAL {
			t.Errorf("readlink of %s: %v", name, status)
		}
	}
	if _, status := f.testRead(link, 0, 10); status != fuse.EINVAL {
		t.Errorf("read of a symlink: %v", status)
	}
}

func TestReadAnywhere(t *testing.T) {
	b := newMemBackup()
	p := path(1, "x")
	const size = 100
	b.pack(t, p, nar.Header{Type: nar.Regular, Size: size})
	f := testFS(t, b, Options{})
	n, _ := f.walk(t, "store/"+string(p))
	want := content(size)
	for off := int64(0); off < size+20; off += 7 {
		for _, n2 := range []int{0, 1, 16, size, 1000} {
			got, status := f.testRead(n, off, n2)
			lo := min(off, size)
			hi := min(off+int64(n2), size)
			if hi < lo {
				hi = lo
			}
			if !status.Ok() || !bytes.Equal(got, want[lo:hi]) {
				t.Errorf("%d bytes at %d: %q, %v", n2, off, got, status)
			}
		}
	}
	if got, status := f.testRead(n, -1, 10); len(got) != 0 || !status.Ok() {
		t.Errorf("beyond 2^63: %q, %v", got, status)
	}
}

func TestTooManyEntries(t *testing.T) {
	if err := fits(maxEntry + 1); err != nil {
		t.Error(err)
	}
	if err := fits(maxEntry + 2); errno(err) != fuse.Status(syscall.EFBIG) {
		t.Errorf("one entry too many: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	h := fuse.InHeader{NodeId: 1}
	for name, status := range map[string]fuse.Status{
		"setattr": f.SetAttr(nil, &fuse.SetAttrIn{}, nil),
		"mkdir":   f.Mkdir(nil, &fuse.MkdirIn{}, "x", nil),
		"mknod":   f.Mknod(nil, &fuse.MknodIn{}, "x", nil),
		"unlink":  f.Unlink(nil, &h, "store"),
		"rmdir":   f.Rmdir(nil, &h, "store"),
		"rename":  f.Rename(nil, &fuse.RenameIn{}, "store", "x"),
		"link":    f.Link(nil, &fuse.LinkIn{}, "x", nil),
		"symlink": f.Symlink(nil, &h, "x", "y", nil),
		"create":  f.Create(nil, &fuse.CreateIn{}, "x", nil),
		"tmpfile": f.Tmpfile(nil, &fuse.CreateIn{}, nil),
	} {
		if status != fuse.EROFS {
			t.Errorf("%s: %v", name, status)
		}
	}
	if _, status := f.Write(nil, &fuse.WriteIn{}, []byte("x")); status != fuse.EROFS {
		t.Errorf("write: %v", status)
	}
	for name, status := range map[string]fuse.Status{
		"open":    f.Open(nil, &fuse.OpenIn{InHeader: h}, nil),
		"opendir": f.OpenDir(nil, &fuse.OpenIn{InHeader: h}, nil),
		"flush":   f.Flush(nil, &fuse.FlushIn{InHeader: h}),
		"lseek":   f.Lseek(nil, &fuse.LseekIn{}, nil),
	} {
		if status != fuse.ENOSYS {
			t.Errorf("%s: %v", name, status)
		}
	}
}

func TestFewTreesStayOpen(t *testing.T) {
	b := newMemBackup()
	for i := range 100 {
		b.pack(t, path(i, "x"), nar.Header{Type: nar.Regular, Size: int64(i)})
	}
	f := testFS(t, b, Options{MaxTrees: 10})
	for i := range 100 {
		f.walk(t, "store/"+string(path(i, "x")))
		f.Forget(uint64(i), 1)
	}
	if n, _ := f.trees.size(); n != 10 || b.open != 10 {
		t.Errorf("%d trees, %d open", n, b.open)
	}
	f.close()
	if b.open != 0 {
		t.Errorf("after close %d trees are open", b.open)
	}
}

func TestStatFs(t *testing.T) {
	b, _ := sample(t)
	var out fuse.StatfsOut
	f := testFS(t, usage{b}, Options{})
	if status := f.StatFs(nil, nil, &out); !status.Ok() || out.Blocks != 3 || out.Bsize != 4096 || out.Files != 7 || out.Bfree != 0 || out.NameLen != 255 {
		t.Errorf("%+v, %v", out, status)
	}
}

type usage struct{ *memBackup }

func (usage) Usage() (Usage, error) { return Usage{Bytes: 2*4096 + 1, Files: 7}, nil }
