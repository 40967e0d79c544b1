package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A repairScene is a scene that is damaged and repaired.
type repairScene struct{ *backuptest.Scene }

// harm damages it: a NAR file, a narinfo, a listing, and a NAR file that
// nothing has any more. It returns what Repair is to look at.
func (s repairScene) harm() Suspects {
	s.Helper()
	keep, only, drop := s.NarInfo(s.Keep), s.NarInfo(s.Only), s.NarInfo(s.Drop)
	flip := func(name string) {
		text, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		text[20] ^= 1
		s.Write(string(text), name[len(s.Dir)+1:])
	}
	flip(s.Path(layout.CacheDir, keep.URL))
	s.Remove(layout.CacheDir, only.StorePath.Hash()+bincache.NarInfoExt)
	s.Remove(layout.CacheDir, only.URL)
	flip(s.Path(layout.CacheDir, drop.URL))
	s.Write("[", layout.CacheDir, keep.StorePath.Hash()+bincache.ListingExt)
	delete(s.Store.Valid, s.Drop)
	return Suspects{
		NarInfos: []string{s.Only.Hash()}, NARs: []string{s.Keep.Hash(), s.Drop.Hash()}, Listings: []string{s.Keep.Hash()},
		Names: map[string]storepath.Path{s.Only.Hash(): s.Only},
	}
}

func (s repairScene) repairRequest(suspects Suspects) RepairRequest {
	return RepairRequest{Suspects: suspects, Store: s.Store}
}

// checkNotWorse checks that every narinfo that is there is whole, but for those
// that were damaged before, and that nothing is lost.
func (s repairScene) checkNotWorse(before map[string][]byte) {
	s.Helper()
	b, err := Open(s.Dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	for name, text := range before {
		now, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			trashed, _ := filepath.Glob(s.Path(layout.TrashDir, "*", quarantineDir, name))
			if len(trashed) == 0 {
				s.Errorf("%s is gone", name)
			}
			continue
		}
		info, err := narinfo.Parse(now)
		if err != nil {
			s.Errorf("%s: %v", name, err)
		} else if info.StorePath != s.Keep && info.StorePath != s.Drop {
			s.checkNAR(b, info)
		} else if !bytes.Equal(now, text) {
			s.Errorf("%s is %q, was %q", name, now, text)
		}
	}
}

func (s repairScene) checkNAR(b *Backup, info *narinfo.NarInfo) {
	s.Helper()
	archive, err := b.Cache.Archive(info)
	if err != nil {
		s.Error(err)
		return
	}
	defer archive.Close()
	if _, err := archive.WriteTo(io.Discard); err != nil {
		s.Error(err)
	}
}

func (s repairScene) narInfos() map[string][]byte {
	s.Helper()
	texts := make(map[string][]byte)
	names, err := filepath.Glob(s.Path(layout.CacheDir, "*"+bincache.NarInfoExt))
	if err != nil {
		s.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		texts[name[len(s.Dir)+1:]] = text
	}
	return texts
}

// TestCrashRepair stops a repair at each operation: nothing is worse than
// before, and the next repair completes it.
func TestCrashRepair(t *testing.T) {
	testRepairFaults(t, backuptest.ErrPower, func(fs *backuptest.PowerFS) { fs.Crash() })
}

// TestKillRepair is the same without a power cut.
func TestKillRepair(t *testing.T) {
	testRepairFaults(t, backuptest.ErrPower, func(*backuptest.PowerFS) {})
}

// TestDiskFullRepair lets one operation fail for lack of space.
func TestDiskFullRepair(t *testing.T) {
	testRepairFaults(t, syscall.ENOSPC, func(*backuptest.PowerFS) {})
}

func testRepairFaults(t *testing.T, fault error, after func(*backuptest.PowerFS)) {
	template := repairScene{twoReleases(t)}
	whole := template.narInfos()
	suspects := template.harm()
	before := template.narInfos()
	template.Everywhere(t, fault, after,
		func(s *backuptest.Scene, fs *backuptest.PowerFS) error {
			_, err := repair(t.Context(), fs, s.Dir, repairScene{s}.repairRequest(suspects))
			return err
		},
		func(scene *backuptest.Scene) {
			s := repairScene{scene}
			if errors.Is(fault, syscall.ENOSPC) {
				backuptest.CheckNoTemp(t, s.Dir)
			}
			s.checkNotWorse(before)
			if _, err := repair(t.Context(), backuptest.Memory{}, s.Dir, s.repairRequest(suspects)); err != nil {
				t.Errorf("the repair after it: %v", err)
			}
			s.checkRepaired(whole)
		})
}

// checkRepaired checks that all is as before, but that the store path that
// nothing has is quarantined.
func (s repairScene) checkRepaired(whole map[string][]byte) {
	s.Helper()
	backuptest.CheckWhole(s.T, s.Dir, "p/keep")
	now := s.narInfos()
	for name, text := range whole {
		isDrop := bincache.HashOfFile(name) == s.Drop.Hash()
		if got, there := now[name]; there == isDrop || there && !bytes.Equal(got, text) {
			s.Errorf("%s is %q, was %q", name, got, text)
		}
	}
	b, err := Open(s.Dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	known, err := b.quarantined()
	if err != nil || known[s.Drop.Hash()].NarInfo == "" {
		s.Errorf("quarantined is %+v, %v", known, err)
	}
	if text, err := os.ReadFile(s.Path(layout.CacheDir, s.Keep.Hash()+bincache.ListingExt)); err != nil || len(text) < 2 {
		s.Errorf("the listing is %q, %v", text, err)
	}
}
