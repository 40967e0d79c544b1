package index

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// smallIndex builds an index of three store paths and returns its files, each
// with its content.
func smallIndex(t *testing.T) (f *fakeCache, dir string, files map[string][]byte) {
	t.Helper()
	f = newFakeCache(t, 3)
	dir = t.TempDir()
	f.build(dir, BuildOptions{})
	files = map[string][]byte{}
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != lockFile {
			files[name], err = os.ReadFile(name)
		}
		return err
	}))
	if len(files) != 6 { // CURRENT, manifest, names, references, MANIFEST, a table
		t.Fatalf("the index has the files %q", slices.Sorted(maps.Keys(files)))
	}
	return f, dir, files
}

// survives checks that all answers are right or errors that say so.
func (f *fakeCache) survives(dir, what string) {
	f.t.Helper()
	ix, err := Open(dir, Options{})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			f.t.Fatalf("%s: no index: %v", what, err)
		}
		return
	}
	defer ix.Close()
	f.answers(ix, what)
}

func (f *fakeCache) answers(ix *Index, what string) (failed int) {
	f.t.Helper()
	if ix.Len() != len(f.want) {
		f.t.Fatalf("%s: %d store paths", what, ix.Len())
	}
	for p, w := range f.want {
		if _, ok := ix.Number(p); !ok {
			f.t.Fatalf("%s: %s is absent", what, p)
		}
		_, err := ix.Record(p)
		var damage *DamageError
		switch {
		case err == nil:
			if problem := w.compare(ix, p); problem != "" {
				f.t.Fatalf("%s: %s: %s", what, p, problem)
			}
		case !errors.As(err, &damage):
			f.t.Fatalf("%s: %s: %v", what, p, err)
		default:
			failed++
		}
	}
	return failed
}

func TestEveryByteFlipped(t *testing.T) {
	f, dir, files := smallIndex(t)
	for name, good := range files {
		bad := bytes.Clone(good)
		for i := range bad {
			bad[i] ^= 1 << (i % 8)
			must(t, os.WriteFile(name, bad, 0o644))
			f.survives(dir, name)
			bad[i] = good[i]
		}
		must(t, os.WriteFile(name, good, 0o644))
	}
	f.check(dir)
}

func TestTruncatedFiles(t *testing.T) {
	f, dir, files := smallIndex(t)
	for name, good := range files {
		for n := 0; n < len(good); n += 1 + n/20 {
			must(t, os.WriteFile(name, good[:n], 0o644))
			if _, err := Open(dir, Options{}); err == nil && filepath.Base(name) != currentFile {
				t.Errorf("%s: cut after %d bytes: no error", name, n)
			}
			f.survives(dir, name)
		}
		must(t, os.WriteFile(name, append(bytes.Clone(good), 0), 0o644))
		f.survives(dir, name)
		must(t, os.Remove(name))
		if _, err := Open(dir, Options{}); err == nil || filepath.Base(name) != currentFile && errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is missing: %v", name, err)
		}
		must(t, os.WriteFile(name, good, 0o644))
	}
	f.check(dir)
}

// Badger would delete a table that it does not know.
func TestForeignFiles(t *testing.T) {
	f, dir, _ := smallIndex(t)
	for _, name := range []string{"000099.sst", "000002.vlog", "00001.mem", "x"} {
		foreign := filepath.Join(dir, "gen-1", recordsDir, name)
		must(t, os.WriteFile(foreign, []byte("x"), 0o644))
		var damage *DamageError
		if _, err := Open(dir, Options{}); !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.Remove(foreign))
	}
	f.check(dir)
}

// Whatever is damaged, a build mends it, and keeps the numbers if it can.
func TestBuildMendsDamage(t *testing.T) {
	f, dir, files := smallIndex(t)
	want, numbering := numbers(t, dir)
	for name, good := range files {
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 4
		must(t, os.WriteFile(name, bad, 0o644))
		f.build(dir, BuildOptions{})
		f.check(dir)
		got, same := numbers(t, dir)
		named := strings.Contains(name, recordsDir) || filepath.Base(name) == referencesFile // the names are undamaged
		for p := range want {
			if named && got[p] != want[p] {
				t.Errorf("%s: number of %s was %d, is %d", name, p, want[p], got[p])
			}
		}
		if (same == numbering) != named {
			t.Errorf("%s: numbering %v", name, same == numbering)
		}
		must(t, os.RemoveAll(dir))
		must(t, os.Mkdir(dir, 0o755))
		for name, good := range files {
			must(t, os.MkdirAll(filepath.Dir(name), 0o755))
			must(t, os.WriteFile(name, good, 0o644))
		}
	}
}

// Flips in records that are open already, as a failing medium makes them: in
// a map the change is seen at once.
func TestFlipsWhileOpen(t *testing.T) {
	f := newFakeCache(t, 40)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	table := filepath.Join(dir, "gen-1", recordsDir, "000001.sst")
	file, err := os.OpenFile(table, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	good, err := os.ReadFile(table)
	must(t, err)
	failed := 0
	for i := 0; i < len(good); i += 1 + i%23 {
		_, err = file.WriteAt([]byte{good[i] ^ byte(1+i%255)}, int64(i))
		must(t, err)
		failed += f.answers(ix, table)
		_, err = file.WriteAt(good[i:i+1], int64(i))
		must(t, err)
	}
	if failed < len(good)/8 {
		t.Errorf("%d records failed in %d bytes", failed, len(good))
	}
	f.compare(ix)
	must(t, file.Truncate(10)) // as if the medium were gone: a fault, not an error
	if failed := f.answers(ix, "truncated while open"); failed != len(f.want) {
		t.Errorf("%d records failed", failed)
	}
	must(t, os.WriteFile(table, good, 0o644))
	f.compare(ix)
}

// Verify finds what no answer needs.
func TestVerify(t *testing.T) {
	f := newFakeCache(t, 40)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	must(t, ix.Verify(t.Context()))
	table := filepath.Join(dir, "gen-1", recordsDir, "000001.sst")
	good, err := os.ReadFile(table)
	must(t, err)
	bad := bytes.Clone(good)
	bad[100] ^= 1
	must(t, os.WriteFile(table, bad, 0o644))
	var damage *DamageError
	if err := ix.Verify(t.Context()); !errors.As(err, &damage) || damage.File != table {
		t.Errorf("flipped: %v", err)
	}
	must(t, os.Remove(table))
	if err := ix.Verify(t.Context()); !errors.As(err, &damage) {
		t.Errorf("missing: %v", err)
	}
}
