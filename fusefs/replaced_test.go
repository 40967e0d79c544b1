package fusefs

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// What the kernel knows of a store path must not meet the listing of another
// content: the old nodes are stale, and the path has new ones.
func TestReplacedContent(t *testing.T) {
	b := newMemBackup()
	p, other := path(1, "replaced"), path(2, "other")
	dir := nar.Header{Type: nar.Directory}
	file := func(name string, size int64) nar.Header {
		return nar.Header{Depth: 1, Name: name, Type: nar.Regular, Size: size}
	}
	b.pack(t, p, dir, file("a", 100), file("b", 200))
	b.pack(t, other, dir, file("x", 1))
	f := testFS(t, b, Options{MaxTrees: 1})
	old, _ := f.walk(t, "store/"+string(p)+"/a")

	b.pack(t, p, dir, file("0", 300), file("a", 400), file("b", 500))
	f.walk(t, "store/"+string(other)+"/x") // pushes the tree out
	if data, status := f.testRead(old, 0, 1000); status != fuse.Status(syscall.ESTALE) {
		t.Errorf("a node of the old content reads %d bytes, %v", len(data), status)
	}
	now, attr := f.walk(t, "store/"+string(p)+"/a")
	if now == old || attr.Size != 400 {
		t.Errorf("node %v, before %v, with %d bytes", now, old, attr.Size)
	}
	if data, status := f.testRead(now, 0, 1000); !status.Ok() || len(data) != 400 {
		t.Errorf("read %d bytes, %v", len(data), status)
	}
	// The same content again keeps its nodes.
	f.walk(t, "store/"+string(other)+"/x")
	if again, _ := f.walk(t, "store/"+string(p)+"/a"); again != now {
		t.Errorf("node %v became %v", now, again)
	}
}

// Links of a release that is newer than the list of store paths lead into the
// mount from the first look on: the kernel keeps what it is told.
func TestLinksOfNewRelease(t *testing.T) {
	b := newMemBackup()
	f := testFS(t, b, Options{})
	lib, app := path(1, "lib"), path(2, "app")
	b.pack(t, lib, nar.Header{Type: nar.Regular, Size: 1})
	b.pack(t, app, nar.Header{Type: nar.Directory},
		nar.Header{Depth: 1, Name: "l", Type: nar.Symlink, Target: lib.In("/nix/store")})
	id := ReleaseID{"p", "new"}
	b.do(func() { b.releases[id] = []storepath.Path{app, lib} })
	f.cat.releaseList.expire() // the list of store paths is still fresh
	link, _ := f.walk(t, "releases/p/new/"+string(app)+"/l")
	got, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(link)})
	if !status.Ok() || !strings.HasPrefix(string(got), "../") {
		t.Errorf("it leads to %q, %v", got, status)
	}
}

// A hashedBackup knows what its streams consist of, and may have damage.
type hashedBackup struct {
	*memBackup
	damaged storepath.Path
	drop    func()
}

type hashedStream struct{ *memFile }

func (s hashedStream) Sum() [32]byte { return s.NarHash() }

func (b *hashedBackup) ExportPath(p storepath.Path) (Stream, error) {
	b.mu.Lock()
	text := string(b.nars[p])
	b.mu.Unlock()
	return hashedStream{b.stream(text)}, nil
}

func (b *hashedBackup) Absent(p storepath.Path) error {
	if p == b.damaged {
		return errors.New("a narinfo is damaged")
	}
	return nil
}

func (b *hashedBackup) OnReplace(drop func()) { b.drop = drop }

// The stream of a store path is another file once a NAR in it is another one:
// the kernel keeps the pages of the old one for ever.
func TestStreamOfReplacedNAR(t *testing.T) {
	b := &hashedBackup{memBackup: newMemBackup()}
	p := path(1, "replaced")
	b.pack(t, p, nar.Header{Type: nar.Regular, Size: 1000})
	f := testFS(t, b, Options{})
	now := time.Now()
	f.exports.now = func() time.Time { return now }
	name := "exports/store/" + string(p) + closureSuffix
	old, _ := f.walk(t, name)

	b.pack(t, p, nar.Header{Type: nar.Regular, Size: 2000})
	if n, _ := f.walk(t, name); n != old {
		t.Error("made again at once")
	}
	now = now.Add(maxAge)
	cur, attr := f.walk(t, name)
	if cur == old || attr.Size != uint64(len(b.nars[p])) {
		t.Errorf("node %#x, before %#x, size %d", uint64(cur), uint64(old), attr.Size)
	}
	now = now.Add(maxAge)
	if again, _ := f.walk(t, name); again != cur {
		t.Error("another node for the same content")
	}
	f.dropOpen()
	if _, status := f.testRead(old, 0, 10); status != fuse.Status(syscall.ESTALE) {
		t.Errorf("the old stream cannot be made again, but: %v", status)
	}
	if data, status := f.testRead(cur, 0, 10); !status.Ok() || string(data) != string(b.nars[p][:10]) {
		t.Errorf("read %q, %v", data, status)
	}
	if b.open != 1 {
		t.Errorf("%d streams are open", b.open)
	}
}

// Where a damaged narinfo may be that of a store path, the path is not absent,
// and links to it lead there.
func TestDamagedNameIsNotAbsent(t *testing.T) {
	b := &hashedBackup{memBackup: newMemBackup(), damaged: path(1, "lost")}
	app := path(2, "app")
	b.pack(t, app, nar.Header{Type: nar.Directory},
		nar.Header{Depth: 1, Name: "l", Type: nar.Symlink, Target: b.damaged.In("/nix/store")})
	b.releases[ReleaseID{"p", "r"}] = []storepath.Path{app}
	f := testFS(t, b, Options{})
	for dir, want := range map[string]fuse.Status{"store": fuse.EIO, "releases/p/r": fuse.OK, "exports/releases/p": fuse.OK} {
		n, _ := f.walk(t, dir)
		if out, status := f.testLookup(n, string(b.damaged)); status != want || out.NodeId != 0 {
			t.Errorf("in %s: node %d, %v, want %v", dir, out.NodeId, status, want)
		}
	}
	link, _ := f.walk(t, "store/"+string(app)+"/l")
	got, status := f.Readlink(nil, &fuse.InHeader{NodeId: uint64(link)})
	if want := "../" + string(b.damaged); !status.Ok() || string(got) != want {
		t.Errorf("the link leads to %q, %v; want %q", got, status, want)
	}
}

// When the medium was replaced, nothing of the old one stays open.
func TestReplacedMedium(t *testing.T) {
	b := &hashedBackup{memBackup: newMemBackup()}
	p := path(1, "x")
	b.pack(t, p, nar.Header{Type: nar.Regular, Size: 1000})
	f := testFS(t, b, Options{})
	n, _ := f.walk(t, "store/"+string(p))
	f.walk(t, "exports/store/"+string(p)+closureSuffix)
	if b.open != 2 {
		t.Fatalf("%d open", b.open)
	}
	b.drop()
	if b.open != 0 {
		t.Errorf("%d still open", b.open)
	}
	if data, status := f.testRead(n, 0, 10); !status.Ok() || len(data) != 10 {
		t.Errorf("read %d bytes, %v", len(data), status)
	}
}
