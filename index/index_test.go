package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

func TestBuildAndOpen(t *testing.T) {
	for _, paths := range []int{0, 1, 300} {
		f := newFakeCache(t, paths)
		dir := filepath.Join(t.TempDir(), "a", "index")
		s := f.build(dir, BuildOptions{Cache: "id-x"})
		if s.Paths != paths || s.Reused+s.NoListing+s.Damaged != 0 || s.Unchanged {
			t.Errorf("%+v", s)
		}
		f.check(dir)
		if got := generations(t, dir); !slices.Equal(got, []string{"gen-1"}) {
			t.Errorf("generations %v", got)
		}
	}
}

func TestLookups(t *testing.T) {
	f := newFakeCache(t, 50)
	dir := t.TempDir()
	f.build(dir, BuildOptions{Cache: "id-x"})
	ix, err := Open(dir, Options{Cache: "id-x"})
	must(t, err)
	for i, p := range f.paths() {
		if n, ok := ix.Number(p); !ok || n != uint32(i+1) {
			t.Fatalf("number of %s is %d, want %d: numbered in order at first", p, n, i+1)
		}
		if e, ok := ix.ByHash(p.Hash()); !ok || e.Path != p || e.Number != uint32(i+1) {
			t.Fatalf("by hash: %v", e)
		}
		for _, absent := range []storepath.Path{p + "x", p[:len(p)-1], storepath.Path(p.Hash()), "", "z"} {
			if _, ok := ix.Number(absent); ok {
				t.Errorf("%q has a number", absent)
			}
			if _, err := ix.Record(absent); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", absent, err)
			}
		}
	}
	for _, hash := range []string{"", "0", strings.Repeat("0", 32), strings.Repeat("z", 32), strings.Repeat("z", 33)} {
		if e, ok := ix.ByHash(hash); ok {
			t.Errorf("%q is %v", hash, e)
		}
	}
	if ix.Len() != 50 || ix.Cache() != "id-x" || ix.StoreDir() != "/nix/store" || ix.Generation() != 1 || ix.Created().IsZero() {
		t.Error("what the manifest says")
	}
	must(t, ix.Close())
	for name, err := range map[string]error{"Close": ix.Close(), "Record": second(ix.Record(f.paths()[0])), "Verify": ix.Verify(t.Context())} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if len(ix.Paths()) != 50 {
		t.Error("paths may be kept")
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenErrors(t *testing.T) {
	f := newFakeCache(t, 3)
	dir := t.TempDir()
	if _, err := Open(dir, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no index: %v", err)
	}
	f.build(dir, BuildOptions{Cache: "id-x"})
	var damage *DamageError
	if _, err := Open(dir, Options{Cache: "id-y"}); !errors.As(err, &damage) {
		t.Errorf("index of another cache: %v", err)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "gen-1")))
	if _, err := Open(dir, Options{}); !errors.As(err, &damage) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no generation: %v", err)
	}
	f.build(dir, BuildOptions{})
	f.check(dir)
}

func TestIncrementalBuild(t *testing.T) {
	f := newFakeCache(t, 40)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	if s := f.build(dir, BuildOptions{}); !s.Unchanged || s.Generation != 1 || s.Paths != 40 || s.Reused != 40 || s.Entries == 0 || s.Size == 0 {
		t.Errorf("nothing changed: %+v", s)
	}
	ps := f.paths()
	before, numbering := numbers(t, dir)
	f.remove(ps[3])
	f.put(ps[5], f.randomNAR()) // another narinfo
	added := f.add("added")
	s := f.build(dir, BuildOptions{})
	if s.Unchanged || s.Generation != 2 || s.Paths != 40 || s.Reused != 38 {
		t.Errorf("after changes: %+v", s)
	}
	f.check(dir)
	after, same := numbers(t, dir)
	if same != numbering || after[added] != 41 {
		t.Errorf("the added path has number %d, numbering changed: %v", after[added], same != numbering)
	}
	for p, n := range after {
		if p != added && before[p] != n {
			t.Errorf("%s had number %d, has %d", p, before[p], n)
		}
	}
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-2"}) {
		t.Errorf("generations %v", got)
	}
}

// Only archives that are new are read.
func TestReuseReadsNoArchives(t *testing.T) {
	f := newFakeCache(t, 20)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	must(t, os.RemoveAll(filepath.Join(f.dir, "nar")))
	must(t, os.Mkdir(filepath.Join(f.dir, "nar"), 0o755))
	f.add("added")
	if s := f.build(dir, BuildOptions{}); s.Reused != 20 || s.NoListing != 0 {
		t.Errorf("%+v", s)
	}
	f.check(dir)
}

// Over many generations no number is ever given to two store paths.
func TestNumbersAreStable(t *testing.T) {
	f := newFakeCache(t, 10)
	dir := t.TempDir()
	owner := map[uint32]storepath.Path{}
	var gone []storepath.Path
	for round := range 12 {
		f.build(dir, BuildOptions{})
		nums, _ := numbers(t, dir)
		for p, n := range nums {
			if was, ok := owner[n]; ok && was != p {
				t.Fatalf("round %d: %d was %s, is %s", round, n, was, p)
			}
			owner[n] = p
		}
		for _, p := range gone {
			if n, ok := nums[p]; ok {
				t.Fatalf("%s is gone and has number %d", p, n)
			}
		}
		ps := f.paths()
		victim := ps[f.rnd.IntN(len(ps))]
		f.remove(victim)
		gone = append(gone, victim)
		f.add("x")
		if round%3 == 0 { // the last number too
			for p, n := range nums {
				if int(n) == len(owner) && p != victim {
					f.remove(p)
					gone = append(gone, p)
				}
			}
		}
	}
}

