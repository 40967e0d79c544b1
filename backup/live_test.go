package backup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// openLive opens a live view whose warnings are collected.
func openLive(t *testing.T, dir string) (l *Live, warnings *[]error) {
	t.Helper()
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	warnings = new([]error)
	return NewLive(b, func(err error) { *warnings = append(*warnings, err) }), warnings
}

func (l *Live) mustPaths(t *testing.T) []storepath.Path {
	t.Helper()
	paths, err := l.Paths()
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A live view follows what others do to the backup, at once.
func TestLivePaths(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	l, warnings := openLive(t, dir)
	if got := l.mustPaths(t); len(got) != 3 || !slices.IsSorted(got) || !slices.Contains(got, top) {
		t.Fatalf("got %v", got)
	}
	added := store.Add("added", "new", top)
	mustRun(t, dir, store, request("r2", added))
	if got := l.mustPaths(t); len(got) != 4 || !slices.Contains(got, added) {
		t.Errorf("after an addition: %v", got)
	}
	name := filepath.Join(dir, layout.CacheDir, added.Hash()+".narinfo")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if got := l.mustPaths(t); len(got) != 3 {
		t.Errorf("after a removal: %v", got)
	}
	// A damaged narinfo is said once, and is there again when it is mended.
	replace(t, name, []byte("broken"))
	for range 2 {
		if got := l.mustPaths(t); len(got) != 3 {
			t.Errorf("with damage: %v", got)
		}
	}
	var damage *bincache.DamageError
	if len(*warnings) != 1 || !errors.As((*warnings)[0], &damage) {
		t.Errorf("warnings: %v", *warnings)
	}
	replace(t, name, good)
	if got := l.mustPaths(t); len(got) != 4 {
		t.Errorf("mended: %v", got)
	}
}

func replace(t *testing.T, name string, data []byte) {
	t.Helper()
	temp := name + ".new"
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, name); err != nil {
		t.Fatal(err)
	}
}

// While nothing changes, the same slice comes again, and nothing is read.
func TestLiveUnchanged(t *testing.T) {
	dir, _, _ := backedUp(t, "zstd")
	long := time.Now().Add(-time.Hour)
	for _, name := range []string{layout.CacheDir, "releases/p/r/closure.txt"} {
		if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	l, _ := openLive(t, dir)
	first := l.mustPaths(t)
	if again := l.mustPaths(t); &first[0] != &again[0] {
		t.Error("the paths were made again")
	}
	id := ReleaseID{"p", "r"}
	closure, err := l.Closure(id)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Closure(id); err != nil || &closure[0] != &again[0] {
		t.Errorf("the closure was made again (%v)", err)
	}
}

func TestLiveClosure(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	l, _ := openLive(t, dir)
	id := ReleaseID{"p", "r"}
	if got, err := l.Closure(id); err != nil || len(got) != 3 {
		t.Fatalf("got %v, %v", got, err)
	}
	added := store.Add("added", "new", top)
	mustRun(t, dir, store, request("r", added))
	if got, err := l.Closure(id); err != nil || len(got) != 4 {
		t.Errorf("after an update: %v, %v", got, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, layout.ReleasesDir, "p")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Closure(id); !errors.Is(err, ErrNoRelease) {
		t.Errorf("after a removal: %v", err)
	}
}

// What is there and cannot be read is not absent; when it was mended in its
// place, it is seen.
func TestLiveDamaged(t *testing.T) {
	dir, _, top := backedUp(t, "zstd")
	name := filepath.Join(dir, layout.CacheDir, top.Hash()+".narinfo")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("broken"))
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, layout.CacheDir), long, long); err != nil {
		t.Fatal(err)
	}
	l, _ := openLive(t, dir)
	var damage *bincache.DamageError
	for range 2 {
		if got := l.mustPaths(t); len(got) != 2 || !errors.As(l.Absent(top), &damage) {
			t.Errorf("%d paths, %s: %v", len(got), top, l.Absent(top))
		}
	}
	if err := l.Absent("00000000000000000000000000000000-x"); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	write(good)
	if got := l.mustPaths(t); len(got) != 3 || !slices.IsSorted(got) || l.Absent(top) != nil {
		t.Errorf("mended: %v, %v", got, l.Absent(top))
	}
}

// Numbers for df come at once, without an index after they were counted.
func TestLiveUsage(t *testing.T) {
	dir, store, _ := published(t)
	var want Usage
	for _, info := range store.Valid {
		want.NarSize += info.NarSize
	}
	l, _ := openLive(t, dir)
	for {
		if u, err := l.Usage(); err != nil {
			t.Fatal(err)
		} else if u == want {
			break
		}
		time.Sleep(time.Millisecond)
	}
	want.Entries = 5 // two directories with one file each, and a file
	l, _ = indexed(t, dir)
	if u, err := l.Usage(); err != nil || u != want {
		t.Errorf("with index: %v, want %v (%v)", u, want, err)
	}
}

// What is where a backup was is the same one if it has the same id, or, without
// one, mostly the same store paths.
func TestLiveContinues(t *testing.T) {
	dir, _, _ := backedUp(t, "zstd")
	other, _, _ := backedUp(t, "zstd")
	open := func(dir string) *Live {
		l, _ := openLive(t, dir)
		l.mustPaths(t)
		return l
	}
	ask := func(name string, l, before *Live, want bool) {
		t.Helper()
		if got, err := l.Continues(before); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	a, b := open(dir), open(other)
	ask("itself", open(dir), a, true)
	ask("another backup", b, a, false)
	c := filepath.Join(dir, layout.CacheDir)
	before := open(c)
	ask("a cache and a backup", before, a, false)
	ask("a cache", open(c), before, true)
	names, err := filepath.Glob(c + "/*.narinfo")
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	for i, name := range names[:2] {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		ask("less and less of it", open(c), before, i == 0)
	}
}

// What a mount has looked into and gc takes out is gone, not damaged.
func TestTreeOfCollectedPath(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	s := twoReleases(t)
	if warning := PublishIndex(t.Context(), s.Dir, bincache.Options{}); warning != "" {
		t.Fatal(warning)
	}
	l, _ := indexed(t, s.Dir)
	open := func(p storepath.Path) *Tree {
		tree, err := l.OpenTree(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Close() })
		return tree
	}
	dropped, collected := s.NarInfo(s.Drop).URL, s.NarInfo(s.Only).URL
	unread, read := open(s.Drop), open(s.Only)
	if _, err := read.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	// As gc does it.
	s.Remove(layout.CacheDir, s.Drop.Hash()+bincache.NarInfoExt)
	s.Remove(layout.CacheDir, s.Only.Hash()+bincache.NarInfoExt)
	s.Remove(layout.CacheDir, dropped)
	s.Remove(layout.CacheDir, collected)
	if _, err := unread.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrNotExist) || isDamage(err) {
		t.Errorf("got %v", err)
	}
	if _, err := read.ReadAt(make([]byte, 1), 100); err != nil {
		t.Errorf("an archive that was open: %v", err)
	}
	if _, err := l.OpenTree(s.Drop); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opened anew: %v", err)
	}
	// A NAR file that is gone while its narinfo is there is damage as ever.
	kept := open(s.Keep)
	s.Remove(layout.CacheDir, s.NarInfo(s.Keep).URL)
	if _, err := kept.ReadAt(make([]byte, 1), 0); !isDamage(err) {
		t.Errorf("a NAR file that is missing: %v", err)
	}
}
