package backup

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// A deed is a change of a gcScene that is stopped at each of its operations.
type deed struct {
	prepare func(*gcScene)
	do      func(*gcScene, *powerFS) error
	// again does it once more, or what a user would do then, and checks what
	// must have come of it.
	again func(*gcScene)
}

var dropID = ReleaseID{"p", "drop"}

func (s *gcScene) mustUnforget() {
	s.Helper()
	if err := unforget(s.Context(), memory{}, s.dir, dropID, lock.Options{}); err != nil {
		s.Error(err)
	}
}

func (s *gcScene) forgotten() bool {
	return !exists(s.path(layout.ReleasesDir, "p", "drop", layout.ClosureFile))
}

// checkCollected checks that nothing is left but what the release that is kept
// needs.
func (s *gcScene) checkCollected() {
	s.Helper()
	checkWhole(s.T, s.dir, "p/keep")
	for pattern, want := range map[string]int{"*.narinfo": 3, "*.ls": 3, "nar/*": 3} {
		if got, _ := filepath.Glob(s.path(layout.CacheDir, pattern)); len(got) != want {
			s.Errorf("%s: %v are left", pattern, got)
		}
	}
}

var deeds = map[string]deed{
	"forget": {
		do: func(s *gcScene, fs *powerFS) error {
			_, err := forget(s.Context(), fs, s.dir, ForgetRequest{Releases: []ReleaseID{dropID}})
			return err
		},
		again: func(s *gcScene) {
			// It is either still there or in the trash, whole.
			if s.forgotten() {
				s.mustUnforget()
			}
			checkWhole(s.T, s.dir, "p/keep", "p/drop")
			s.forget("drop")
			s.gc(GCOptions{})
			s.checkCollected()
		},
	},
	"gc": {
		prepare: func(s *gcScene) { s.forget("drop") },
		do: func(s *gcScene, fs *powerFS) error {
			_, err := gc(s.Context(), fs, s.dir, GCOptions{})
			return err
		},
		again: func(s *gcScene) {
			s.mustUnforget() // nothing was lost on the way
			checkWhole(s.T, s.dir, "p/keep", "p/drop")
			s.forget("drop")
			s.gc(GCOptions{})
			s.checkCollected()
		},
	},
	"gc now": {
		prepare: func(s *gcScene) { s.forget("drop") },
		do: func(s *gcScene, fs *powerFS) error {
			_, err := gc(s.Context(), fs, s.dir, GCOptions{Now: true})
			return err
		},
		again: func(s *gcScene) {
			s.gc(GCOptions{Now: true})
			s.checkCollected()
		},
	},
	"purge": {
		prepare: func(s *gcScene) {
			s.forget("drop")
			s.gc(GCOptions{})
		},
		do: func(s *gcScene, fs *powerFS) error {
			_, err := gc(s.Context(), fs, s.dir, GCOptions{now: time.Now().Add(2 * DefaultGrace)})
			return err
		},
		again: func(s *gcScene) {
			s.gc(GCOptions{Now: true})
			if left, err := os.ReadDir(s.path(layout.TrashDir)); err != nil || len(left) > 0 {
				s.Errorf("the trash holds %v, %v", left, err)
			}
			s.checkCollected()
		},
	},
	"undo": {
		prepare: func(s *gcScene) {
			s.forget("drop")
			s.gc(GCOptions{})
		},
		do: func(s *gcScene, fs *powerFS) error { return unforget(s.Context(), fs, s.dir, dropID, lock.Options{}) },
		again: func(s *gcScene) {
			if s.forgotten() {
				s.mustUnforget()
			}
			checkWhole(s.T, s.dir, "p/keep", "p/drop")
		},
	},
	"a backup out of the trash": {
		prepare: func(s *gcScene) {
			s.forget("drop")
			s.gc(GCOptions{})
		},
		do: func(s *gcScene, fs *powerFS) error {
			_, err := run(s.Context(), fs, s.dir, s.store, request("drop", s.drop))
			return err
		},
		again: func(s *gcScene) {
			if r := mustRun(s.T, s.dir, s.store, request("drop", s.drop)); r.Write.Paths != 0 {
				s.Errorf("%d NARs were written again", r.Write.Paths)
			}
			checkWhole(s.T, s.dir, "p/keep", "p/drop")
		},
	},
}

// TestCollectingCrashesAnywhere stops everything that takes out or puts back at
// each single operation: by a power cut, a kill, and a full disk. What is left
// is a valid cache in which the release that is kept is whole, and the next try
// succeeds.
func TestCollectingCrashesAnywhere(t *testing.T) {
	for name, d := range deeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("power cut", func(t *testing.T) { d.everywhere(t, errPower, (*powerFS).crash) })
			t.Run("kill", func(t *testing.T) { d.everywhere(t, errPower, func(*powerFS) {}) })
			t.Run("full disk", func(t *testing.T) { d.everywhere(t, syscall.ENOSPC, func(*powerFS) {}) })
		})
	}
}

func (d deed) everywhere(t *testing.T, fault error, after func(*powerFS)) {
	template := newGCScene(t)
	if d.prepare != nil {
		d.prepare(template)
	}
	for op := 1; !t.Failed(); op++ {
		s := *template
		s.dir = filepath.Join(t.TempDir(), "backup")
		if err := os.CopyFS(s.dir, os.DirFS(template.dir)); err != nil {
			t.Fatal(err)
		}
		fs := newPowerFS(t, op, fault, uint64(op))
		err := d.do(&s, fs)
		if err != nil && !errors.Is(err, fault) {
			t.Fatalf("operation %d: ended with %v", op, err)
		}
		done := fs.ops < op
		after(fs)
		checkWhole(t, s.dir, "p/keep")
		d.again(&s)
		if t.Failed() {
			t.Errorf("it was operation %d", op)
		}
		if done {
			t.Logf("%d operations", op-1)
			return
		}
	}
}

// A release that is being forgotten is at every instant there for a reader,
// whole, or not at all.
func TestForgetIsAtOnce(t *testing.T) {
	s := newGCScene(t)
	b, err := Open(s.dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 20 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !s.forgotten() {
				if paths, err := b.Closure(dropID); err == nil && len(paths) != 4 || err != nil && !errors.Is(err, ErrNoRelease) {
					t.Errorf("round %d: %d paths, %v", i, len(paths), err)
				}
			}
		}()
		s.forget("drop")
		<-done
		s.mustUnforget()
	}
}
