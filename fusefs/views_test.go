package fusefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/storepath"
)

// These tests are about jobs/, cache/, logs/ and .narvault/, without a kernel.

func TestViewsOfPlainBackup(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	names, _ := f.testList(t, nodeRoot, 4096, true)
	if got := strings.Join(sorted(names), " "); got != ".narvault exports releases store" {
		t.Errorf("a backup without more shows %q", got)
	}
	for _, view := range []int{viewJobs, viewJobReleases, viewCache, viewLogs} {
		for _, num := range []int{0, 1} {
			n := pack(view, num, 0)
			if status := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: uint64(n)}}, new(fuse.AttrOut)); status != fuse.Status(syscall.ESTALE) {
				t.Errorf("stat of node %#x: %v", n, status)
			}
		}
	}
}

// Every directory lists what can be looked up in it, and ".." leads back.
func TestOptionalViewsAreTrees(t *testing.T) {
	b := fullSample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }})
	var all []string
	var visit func(n node, path string)
	visit = func(n node, path string) {
		all = append(all, path)
		names, outs := f.testList(t, n, 300, true)
		plain, _ := f.testList(t, n, 4096, false)
		if !slices.Equal(names, plain) {
			t.Errorf("%s: READDIRPLUS %q, READDIR %q", path, names, plain)
		}
		for i := range outs[2:] {
			name := names[i+2]
			out, status := f.testLookup(n, name)
			if !status.Ok() || out.NodeId == 0 {
				t.Errorf("%s lists %q, but: %v", path, name, status)
				continue
			}
			child := node(out.NodeId)
			if out.Mode&syscall.S_IFMT == syscall.S_IFDIR {
				if up, status := f.testLookup(child, ".."); node(up.NodeId) != n {
					t.Errorf(`%s/%s: ".." is %#x (%v), want %#x`, path, name, up.NodeId, status, n)
				}
				visit(child, path+"/"+name)
			} else {
				all = append(all, path+"/"+name)
			}
			if got := f.pathOf(child, ""); path != "logs" && got != path+"/"+name {
				t.Errorf("%s/%s is called %s in messages", path, name, got)
			}
			if got := out.EntryTimeout(); got > 500*time.Millisecond {
				t.Errorf("%s/%s: the name is kept for %v", path, name, got)
			}
			if out.Generation == generation && path != "jobs" {
				t.Errorf("%s/%s: a handle would lead to another file in the next mount", path, name)
			}
		}
	}
	for _, top := range []string{"cache", "logs"} {
		n, _ := f.walk(t, top)
		visit(n, top)
	}
	slices.Sort(all)
	want := []string{
		"cache", "cache/" + strings.Repeat("1", 32) + ".narinfo", "cache/log", "cache/log/deep", "cache/log/deep/y.drv", "cache/log/x.drv",
		"cache/nar", "cache/nar/a.nar.zst", "cache/nix-cache-info", "cache/realisations", "logs", "logs/x.drv",
	}
	if !slices.Equal(all, want) {
		t.Errorf("got  %q\nwant %q", all, want)
	}
}

func TestJobs(t *testing.T) {
	b := fullSample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }})
	const dir = "jobs/demo/demo-1.0/build.x86_64-linux"
	n, a := f.walk(t, dir)
	if names, _ := f.testList(t, n, 4096, true); strings.Join(sorted(names), " ") != "doc out" || a.Mode != syscall.S_IFDIR|0555 || a.Nlink != 2 {
		t.Errorf("%s: %q, mode %o, %d links", dir, names, a.Mode, a.Nlink)
	}
	link, a := f.walk(t, dir+"/out")
	target, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(link)})
	if want := "../../../../store/" + string(samplePath); string(target) != want || !status.Ok() || a.Size != uint64(len(want)) || a.Mode != syscall.S_IFLNK|0777 {
		t.Errorf("link %q of size %d (%v), want %q", target, a.Size, status, want)
	}
	for _, path := range []string{"jobs", "jobs/demo", "jobs/demo/demo-1.0", dir} {
		n, _ := f.walk(t, path)
		if out, status := f.testLookup(n, "absent"); !status.Ok() || out.NodeId != 0 {
			t.Errorf("%s/absent: %#x, %v", path, out.NodeId, status)
		}
		if _, status := f.testRead(n, 0, 1); status != fuse.Status(syscall.EISDIR) {
			t.Errorf("read of %s: %v", path, status)
		}
		up, _ := f.testLookup(n, "..")
		if want := path[:max(strings.LastIndex(path, "/"), 0)]; want == "" && node(up.NodeId) != nodeRoot || want != "" && node(up.NodeId) != first(f.walk(t, want)) {
			t.Errorf(`%s: ".." is %#x`, path, up.NodeId)
		}
	}
	if names, _ := f.testList(t, first(f.walk(t, "jobs/demo/demo-1.1")), 4096, true); len(names) != 2 {
		t.Errorf("a release without jobs lists %q", names)
	}

	// Another target is another node: the kernel keeps the target of a link.
	b.do(func() {
		b.jobs[sampleRelease] = []Job{{Name: "build", System: "x86_64-linux", Output: "out", Path: filePath}}
	})
	tree, _, _ := f.views[viewJobReleases].members.(*jobView).trees.tree(1)
	tree.expire()
	again, _ := f.walk(t, dir+"/out")
	target, _ = f.Readlink(nil, &fuse.InHeader{NodeId: uint64(again)})
	if again == link || string(target) != "../../../../store/"+string(filePath) {
		t.Errorf("after a change: node %#x, was %#x, -> %q", again, link, target)
	}
	if out, status := f.testLookup(first(f.walk(t, dir)), "doc"); !status.Ok() || out.NodeId != 0 {
		t.Errorf("an output that is gone: %#x, %v", out.NodeId, status)
	}
}

