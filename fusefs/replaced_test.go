package fusefs

import (
	"strings"
	"syscall"
	"testing"

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