// The hash part of a store path may come back with another name.
func TestOtherNameOfSameHash(t *testing.T) {
	f := newFakeCache(t, 5)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	old := f.paths()[2]
	other := storepath.Path(old.Hash() + "-other")
	delete(f.want, old)
	f.put(other, f.randomNAR())
	f.build(dir, BuildOptions{})
	f.check(dir)
	if nums, _ := numbers(t, dir); nums[other] != 6 {
		t.Errorf("number %d, want a new one", nums[other])
	}
}

func TestNumbersUsedUp(t *testing.T) {
	f := newFakeCache(t, 5)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	_, numbering := numbers(t, dir)
	p, err := readCurrent(dir)
	must(t, err)
	m, err := readManifest(dir, p)
	must(t, err)
	m.NextNumber = maxNumber
	text, err := m.encode()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, genName(p.gen), manifestFile), text, 0o644))
	p.sum = narinfo.Hash(sum256(text))
	must(t, os.WriteFile(filepath.Join(dir, currentFile), []byte(p.String()), 0o644))
	f.check(dir)
	f.add("x")
	f.add("y")
	f.build(dir, BuildOptions{})
	f.check(dir)
	nums, again := numbers(t, dir)
	if again == numbering {
		t.Error("numbering began anew under the same name")
	}
	for i, p := range f.paths() {
		if nums[p] != uint32(i+1) {
			t.Errorf("%s has number %d", p, nums[p])
		}
	}
}

func TestDamagedCache(t *testing.T) {
	f := newFakeCache(t, 10)
	dir := t.TempDir()
	ps := f.paths()
	good := slices.Clone(f.want[ps[0]].file)
	// A narinfo that was never good is unknown by name.
	broken := storepath.Path(randomHash(f.rnd) + "-broken")
	must(t, os.WriteFile(f.narInfo(broken), []byte("hello"), 0o644))
	// An archive that is damaged or missing.
	info, err := narinfo.Parse(f.want[ps[1]].file)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.dir, info.URL), make([]byte, info.NarSize), 0o644))
	f.want[ps[1]].listing = ""
	var warnings []error
	s := f.build(dir, BuildOptions{Warn: func(err error) { warnings = append(warnings, err) }})
	if s.Paths != 10 || s.Damaged != 1 || s.NoListing != 1 || len(warnings) != 2 {
		t.Errorf("%+v, warnings %v", s, warnings)
	}
	f.check(dir)
	checkNoListing(t, dir, ps[1])
	if s := f.build(dir, BuildOptions{}); !s.Unchanged || s.Reused != 9 || s.Damaged != 1 {
		t.Errorf("again: %+v", s)
	}

	// A narinfo that is damaged later keeps its name and number.
	must(t, os.WriteFile(f.narInfo(ps[0]), good[:len(good)-3], 0o644))
	s = f.build(dir, BuildOptions{})
	if s.Unchanged || s.Paths != 10 || s.Damaged != 2 || s.NoListing != 2 {
		t.Errorf("narinfo damaged: %+v", s)
	}
	ix, err := Open(dir, Options{})
	must(t, err)
	var damage *bincache.DamageError
	if _, err := ix.Record(ps[0]); !errors.As(err, &damage) {
		t.Errorf("record of a damaged narinfo: %v", err)
	}
	must(t, ix.Close())
	if s := f.build(dir, BuildOptions{}); !s.Unchanged || s.Damaged != 2 {
		t.Errorf("again: %+v", s)
	}

	// All is mended.
	f.write(ps[0], good)
	f.put(ps[1], f.randomNAR())
	must(t, os.Remove(f.narInfo(broken)))
	s = f.build(dir, BuildOptions{})
	if s.Unchanged || s.Paths != 10 || s.Damaged != 0 || s.NoListing != 0 || s.Reused != 8 {
		t.Errorf("mended: %+v", s)
	}
	if nums, _ := numbers(t, dir); nums[ps[0]] != 1 {
		t.Errorf("number %d after damage, want 1", nums[ps[0]])
	}
}

func checkNoListing(t *testing.T, dir string, p storepath.Path) {
	t.Helper()
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	r, err := ix.Record(p)
	must(t, err)
	var none *NoListingError
	if _, err := r.Listing(); !errors.As(err, &none) || none.Reason == "" {
		t.Errorf("listing of a damaged archive: %v", err)
	}
}

// A cache whose medium vanishes is not a cache of damaged files.
func TestVanishedCache(t *testing.T) {
	f := newFakeCache(t, 10)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	c := f.open()
	must(t, os.Remove(filepath.Join(f.dir, bincache.InfoFile)))
	f.add("x")
	if _, err := Build(t.Context(), dir, c, BuildOptions{}); err == nil {
		t.Error("no error")
	}
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-1"}) {
		t.Errorf("generations %v", got)
	}
}
