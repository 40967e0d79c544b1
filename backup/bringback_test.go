package backup

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/trash"
	"github.com/narvault/narvault/index/bincache"
)

// collect puts the release that is to be dropped into the trash, with what only
// it needs, as forget and gc do.
func collect(s *backuptest.Scene) {
	s.Helper()
	t := &trash.Taker{FS: backuptest.Memory{}, Dir: s.Dir, Now: time.Now()}
	names := []string{layout.Release("p", "drop")}
	for p := range s.Store.Valid {
		if p.Name() == "drop" || p.Name() == "only" || p.Name() == "other.txt" {
			name := filepath.Join(layout.CacheDir, p.Hash())
			names = append(names, name+bincache.NarInfoExt, name+bincache.ListingExt)
		}
	}
	for _, p := range []string{s.NarInfo(s.Drop).URL, s.NarInfo(s.Only).URL} {
		names = append(names, filepath.Join(layout.CacheDir, p))
	}
	if err := t.Take(names); err != nil {
		s.Fatal(err)
	}
}

// TestBringingBackCrashesAnywhere stops a backup that needs what is in the trash
// at each single operation: the releases that are there stay whole, and the next
// try succeeds without writing a NAR again.
func TestBringingBackCrashesAnywhere(t *testing.T) {
	template := twoReleases(t)
	collect(template)
	for name, f := range map[string]struct {
		fault error
		after func(*backuptest.PowerFS)
	}{
		"power cut": {backuptest.ErrPower, (*backuptest.PowerFS).Crash},
		"kill":      {backuptest.ErrPower, func(*backuptest.PowerFS) {}},
		"full disk": {syscall.ENOSPC, func(*backuptest.PowerFS) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template.Everywhere(t, f.fault, f.after,
				func(s *backuptest.Scene, fs *backuptest.PowerFS) error {
					_, err := run(t.Context(), fs, s.Dir, s.Store, request("drop", s.Drop))
					return err
				},
				func(s *backuptest.Scene) {
					backuptest.CheckWhole(t, s.Dir, "p/keep")
					if r := mustRun(t, s.Dir, s.Store, request("drop", s.Drop)); r.Write.Paths != 0 {
						t.Errorf("%d NARs were written again", r.Write.Paths)
					}
					backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
				})
		})
	}
}