func TestJobDirs(t *testing.T) {
	p := func(n int) storepath.Path { return path(n, fmt.Sprintf("p%d", n)) }
	drv := path(30, "hello-1.0.drv")
	for _, c := range []struct {
		name string
		jobs []Job
		want string // directory/link=path
	}{
		{"one", []Job{{Name: "a", System: "s", Output: "out", Path: p(1)}}, "a.s/out=1"},
		{"twice the same", []Job{{Name: "a", System: "s", Output: "out", Path: p(1)}, {Name: "a", System: "s", Output: "out", Path: p(1)}}, "a.s/out=1"},
		{"no system", []Job{{Name: "a", Output: "dev", Path: p(1)}}, "a/dev=1"},
		{"no output", []Job{{Name: "a", System: "s", Path: p(1)}, {Name: "b", System: "s", Path: drv}}, "a.s/out=1 b.s/drv=30"},
		{"no name", []Job{{System: "s", NixName: "hello-1", Path: p(1)}, {System: "t", Path: p(2)}, {System: "u", Path: drv}}, "hello-1.0.u/drv=30 hello-1.s/out=1 p2.t/out=2"},
		{"two versions", []Job{
			{Name: "hello", System: "s", Output: "out", NixName: "hello-1", Path: p(1)},
			{Name: "hello", System: "s", Output: "doc", NixName: "hello-1", Path: p(2)},
			{Name: "hello", System: "s", Output: "out", NixName: "hello-2", Path: p(3)},
		}, "hello-1.s/doc=2 hello-1.s/out=1 hello-2.s/out=3"},
		{"two of a name", []Job{
			{Name: "a", System: "s", Output: "out", NixName: "a-1", DrvPath: path(8, "a.drv"), Path: p(1)},
			{Name: "a", System: "s", Output: "out", NixName: "a-1", DrvPath: path(9, "a.drv"), Path: p(2)},
		}, "a.s-2/out=2 a.s/out=1"},
		{"two without a deriver", []Job{
			{Name: "a", System: "s", Output: "out", NixName: "a-1", Path: p(1)},
			{Name: "a", System: "s", Output: "out", NixName: "a-1", Path: p(2)},
		}, "a.s/out=1 a.s/out-2=2"},
		{"names that meet", []Job{{Name: "a.s", Output: "out", Path: p(1)}, {Name: "a", System: "s", Output: "out", Path: p(2)}}, "a.s-2/out=1 a.s/out=2"},
		{"unsafe", []Job{{Name: "../x\n/\xff", System: ".", Output: "..", Path: p(1)}}, "_._x___../_.=1"},
	} {
		var got []string
		for dir, links := range JobDirs(c.jobs) {
			for link, p := range links {
				got = append(got, fmt.Sprintf("%s/%s=%s", dir, link, strings.TrimLeft(p.Hash(), "0")))
			}
		}
		slices.Sort(got)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
	long := strings.Repeat("ä", 300)
	for dir, links := range JobDirs([]Job{{Name: long, Output: long, Path: p(1)}, {Name: long + "x", Output: long, Path: p(2)}}) {
		for link := range links {
			if !validName(dir) || !validName(link) {
				t.Errorf("names of %d and %d bytes", len(dir), len(link))
			}
		}
	}
}

func FuzzSafeName(f *testing.F) {
	for _, s := range []string{"", "a", ".", "..", "a/b", "\xff", "\x00", strings.Repeat("€", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name := safeName(s); s != "" && (!validName(name) || name[0] == '.') {
			t.Errorf("safeName(%q) = %q", s, name)
		}
	})
}

func TestCacheFollowsTheFiles(t *testing.T) {
	b := fullSample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) { t.Logf("logged: "+format, args...) }})
	nar, a := f.walk(t, "cache/nar/a.nar.zst")
	if a.Size != 300000 || a.Mode != syscall.S_IFREG|0444 || a.Mtime != 1000 {
		t.Errorf("%+v", a)
	}
	if got, status := f.testRead(nar, 100000, 300000); !status.Ok() || string(got) != string(content(300000)[100000:]) {
		t.Errorf("read %d bytes, %v", len(got), status)
	}
	dir, _ := f.walk(t, "cache/nar")
	f.testList(t, dir, 4096, true)
	b.do(func() {
		delete(b.files, "nar/a.nar.zst")
		b.files["nar/b.nar"] = "b"
	})
	if out, status := f.testLookup(dir, "a.nar.zst"); !status.Ok() || out.NodeId != 0 {
		t.Errorf("a file that was removed: %#x, %v", out.NodeId, status)
	}
	if _, status := f.testRead(nar, 0, 10); status != fuse.Status(syscall.ESTALE) {
		t.Errorf("read of a removed file: %v", status)
	}
	f.walk(t, "cache/nar/b.nar") // at once, though the list is young
	// A directory in the place of a file is another node.
	b.do(func() { b.files["nar/a.nar.zst/"] = "" })
	if n, _ := f.walk(t, "cache/nar/a.nar.zst"); n == nar {
		t.Error("a file became a directory with the same node")
	}
	if b.memBackup.open != 0 {
		t.Errorf("%d files are open", b.memBackup.open)
	}

	b.do(func() { b.gone = errors.New("no such device") })
	for _, name := range []string{"b.nar", "absent"} {
		if _, status := f.testLookup(dir, name); status != fuse.EIO {
			t.Errorf("look up %s without the medium: %v", name, status)
		}
	}
	b.do(func() { b.gone = nil })
	f.walk(t, "cache/nar/b.nar")
}

