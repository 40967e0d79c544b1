package backup

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// A backup that records a release while its record is being repaired is not
// undone: what closure.txt has to be is decided while nobody else writes.
func TestRepairBesideRecord(t *testing.T) {
	s := twoReleases(t)
	s.Write(string(formatClosure([]storepath.Path{s.Keep}, s.Store.Top)), "releases/p/keep/closure.txt")
	locked := 0
	req := RepairRequest{Suspects: Suspects{Releases: []ReleaseID{{"p", "keep"}}}}
	req.Lock.Flock = func(f *os.File, how int) error {
		if filepath.Base(f.Name()) == layout.MutexFile {
			// The first two are to say who we are and to sweep, the third to write.
			if locked++; locked == 3 {
				mustRun(t, s.Dir, s.Store, request("keep", s.Only))
			}
		}
		return syscall.Flock(int(f.Fd()), how)
	}
	if _, err := repair(t.Context(), backuptest.Memory{}, s.Dir, req); err != nil {
		t.Fatal(err)
	}
	if locked < 3 {
		t.Errorf("the mutex was taken %d times", locked)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
}
