package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/index/bincache"
)

// A release of which lines of closure.txt are lost, or whose record was changed,
// is not copied: the copy would look whole.
func TestCopyOfDamagedRecord(t *testing.T) {
	for name, change := range map[string]func(*backuptest.Scene){
		"a line of closure.txt": func(s *backuptest.Scene) { s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/keep/closure.txt") },
		"a letter of release.json": func(s *backuptest.Scene) {
			text, err := os.ReadFile(s.Path("releases/p/keep/release.json"))
			if err != nil {
				s.Fatal(err)
			}
			s.Write(strings.Replace(string(text), `"binary"`, `"source"`, 1), "releases/p/keep/release.json")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoReleases(t)
			change(s)
			b := mustOpen(t, s.Dir)
			to := filepath.Join(t.TempDir(), "to")
			var damage *bincache.DamageError
			if _, err := Copy(t.Context(), to, FromCache(b, false), ReleaseID{"p", "keep"}, Request{}); !errors.As(err, &damage) {
				t.Errorf("got %v, want damage", err)
			}
			if backuptest.Exists(to) {
				t.Error("something was copied")
			}
		})
	}
}

// A release that a crash left half updated has a complete closure.
func TestWholeClosure(t *testing.T) {
	s := twoReleases(t)
	before, err := os.ReadFile(s.Path("releases/p/keep/release.json"))
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, s.Dir, s.Store, request("keep", s.Only))
	s.Write(string(before), "releases/p/keep/release.json")
	b := mustOpen(t, s.Dir)
	if closure, err := b.WholeClosure(ReleaseID{"p", "keep"}); err != nil || len(closure) != 2 {
		t.Errorf("got %v, %v", closure, err)
	}
	s.Remove("releases/p/keep/previous")
	var damage *bincache.DamageError
	if closure, err := b.WholeClosure(ReleaseID{"p", "keep"}); !errors.As(err, &damage) {
		t.Errorf("got %v, %v, want damage", closure, err)
	}
}

// A release that a crash left half updated is copied as it was before: of one
// piece.
func TestCopyOfHalfUpdatedRelease(t *testing.T) {
	store, req := hydraScene(t)
	dir, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	mustRun(t, dir, store, req)
	next := req
	next.Hydra, next.Description = []byte(`{"version": 1, "tables": {}}`), "New"
	record := *req.Record
	record.Roots = []Root{req.Record.Roots[1]}
	next.Record = &record
	halves := 0
	for op := 1; ; op++ {
		half := filepath.Join(t.TempDir(), "half")
		if err := os.CopyFS(half, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		if _, err := run(t.Context(), fs, half, store, next); err == nil {
			break
		}
		b := mustOpen(t, half)
		if !b.HalfWritten(req.Release) {
			continue
		}
		halves++
		to := fmt.Sprint(to, op)
		r, err := Copy(t.Context(), to, FromCache(b, false), req.Release, Request{})
		if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "half updated") {
			t.Errorf("operation %d: %+v, %v", op, r, err)
			continue
		}
		backuptest.CheckWhole(t, to, "hello/hello-1.0")
		for _, name := range []string{"hydra.json", "closure.txt"} {
			want, err := os.ReadFile(filepath.Join(dir, "releases/hello/hello-1.0", name))
			got, err2 := os.ReadFile(filepath.Join(to, "releases/hello/hello-1.0", name))
			if errors.Join(err, err2) != nil || string(got) != string(want) {
				t.Errorf("operation %d: %s has %q, not %q (%v, %v)", op, name, got, want, err, err2)
			}
		}
	}
	if halves == 0 {
		t.Error("it was never half updated")
	}
}

// What a crash left half updated, or somebody changed, does not take the place of
// the record before.
func TestPreviousIsNotReplaced(t *testing.T) {
	for name, change := range map[string]func(*backuptest.Scene, string) string{
		"half updated": func(_ *backuptest.Scene, before string) string { return before },
		"changed": func(s *backuptest.Scene, _ string) string {
			text, err := os.ReadFile(s.Path("releases/p/r/release.json"))
			if err != nil {
				s.Fatal(err)
			}
			return strings.Replace(string(text), `"binary"`, `"source"`, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoReleases(t)
			one, two := s.Store.Add("one", "one"), s.Store.Add("two", "two")
			mustRun(t, s.Dir, s.Store, request("r", one))
			before, err := os.ReadFile(s.Path("releases/p/r/release.json"))
			if err != nil {
				t.Fatal(err)
			}
			mustRun(t, s.Dir, s.Store, request("r", two))
			s.Write(change(s, string(before)), "releases/p/r/release.json")
			mustRun(t, s.Dir, s.Store, request("r", two))
			backuptest.CheckWhole(t, s.Dir, "p/r")
			text, err := os.ReadFile(s.Path("releases/p/r/previous/closure.txt"))
			if want := one.In(s.Store.Top) + "\n"; err != nil || string(text) != want {
				t.Errorf("the record before has %q, %v, want %q", text, err, want)
			}
		})
	}
}