func TestSelf(t *testing.T) {
	b := fullSample(t)
	f := testFS(t, b, Options{Name: "the backup"})
	big, _ := f.walk(t, "store/"+string(samplePath)+"/big")
	b.memBackup.do(func() {
		b.fault = func(storepath.Path, int64, int) error {
			return errors.New("read block 7 of x: odd\nmes\u009bsa\u202ege")
		}
	})
	for range 2 {
		if _, status := f.testRead(big, 0, 10); status != fuse.EIO {
			t.Fatalf("read: %v", status)
		}
	}
	text := func(name string) string {
		n, a := f.walk(t, ".narvault/"+name)
		got, status := f.testRead(n, 0, 1<<20)
		if !status.Ok() || len(got) != int(a.Size) {
			t.Errorf("%s: %d bytes (%v), size %d", name, len(got), status, a.Size)
		}
		return string(got)
	}
	var s map[string]any
	if err := json.Unmarshal([]byte(text("status.json")), &s); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"version": 1.0, "backup": "the backup", "errors": 2.0, "generation": "gen-7", "openTrees": 1.0, "paths": 4.0} {
		if s[key] != want {
			t.Errorf("status: %s is %v, want %v", key, s[key], want)
		}
	}
	lines := strings.Split(text("errors"), "\n")
	if len(lines) != 3 || lines[0]+"\n" != damageHeader {
		t.Fatalf("errors: %q", lines)
	}
	fields := strings.Split(lines[1], "\t")
	if _, err := time.Parse(time.RFC3339, fields[0]); err != nil {
		t.Error(err)
	}
	if got, want := strings.Join(fields[1:], "|"), "2|store/"+string(samplePath)+"/big|nar/x.nar|7|7000|read block 7 of x: odd?mes?sa?ge"; got != want {
		t.Errorf("errors: %q, want %q", got, want)
	}
}

// Who has a file of .narvault/ open goes on reading that version of it.
func TestSelfVersions(t *testing.T) {
	n, size := 0, 0
	s := &selfFile{name: "x", text: func() []byte { n++; return fmt.Appendf(make([]byte, size), "version %d", n/2) }}
	now := time.Unix(1000, 0)
	c := &clock{now: func() time.Time { return now }}
	old := s.current(c)
	if s.current(c) != old {
		t.Error("made anew at once")
	}
	for i := 1; i < 500; i++ {
		now = now.Add(time.Second)
		v := s.current(c)
		if i == 1 && (v == old || !v.mtime.After(old.mtime)) {
			t.Error("a new content is no new version")
		}
	}
	if v, err := s.version(old.number); err != nil || v != old {
		t.Errorf("a version of some minutes ago: %v", err)
	}
	size = keptBytes / keptVersions
	for range 4 * keptVersions {
		now = now.Add(time.Second)
		s.current(c)
	}
	if _, err := s.version(old.number); !errors.Is(err, errNoNode) || len(s.last) != keptVersions {
		t.Errorf("a version before %d large ones: %v; %d are kept", 2*keptVersions, err, len(s.last))
	}
	if v, err := s.version(s.current(c).number); err != nil || v != s.current(c) {
		t.Errorf("the newest version: %v, %v", v, err)
	}
}

