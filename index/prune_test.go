package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// userIndexes makes the indexes of n caches in a user's cache directory, the
// last one used last.
func userIndexes(t *testing.T, f *fakeCache, n int) (dirs []string) {
	t.Helper()
	user := t.TempDir()
	for i := range n {
		dir, err := UserDir(fmt.Sprintf("dir-1-%d", i), user)
		must(t, err)
		f.build(dir, BuildOptions{})
		used := time.Now().Add(time.Duration(i-n) * time.Hour)
		must(t, os.Chtimes(dir, used, used))
		dirs = append(dirs, dir)
	}
	return dirs
}

func wantIndexes(t *testing.T, dirs []string, want func(i int) bool) {
	t.Helper()
	for i, dir := range dirs {
		ix, err := Open(dir, Options{})
		if err == nil {
			ix.Close()
		}
		if got := err == nil; got != want(i) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("index %d: %v", i, err)
		}
	}
}

func TestPrune(t *testing.T) {
	f := newFakeCache(t, 1)
	const n = keptIndexes + 4
	dirs := userIndexes(t, f, n)
	read, err := Open(dirs[1], Options{})
	must(t, err)
	defer read.Close()
	builder, err := (&builder{dir: dirs[2]}).lock(t.Context())
	must(t, err)
	defer builder.Close()

	must(t, Prune(dirs[0]))
	wantIndexes(t, dirs, func(i int) bool { return i < 3 || i >= n-keptIndexes+1 })
	// A second one has nothing to do, and one by age much.
	long := time.Now().Add(-keptFor - time.Hour)
	must(t, os.Chtimes(dirs[n-2], long, long))
	must(t, Prune(dirs[n-1]))
	wantIndexes(t, dirs, func(i int) bool { return i < 3 || i >= n-keptIndexes+1 && i != n-2 })
	if _, err := read.Record(read.Paths()[0].Path); err != nil {
		t.Errorf("who reads an index: %v", err)
	}
	must(t, Prune(filepath.Join(filepath.Dir(dirs[0]), "absent")))
}

// A build whose directory is removed before it has the lock begins anew: what it
// opened is then the lock of nothing.
func TestBuildWhilePruned(t *testing.T) {
	f := newFakeCache(t, 3)
	dirs := userIndexes(t, f, 2)
	b := &builder{dir: dirs[0]}
	opened, err := b.openLock()
	must(t, err)
	must(t, os.Rename(dirs[0], dirs[0]+tempSuffix)) // as Prune does first
	if lock, err := claim(opened); lock != nil || err != nil {
		t.Errorf("the lock of a directory that was taken away: %v, %v", lock, err)
	}
	_, err = Build(t.Context(), dirs[0], f.open(), BuildOptions{})
	must(t, err)
	wantIndexes(t, dirs, func(int) bool { return true })
}
