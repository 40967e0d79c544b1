package fusefs

import (
	"maps"
	"testing"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A file handle is a node number and its generation. It leads to the same file in
// the next mount, or nowhere: not to the file that has the number then.
func TestHandlesOfChangedBackup(t *testing.T) {
	type handle struct {
		n          node
		generation uint64
	}
	first, second := path(1, "first"), path(2, "second")
	dir := nar.Header{Type: nar.Directory}
	file := func(name string, size int64) nar.Header {
		return nar.Header{Depth: 1, Name: name, Type: nar.Regular, Size: size}
	}
	// handles are those of everything that is called name in a mount.
	handles := func(b *memBackup, names ...string) map[string]handle {
		f := testFS(t, b, Options{})
		out := make(map[string]handle)
		for _, name := range names {
			n, _ := f.walk(t, name)
			out[name] = handle{n, f.generation(n)}
		}
		return out
	}
	b := newMemBackup()
	b.pack(t, second, dir, file("a", 1))
	b.releases[ReleaseID{"q", "2"}] = []storepath.Path{second}
	all := []string{"store/" + string(second), "store/" + string(second) + "/a", "releases/q", "releases/q/2", "releases/q/2/" + string(second)}
	before := handles(b, all...)
	if again := handles(b, all...); !maps.Equal(again, before) {
		t.Errorf("an unchanged backup has other handles: %v, %v", again, before)
	}

	// What comes before it takes its numbers.
	b.pack(t, first, dir, file("a", 2))
	b.releases[ReleaseID{"p", "1"}] = []storepath.Path{first}
	others := handles(b, "store/"+string(first), "store/"+string(first)+"/a", "releases/p", "releases/p/1", "releases/p/1/"+string(first))
	shared := 0
	for name, old := range before {
		for other, now := range others {
			if old.n == now.n {
				shared++
				if old.generation == now.generation {
					t.Errorf("the handle of %s leads to %s", name, other)
				}
			}
		}
	}
	if shared != len(all) {
		t.Errorf("%d numbers are used for something else, want %d: the test tests nothing", shared, len(all))
	}

	// So does another content of the same path.
	delete(b.nars, first)
	delete(b.releases, ReleaseID{"p", "1"})
	b.pack(t, second, dir, file("0", 3), file("a", 4))
	now := handles(b, all...)
	for _, name := range all[:2] {
		if now[name].generation == before[name].generation {
			t.Errorf("the handle of %s is that of another content", name)
		}
	}
}