func TestDamageListIsBounded(t *testing.T) {
	l := damageList{now: time.Now}
	for i := range maxDamage + 10 {
		l.add("a", fmt.Errorf("error %d", i))
		l.add("b", errors.New("always the same"))
	}
	lines := strings.Count(string(l.text()), "\n")
	if lines != maxDamage+1 || len(l.byKey) != maxDamage || l.count() != 2*(maxDamage+10) {
		t.Errorf("%d lines, %d keys, %d errors", lines, len(l.byKey), l.count())
	}
	if text := string(l.text()); !strings.Contains(text, "\tb\t-\t-\t-\talways the same\n") || strings.Contains(text, "error 5\n") || !strings.Contains(text, "error 1009\n") {
		t.Errorf("wrong errors are left: %.300s", text)
	}
}

func TestXAttrs(t *testing.T) {
	b := fullSample(t)
	f := testFS(t, b, Options{XAttrs: true})
	get := func(n node, name string, size int) (string, fuse.Status) {
		buf := make([]byte, size)
		got, status := f.GetXAttr(nil, &fuse.InHeader{NodeId: uint64(n)}, name, buf)
		return string(buf[:min(int(got), size)]), status
	}
	for _, view := range []string{"store/", "releases/demo/demo-1.0/"} {
		n, _ := f.walk(t, view+string(samplePath))
		refs := "/nix/store/" + string(filePath) + " /nix/store/" + string(samplePath)
		for name, want := range map[string]string{"user.nix.narHash": "sha256:x", "user.nix.references": refs, "user.nix.deriver": "/nix/store/" + string(path(50, "sample.drv"))} {
			if got, status := get(n, name, 1000); got != want || !status.Ok() {
				t.Errorf("%s: %q, %v", name, got, status)
			}
		}
		buf := make([]byte, 100)
		size, status := f.ListXAttr(nil, &fuse.InHeader{NodeId: uint64(n)}, buf)
		if want := "user.nix.deriver\x00user.nix.narHash\x00user.nix.references\x00"; string(buf[:size]) != want || !status.Ok() {
			t.Errorf("list: %q, %v", buf[:size], status)
		}
		if _, status := get(n, "user.nix.references", 5); status != fuse.ERANGE {
			t.Errorf("a small buffer: %v", status)
		}
	}
	file, _ := f.walk(t, "store/"+string(filePath))
	if _, status := get(file, "user.nix.deriver", 100); status != fuse.ENODATA {
		t.Errorf("no deriver: %v", status)
	}
	for _, other := range []string{"store", "store/" + string(samplePath) + "/bin", "cache"} {
		n, _ := f.walk(t, other)
		if _, status := get(n, "user.nix.narHash", 100); status != fuse.ENODATA {
			t.Errorf("%s: %v", other, status)
		}
	}
	if _, status := fillXAttr(strings.Repeat("x", maxXAttr+1), nil); status != fuse.Status(syscall.E2BIG) {
		t.Errorf("a value that is too large: %v", status)
	}
	b.do(func() { b.gone = errors.New("away") })
	if _, status := get(file, "user.nix.narHash", 100); status != fuse.EIO {
		t.Errorf("without the medium: %v", status)
	}
}

func TestTrail(t *testing.T) {
	var tr trail
	var total int64
	const piece = 1 << 20
	for off := int64(0); off < 200<<20; off += piece {
		from, n := tr.passed(off, piece)
		if n > 0 && (from != total || from+n > off+piece-reclaimLag) {
			t.Fatalf("at %d: reclaim %d bytes from %d on, %d were", off, n, from, total)
		}
		total += n
	}
	if total < 200<<20-reclaimStep-2*reclaimLag {
		t.Errorf("reclaimed %d bytes", total)
	}
	if _, n := tr.passed(0, piece); n != 0 {
		t.Error("a jump back reclaims")
	}
	if _, n := tr.passed(1<<40, piece); n != 0 {
		t.Error("a jump ahead reclaims what was not read")
	}
}
