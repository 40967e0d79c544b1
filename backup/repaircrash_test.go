package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// harm damages a gcScene: a NAR file, a narinfo, a listing, and a NAR file that
// nothing has any more. It returns what Repair is to look at.
func (s *gcScene) harm() Suspects {
	s.Helper()
	keep, only, drop := s.narInfo(s.keep), s.narInfo(s.only), s.narInfo(s.drop)
	flip := func(name string) {
		text, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		text[20] ^= 1
		s.write(string(text), name[len(s.dir)+1:])
	}
	flip(s.path(layout.CacheDir, keep.URL))
	s.remove(layout.CacheDir, only.StorePath.Hash()+bincache.NarInfoExt)
	s.remove(layout.CacheDir, only.URL)
	flip(s.path(layout.CacheDir, drop.URL))
	s.write("[", layout.CacheDir, keep.StorePath.Hash()+bincache.ListingExt)
	delete(s.store.infos, s.drop)
	return Suspects{
		NarInfos: []string{s.only.Hash()}, NARs: []string{s.keep.Hash(), s.drop.Hash()}, Listings: []string{s.keep.Hash()},
		Names: map[string]storepath.Path{s.only.Hash(): s.only},
	}
}

func (s *gcScene) repairRequest(suspects Suspects) RepairRequest {
	return RepairRequest{Suspects: suspects, Store: s.store}
}

// checkNotWorse checks that every narinfo that is there is whole, but for those
// that were damaged before, and that nothing is lost.
func (s *gcScene) checkNotWorse(before map[string][]byte) {
	s.Helper()
	b, err := Open(s.dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	for name, text := range before {
		now, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			trashed, _ := filepath.Glob(s.path(layout.TrashDir, "*", quarantineDir, name))
			if len(trashed) == 0 {
				s.Errorf("%s is gone", name)
			}
			continue
		}
		info, err := narinfo.Parse(now)
		if err != nil {
			s.Errorf("%s: %v", name, err)
		} else if info.StorePath != s.keep && info.StorePath != s.drop {
			s.checkNAR(b, info)
		} else if !bytes.Equal(now, text) {
			s.Errorf("%s is %q, was %q", name, now, text)
		}
	}
}

func (s *gcScene) checkNAR(b *Backup, info *narinfo.NarInfo) {
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

func (s *gcScene) narInfos() map[string][]byte {
	s.Helper()
	texts := make(map[string][]byte)
	names, err := filepath.Glob(s.path(layout.CacheDir, "*"+bincache.NarInfoExt))
	if err != nil {
		s.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			s.Fatal(err)
		}
		texts[name[len(s.dir)+1:]] = text
	}
	return texts
}

// TestCrashRepair stops a repair at each operation: nothing is worse than
// before, and the next repair completes it.
func TestCrashRepair(t *testing.T) {
	testRepairFaults(t, errPower, func(fs *powerFS) { fs.crash() })
}

// TestKillRepair is the same without a power cut.
func TestKillRepair(t *testing.T) { testRepairFaults(t, errPower, func(*powerFS) {}) }

// TestDiskFullRepair lets one operation fail for lack of space.
func TestDiskFullRepair(t *testing.T) { testRepairFaults(t, syscall.ENOSPC, func(*powerFS) {}) }

func testRepairFaults(t *testing.T, fault error, after func(*powerFS)) {
	template := newGCScene(t)
	whole := template.narInfos()
	suspects := template.harm()
	before := template.narInfos()
	for op := 1; !t.Failed(); op++ {
		s := *template
		s.T, s.dir = t, filepath.Join(t.TempDir(), "backup")
		if err := os.CopyFS(s.dir, os.DirFS(template.dir)); err != nil {
			t.Fatal(err)
		}
		fs := newPowerFS(t, op, fault, uint64(op))
		_, err := repair(t.Context(), fs, s.dir, s.repairRequest(suspects))
		if err != nil && !errors.Is(err, fault) {
			t.Fatalf("operation %d: ended with %v", op, err)
		}
		done := fs.ops < op
		after(fs)
		if errors.Is(fault, syscall.ENOSPC) {
			checkNoTemp(t, s.dir)
		}
		s.checkNotWorse(before)
		if _, err := repair(t.Context(), memory{}, s.dir, s.repairRequest(suspects)); err != nil {
			t.Errorf("the repair after it: %v", err)
		}
		s.checkRepaired(whole)
		if t.Failed() {
			t.Errorf("it was operation %d", op)
		}
		if done {
			t.Logf("%d operations", op-1)
			return
		}
	}
}

// checkRepaired checks that all is as before, but that the store path that
// nothing has is quarantined.
func (s *gcScene) checkRepaired(whole map[string][]byte) {
	s.Helper()
	checkWhole(s.T, s.dir, "p/keep")
	now := s.narInfos()
	for name, text := range whole {
		isDrop := bincache.HashOfFile(name) == s.drop.Hash()
		if got, there := now[name]; there == isDrop || there && !bytes.Equal(got, text) {
			s.Errorf("%s is %q, was %q", name, got, text)
		}
	}
	b, err := Open(s.dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	known, err := b.quarantined()
	if err != nil || known[s.drop.Hash()].NarInfo == "" {
		s.Errorf("quarantined is %+v, %v", known, err)
	}
	if text, err := os.ReadFile(s.path(layout.CacheDir, s.keep.Hash()+bincache.ListingExt)); err != nil || len(text) < 2 {
		s.Errorf("the listing is %q, %v", text, err)
	}
}
