package backup

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
)

// TestCrashRepairFrom stops a repair out of a copy of the backup at each
// operation: NAR files, narinfos, the record of a release and a dump of a
// database are each as they were, or as they have to be.
func TestCrashRepairFrom(t *testing.T) {
	testRepairFromFaults(t, backuptest.ErrPower, func(fs *backuptest.PowerFS) { fs.Crash() })
}

// TestKillRepairFrom is the same without a power cut.
func TestKillRepairFrom(t *testing.T) {
	testRepairFromFaults(t, backuptest.ErrPower, func(*backuptest.PowerFS) {})
}

// TestDiskFullRepairFrom lets one operation fail for lack of space.
func TestDiskFullRepairFrom(t *testing.T) {
	testRepairFromFaults(t, syscall.ENOSPC, func(*backuptest.PowerFS) {})
}

func testRepairFromFaults(t *testing.T, fault error, after func(*backuptest.PowerFS)) {
	template := repairScene{twoReleases(t)}
	dump := mustAddDump(t, template.Dir, dumpOf("hydra", strings.Repeat("row\n", 1000))).Dump
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(template.Dir)); err != nil {
		t.Fatal(err)
	}
	from := mustOpen(t, copied)
	req := RepairRequest{From: []*Backup{from}, NoCheckSigs: true, Suspects: template.harm()}
	template.Write("", layout.ReleasesDir, "p", "drop", layout.ClosureFile)
	template.Write("no frames", layout.DumpsDir, filepath.Base(dump.File))
	req.Releases, req.Dumps = []ReleaseID{{Project: "p", Name: "drop"}}, []string{filepath.Base(dump.File)}
	whole, harmed := contents(t, copied), contents(t, template.Dir)
	template.Everywhere(t, fault, after,
		func(s *backuptest.Scene, fs *backuptest.PowerFS) error {
			_, err := repair(t.Context(), fs, s.Dir, req)
			return err
		},
		func(s *backuptest.Scene) {
			if errors.Is(fault, syscall.ENOSPC) {
				backuptest.CheckNoTemp(t, s.Dir)
			}
			now := contents(t, s.Dir)
			for name, text := range whole {
				if !bytes.Equal(now[name], text) && !bytes.Equal(now[name], harmed[name]) {
					t.Errorf("%s is neither what it was nor what it has to be: %.200q", name, now[name])
				}
			}
			if r, err := repair(t.Context(), backuptest.Memory{}, s.Dir, req); err != nil || len(r.Quarantined)+len(r.Lost) > 0 {
				t.Errorf("the repair after it: %+v, %v", r, err)
			}
			if now := contents(t, s.Dir); !maps.EqualFunc(now, whole, bytes.Equal) {
				t.Errorf("there are\n%q, not\n%q, or they differ", slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(whole)))
			}
		})
}

// contents returns the files of a backup, but for locks and temporary ones.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || disk.IsTemp(d.Name()) || filepath.Dir(name) == filepath.Join(dir, layout.LocksDir) {
			return err
		}
		files[name[len(dir):]], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
