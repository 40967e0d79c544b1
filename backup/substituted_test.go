package backup

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// A lossyStore has lost files of paths that are valid in its database.
type lossyStore struct {
	*backuptest.Store
	lost []storepath.Path
}

func (s lossyStore) Lock(_ context.Context, paths []storepath.Path) error {
	paths = slices.DeleteFunc(slices.Clone(paths), func(p storepath.Path) bool { return !slices.Contains(s.lost, p) })
	if len(paths) == 0 {
		return nil
	}
	return &nixstore.InvalidPathsError{Paths: paths}
}

// TestSubstituted backs up a closure of which parts are in the store, and in a
// cache, in turns: what the store has comes from there, though the cache has it
// as well.
func TestSubstituted(t *testing.T) {
	store := backuptest.NewStore(t)
	base := store.Add("base", "the base")
	middle := store.Add("middle", "the middle", base)
	top := store.Add("top", "the top", middle)
	dir := t.TempDir()
	mustRun(t, dir, store, request("r", top))
	for _, lost := range [][]storepath.Path{{top}, {middle}, {top, middle}, {base}, {top, base}, {}} {
		from, err := Open(dir, bincache.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Substituted(lossyStore{store, lost}, FromCache(from, false))
		if err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		if r := mustRun(t, to, s, request("r", top)); r.Total.Paths != 3 {
			t.Errorf("without %s: %+v", lost, r.Total)
		}
		backuptest.CheckWhole(t, to, "p/r")
		for _, p := range []storepath.Path{base, middle, top} {
			isInCache := s.RealPath(p) != store.RealPath(p)
			if isInCache != slices.Contains(lost, p) {
				t.Errorf("without %s: %s comes from %s", lost, p, s.RealPath(p))
			}
		}
		from.Close()
	}
}

// TestSubstitutedErrors asks for what neither has, and for a cache of another
// store directory.
func TestSubstitutedErrors(t *testing.T) {
	store := backuptest.NewStore(t)
	kept, lost := store.Add("kept", "x"), store.Add("lost", "y")
	dir := t.TempDir()
	mustRun(t, dir, store, request("r", kept))
	delete(store.Valid, lost)
	from := mustOpen(t, dir)
	s, err := Substituted(store, FromCache(from, false))
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	_, err = Run(t.Context(), to, s, Request{Release: ReleaseID{"p", "r"}, Roots: []storepath.Path{kept, lost}})
	var invalid *nixstore.InvalidPathsError
	if !errors.As(err, &invalid) || !slices.Equal(invalid.Paths, []storepath.Path{lost}) {
		t.Errorf("the error is %v", err)
	}
	if names, err := os.ReadDir(to); err != nil || len(names) > 0 {
		t.Errorf("there is %v, %v", names, err)
	}
	if _, err := Substituted(backuptest.NewStore(t), FromCache(from, false)); err == nil {
		t.Error("a cache of another store directory is taken")
	}
}
