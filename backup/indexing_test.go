package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// indexed opens a live view of a backup that uses its index.
func indexed(t *testing.T, dir string) (*Live, *[]error) {
	t.Helper()
	l, warnings := openLive(t, dir)
	if err := l.UseIndex(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.CloseIndex() })
	return l, warnings
}

// published makes a backup as the command does, with its index.
func published(t *testing.T) (dir string, store *backuptest.Store, top storepath.Path) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir, store, top = backedUp(t, "zstd")
	if _, err := Run(t.Context(), dir, store, request("r", top)); err != nil {
		t.Fatal(err)
	}
	return dir, store, top
}

// checkServes compares what a live view says with the store.
func checkServes(t *testing.T, l *Live, store *backuptest.Store, want ...storepath.Path) {
	t.Helper()
	slices.Sort(want)
	if got := l.mustPaths(t); !slices.Equal(got, want) {
		t.Errorf("paths are %v, want %v", got, want)
	}
	for _, p := range want {
		tree, err := l.OpenTree(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		sum := newSum()
		_, err = io.Copy(sum, io.NewSectionReader(tree, 0, tree.Size()))
		if err != nil || sum.sum() != store.Valid[p].NarHash {
			t.Errorf("%s: NAR hash %s, want %s (%v)", p, sum.sum(), store.Valid[p].NarHash, err)
		}
		listing, err := tree.Listing()
		if err != nil || listing.NarSize() != tree.Size() {
			t.Errorf("%s: listing %v, %v", p, listing, err)
		}
		tree.Close()
	}
}

func all(store *backuptest.Store) []storepath.Path { return sortedKeys(store.Valid) }

// A NAR file is opened only when a content is read.
func TestIndexAnswersWithoutNAR(t *testing.T) {
	dir, store, top := published(t)
	l, _ := indexed(t, dir)
	checkServes(t, l, store, all(store)...)
	nars, err := filepath.Glob(filepath.Join(dir, layout.CacheDir, bincache.NARDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range nars {
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := l.OpenTree(top)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	listing, err := tree.Listing()
	if err != nil {
		t.Fatal(err)
	}
	if _, found := listing.Find("content"); !found {
		t.Error("the listing lacks the file")
	}
	var damage *bincache.DamageError
	if _, err := tree.ReadAt(make([]byte, 1), 0); !errors.As(err, &damage) {
		t.Errorf("read without a NAR file: %v", err)
	}
	// When the file is back, it is read, through the same tree.
	for _, name := range nars {
		if err := os.Rename(name+".away", name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tree.ReadAt(make([]byte, 1), 0); err != nil {
		t.Error(err)
	}
}

// What the index does not know yet, or knows no more, is read around it.
func TestOutdatedIndex(t *testing.T) {
	dir, store, top := published(t)
	added := store.Add("added", "new", top)
	mustRun(t, dir, store, request("r2", added)) // without publishing
	l, _ := indexed(t, dir)
	checkServes(t, l, store, all(store)...)

	if err := os.Remove(filepath.Join(dir, layout.CacheDir, added.Hash()+".narinfo")); err != nil {
		t.Fatal(err)
	}
	delete(store.Valid, added)
	checkServes(t, l, store, all(store)...)
	if _, err := l.OpenTree(added); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that is gone: %v", err)
	}
}

// A narinfo that was replaced by that of another NAR is believed, the index
// not.
func TestIndexOfReplacedNAR(t *testing.T) {
	dir, store, top := published(t)
	if err := os.WriteFile(store.RealPath(top)+"/content", []byte("other content"), 0o644); err != nil {
		t.Fatal(err)
	}
	store.Register(top, store.Valid[top].References)
	for _, name := range []string{top.Hash() + ".narinfo", top.Hash() + ".ls"} {
		if err := os.Remove(filepath.Join(dir, layout.CacheDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, dir, store, request("r", top))
	l, _ := indexed(t, dir)
	checkServes(t, l, store, all(store)...)
}

// Without an index, with one of another backup, and with damage anywhere in it,
// every answer is right all the same.
func TestDamagedIndex(t *testing.T) {
	dir, store, _ := published(t)
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, layout.IndexDir), func(name string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		forEachFlip(t, file, 8, func(int) {
			l, warnings := indexed(t, dir)
			if l.index.own == (len(*warnings) > 0) {
				t.Errorf("%s: own index: %v, warnings: %v", file, l.index.own, *warnings)
			}
			checkServes(t, l, store, all(store)...)
			l.CloseIndex()
		})
	}
	if err := os.RemoveAll(filepath.Join(dir, layout.IndexDir)); err != nil {
		t.Fatal(err)
	}
	l, warnings := indexed(t, dir)
	checkServes(t, l, store, all(store)...)
	if len(*warnings) > 0 {
		t.Errorf("no index is nothing to warn of: %v", *warnings)
	}
	// It is made on the way, in the user's cache directory.
	if err := l.TendIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if backuptest.Exists(filepath.Join(dir, layout.IndexDir)) {
		t.Error("a reader wrote into the backup")
	}
	again, _ := indexed(t, dir)
	checkServes(t, again, store, all(store)...)
	if !again.index.with(func(ix *index.Index) {
		if ix.Len() != len(store.Valid) {
			t.Errorf("%d paths are indexed", ix.Len())
		}
	}) {
		t.Error("there is no index")
	}
}

// The index of a backup is verified in the background.
func TestTendIndexFindsDamage(t *testing.T) {
	dir, _, _ := published(t)
	l, _ := indexed(t, dir)
	if err := l.TendIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, layout.IndexDir, "gen-*", "records", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	data, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Clone(data)
	data[len(data)/3] ^= 1
	if err := os.WriteFile(tables[0], data, 0o644); err != nil {
		t.Fatal(err)
	}
	var damage *index.DamageError
	if err := l.TendIndex(t.Context()); !errors.As(err, &damage) {
		t.Errorf("got %v", err)
	}
}

// An index that is damaged is built anew by the next backup, which says so.
func TestDamagedIndexIsReplaced(t *testing.T) {
	dir, store, top := published(t)
	current := filepath.Join(dir, layout.IndexDir, "CURRENT")
	for _, text := range []string{"gen-7 0000\n", "gen-1 " + strings.Repeat("00", 32) + "\n"} {
		if err := os.WriteFile(current, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Run(t.Context(), dir, store, request("r", top))
		if err != nil || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "built anew: index ") {
			t.Errorf("%q: warnings %q, %v", text, s.Warnings, err)
		}
		l, warnings := indexed(t, dir)
		if !l.index.own || len(*warnings) > 0 {
			t.Errorf("%q: own index: %v, %v", text, l.index.own, *warnings)
		}
	}
}
