package gc

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// A deed is a change of a scene that is stopped at each of its operations.
type deed struct {
	prepare func(scene)
	do      func(scene, *backuptest.PowerFS) error
	// again does it once more, or what a user would do then, and checks what
	// must have come of it.
	again func(scene)
}

var dropID = backup.ReleaseID{Project: "p", Name: "drop"}

func (s scene) mustUnforget() {
	s.Helper()
	if err := unforget(s.Context(), backuptest.Memory{}, s.Dir, dropID, lock.Options{}); err != nil {
		s.Error(err)
	}
}

func (s scene) forgotten() bool {
	return !backuptest.Exists(s.Path(layout.ReleasesDir, "p", "drop", layout.ClosureFile))
}

// checkCollected checks that nothing is left but what the release that is kept
// needs.
func (s scene) checkCollected() {
	s.Helper()
	backuptest.CheckWhole(s.T, s.Dir, "p/keep")
	for pattern, want := range map[string]int{"*.narinfo": 3, "*.ls": 3, "nar/*": 3} {
		if got, _ := filepath.Glob(s.Path(layout.CacheDir, pattern)); len(got) != want {
			s.Errorf("%s: %v are left", pattern, got)
		}
	}
}

var deeds = map[string]deed{
	"forget": {
		do: func(s scene, fs *backuptest.PowerFS) error {
			_, err := forget(s.Context(), fs, s.Dir, ForgetRequest{Releases: []backup.ReleaseID{dropID}})
			return err
		},
		again: func(s scene) {
			// It is either still there or in the trash, whole.
			if s.forgotten() {
				s.mustUnforget()
			}
			backuptest.CheckWhole(s.T, s.Dir, "p/keep", "p/drop")
			s.forget("drop")
			s.gc(Options{})
			s.checkCollected()
		},
	},
	"forget now": {
		do: func(s scene, fs *backuptest.PowerFS) error {
			_, err := forget(s.Context(), fs, s.Dir, ForgetRequest{Releases: []backup.ReleaseID{dropID}, Now: true})
			return err
		},
		again: func(s scene) {
			// It is either still there, whole, or gone.
			if !s.forgotten() {
				backuptest.CheckWhole(s.T, s.Dir, "p/keep", "p/drop")
				s.forget("drop")
			}
			mustRun(s.T, s.Dir, s.Store, request("keep", s.Keep)) // what is left hinders nobody
			s.gc(Options{Now: true})
			s.checkCollected()
			if left, err := filepath.Glob(s.Path(".narvault-*")); err != nil || len(left) > 0 {
				s.Errorf("left: %v, %v", left, err)
			}
		},
	},
	"gc": {
		prepare: func(s scene) { s.forget("drop") },
		do: func(s scene, fs *backuptest.PowerFS) error {
			_, err := run(s.Context(), fs, s.Dir, Options{})
			return err
		},
		again: func(s scene) {
			s.mustUnforget() // nothing was lost on the way
			backuptest.CheckWhole(s.T, s.Dir, "p/keep", "p/drop")
			s.forget("drop")
			s.gc(Options{})
			s.checkCollected()
		},
	},
	"gc now": {
		prepare: func(s scene) { s.forget("drop") },
		do: func(s scene, fs *backuptest.PowerFS) error {
			_, err := run(s.Context(), fs, s.Dir, Options{Now: true})
			return err
		},
		again: func(s scene) {
			s.gc(Options{Now: true})
			s.checkCollected()
		},
	},
	"purge": {
		prepare: func(s scene) {
			s.forget("drop")
			s.gc(Options{})
		},
		do: func(s scene, fs *backuptest.PowerFS) error {
			_, err := run(s.Context(), fs, s.Dir, Options{now: time.Now().Add(2 * DefaultGrace)})
			return err
		},
		again: func(s scene) {
			s.gc(Options{Now: true})
			if left, err := os.ReadDir(s.Path(layout.TrashDir)); err != nil || len(left) > 0 {
				s.Errorf("the trash holds %v, %v", left, err)
			}
			s.checkCollected()
		},
	},
	"undo": {
		prepare: func(s scene) {
			s.forget("drop")
			s.gc(Options{})
		},
		do: func(s scene, fs *backuptest.PowerFS) error {
			return unforget(s.Context(), fs, s.Dir, dropID, lock.Options{})
		},
		again: func(s scene) {
			if s.forgotten() {
				s.mustUnforget()
			}
			backuptest.CheckWhole(s.T, s.Dir, "p/keep", "p/drop")
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
			t.Run("power cut", func(t *testing.T) { d.everywhere(t, backuptest.ErrPower, (*backuptest.PowerFS).Crash) })
			t.Run("kill", func(t *testing.T) { d.everywhere(t, backuptest.ErrPower, func(*backuptest.PowerFS) {}) })
			t.Run("full disk", func(t *testing.T) { d.everywhere(t, syscall.ENOSPC, func(*backuptest.PowerFS) {}) })
		})
	}
}

func (d deed) everywhere(t *testing.T, fault error, after func(*backuptest.PowerFS)) {
	template := newScene(t)
	if d.prepare != nil {
		d.prepare(template)
	}
	template.Everywhere(t, fault, after,
		func(s *backuptest.Scene, fs *backuptest.PowerFS) error { return d.do(scene{s}, fs) },
		func(s *backuptest.Scene) {
			backuptest.CheckWhole(t, s.Dir, "p/keep")
			d.again(scene{s})
		})
}

// What was said to be done outlives a power cut.
func TestForgetAndUndoAreDurable(t *testing.T) {
	for seed := range uint64(8) {
		s := newScene(t)
		fs := backuptest.NewPowerFS(t, 0, backuptest.ErrPower, seed)
		if _, err := forget(t.Context(), fs, s.Dir, ForgetRequest{Releases: []backup.ReleaseID{dropID}}); err != nil {
			t.Fatal(err)
		}
		fs.Crash()
		if !s.forgotten() {
			t.Error("the release is there")
		}
		s.gc(Options{})
		fs = backuptest.NewPowerFS(t, 0, backuptest.ErrPower, seed)
		if err := unforget(t.Context(), fs, s.Dir, dropID, lock.Options{}); err != nil {
			t.Fatal(err)
		}
		fs.Crash()
		backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
	}
}

// A release that is being forgotten is at every instant there for a reader,
// whole, or not at all.
func TestForgetIsAtOnce(t *testing.T) {
	s := newScene(t)
	b, err := backup.Open(s.Dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 20 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !s.forgotten() {
				if paths, err := b.Closure(dropID); err == nil && len(paths) != 4 || err != nil && !errors.Is(err, backup.ErrNoRelease) {
					t.Errorf("round %d: %d paths, %v", i, len(paths), err)
				}
			}
		}()
		s.forget("drop")
		<-done
		s.mustUnforget()
	}
}
