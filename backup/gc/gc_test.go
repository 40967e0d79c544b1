package gc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

func (s scene) forget(names ...string) *ForgetResult {
	s.Helper()
	var req ForgetRequest
	for _, name := range names {
		req.Releases = append(req.Releases, backup.ReleaseID{Project: "p", Name: name})
	}
	r, err := forget(s.Context(), backuptest.Memory{}, s.Dir, req)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s scene) gc(o Options) *Result {
	s.Helper()
	r, err := run(s.Context(), backuptest.Memory{}, s.Dir, o)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// refuses checks that gc changes nothing.
func (s scene) refuses(o Options) error {
	s.Helper()
	before := backuptest.Tree(s.T, s.Dir)
	_, err := run(s.Context(), backuptest.Memory{}, s.Dir, o)
	if err == nil || !errors.Is(err, ErrRefused) {
		s.Errorf("got %v, want a refusal", err)
	}
	if after := backuptest.Tree(s.T, s.Dir); !slices.Equal(before, after) {
		s.Errorf("it changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	return err
}

func goes(r *Result, kind Kind) (names []string) {
	for _, item := range r.Goes {
		if item.Kind == kind {
			names = append(names, filepath.Base(item.Name))
		}
	}
	return names
}

// What no release needs goes to the trash, and after the grace time for good.
func TestGC(t *testing.T) {
	s := newScene(t)
	if r := s.gc(Options{}); len(r.Goes) != 0 || len(r.Kept) != 6 || len(r.Releases) != 2 {
		t.Errorf("nothing to collect: %+v", r)
	}
	s.forget("drop")
	planned := s.gc(Options{DryRun: true})
	r := s.gc(Options{})
	if got := goes(r, NarInfoKind); len(got) != 3 || !slices.Equal(got, goes(planned, NarInfoKind)) {
		t.Errorf("narinfos: %v, planned %v", got, goes(planned, NarInfoKind))
	}
	if got := goes(r, NARKind); len(got) != 2 {
		t.Errorf("NAR files: %v; what other.txt and twin.txt share has to stay", got)
	}
	if got := goes(r, ListingKind); len(got) != 3 {
		t.Errorf("listings: %v", got)
	}
	if len(r.Kept) != 3 || r.NarFiles != 3 || r.Releases[0].Paths != 3 || r.Releases[0].OnlyHere != r.FileSize {
		t.Errorf("kept: %+v, %d NAR files", r.Releases[0], r.NarFiles)
	}
	if r.Freed != 0 || r.InTrash == 0 || r.Until.Before(time.Now()) {
		t.Errorf("freed %d, in trash %d, until %v", r.Freed, r.InTrash, r.Until)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
	inTrash := r.InTrash
	if r := s.gc(Options{}); r.InTrash != inTrash || r.Freed != 0 || len(r.Goes) != 0 {
		t.Errorf("the next day: %+v", r)
	}
	if r := s.gc(Options{now: time.Now().Add(DefaultGrace + time.Minute)}); r.InTrash != 0 || r.Freed != inTrash {
		t.Errorf("after the grace time: %+v", r)
	}
	if left, err := os.ReadDir(s.Path(layout.TrashDir)); err != nil || len(left) > 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// --now needs no trash and leaves none.
func TestGCNow(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	r := s.gc(Options{Now: true})
	if r.Freed == 0 || r.InTrash != 0 || r.Trash != "" {
		t.Errorf("got %+v", r)
	}
	if left, _ := os.ReadDir(s.Path(layout.TrashDir)); len(left) > 0 {
		t.Errorf("left in the trash: %v", left)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// Design section 9: "Deleting a NAR that a live narinfo shares".
func TestSharedNARStays(t *testing.T) {
	s := newScene(t)
	shared := s.NarInfo(s.Keep).URL
	s.SetURL(s.Only, shared)
	s.forget("drop")
	s.gc(Options{Now: true})
	backuptest.CheckWhole(t, s.Dir, "p/keep")

	// The same file by another name, as where case does not count.
	s = newScene(t)
	file := s.Path(layout.CacheDir, s.NarInfo(s.Keep).URL)
	if err := os.Link(file, s.Path(layout.CacheDir, bincache.NARDir, "OTHER.nar.zst")); err != nil {
		t.Fatal(err)
	}
	s.SetURL(s.Only, "nar/OTHER.nar.zst")
	s.forget("drop")
	r := s.gc(Options{Now: true})
	if slices.Contains(goes(r, NARKind), "OTHER.nar.zst") {
		t.Error("another name of a file that is needed was taken")
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// A release that was forgotten long before gc can be had back for as long as
// what it consists of.
func TestForgottenLongBeforeGC(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	later := time.Now().Add(2 * DefaultGrace)
	s.gc(Options{now: later})
	s.gc(Options{now: later.Add(DefaultGrace / 2)})
	s.mustUnforget()
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
	s.forget("drop")
	s.gc(Options{now: later})
	if r := s.gc(Options{now: later.Add(2 * DefaultGrace)}); r.InTrash != 0 {
		t.Errorf("%d bytes are left in the trash", r.InTrash)
	}
}

// The same for one that was forgotten shortly before gc.
func TestForgottenBeforeGC(t *testing.T) {
	s := newScene(t)
	now := time.Now()
	s.forget("drop")
	s.gc(Options{now: now.Add(DefaultGrace - time.Hour)})
	s.gc(Options{now: now.Add(DefaultGrace + time.Hour)})
	s.mustUnforget()
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
}

// A recorder is a file system that tells what was done.
type recorder struct {
	backuptest.Memory
	log []string
}

func (r *recorder) Rename(from, to string) error {
	r.log = append(r.log, "take "+from)
	return r.Memory.Rename(from, to)
}

func (r *recorder) Remove(name string) error {
	r.log = append(r.log, "take "+name)
	return r.Memory.Remove(name)
}

func (r *recorder) SyncDir(dir string) error {
	r.log = append(r.log, "sync "+dir)
	return nil
}

// Design section 9: "deleting NARs before narinfos": they go after, when that
// the narinfos are gone is durable, and what refers to others goes before them.
func TestNARsGoAfterNarInfos(t *testing.T) {
	for _, now := range []bool{false, true} {
		s := newScene(t)
		info := func(p storepath.Path) string { return "take " + s.Path(layout.CacheDir, p.Hash()+bincache.NarInfoExt) }
		nar := "take " + s.Path(layout.CacheDir, s.NarInfo(s.Only).URL)
		s.forget("drop")
		fs := new(recorder)
		if _, err := run(t.Context(), fs, s.Dir, Options{Now: now}); err != nil {
			t.Fatal(err)
		}
		at := []int{slices.Index(fs.log, info(s.Drop))}
		for _, next := range []string{"sync " + s.Path(layout.CacheDir), info(s.Only), "sync " + s.Path(layout.CacheDir), nar, "sync " + s.Path(layout.CacheDir, bincache.NARDir)} {
			from := at[len(at)-1] + 1
			at = append(at, from+slices.Index(fs.log[from:], next))
			if at[len(at)-1] < from {
				t.Fatalf("no %q after %d in\n%s", next, from, strings.Join(fs.log, "\n"))
			}
		}
	}
}

// gc keeps out of the way of backups, and they of it.
func TestGCAndBackupExclude(t *testing.T) {
	s := newScene(t)
	var locked *lock.HeldError
	req := request("new", s.Keep)
	req.Progress.Planned = func(backup.Estimate) {
		if _, err := run(t.Context(), backuptest.Memory{}, s.Dir, Options{}); !errors.As(err, &locked) {
			t.Errorf("gc beside a backup: %v", err)
		}
		s.gc(Options{DryRun: true})
	}
	mustRun(t, s.Dir, s.Store, req)
	held, err := lock.Take(t.Context(), s.Dir, lock.Excluding, lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Run(t.Context(), s.Dir, s.Store, req); !errors.As(err, &locked) {
		t.Errorf("a backup beside gc: %v", err)
	}
	held.Close()
}

// What a backup needs again comes out of the trash, and is not written anew.
func TestBackupBringsBack(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	s.gc(Options{})
	r := mustRun(t, s.Dir, s.Store, request("again", s.Drop))
	if r.Write.Paths != 0 || r.Recovered != 3 {
		t.Errorf("written %d, from the trash %d", r.Write.Paths, r.Recovered)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/again")
	// But not what has another content now, nor what is damaged.
	s.forget("again")
	s.gc(Options{})
	nars, err := filepath.Glob(s.Path(layout.TrashDir, "*", layout.CacheDir, bincache.NARDir, "*"))
	if err != nil || len(nars) != 2 {
		t.Fatal(nars, err)
	}
	for _, name := range nars {
		if err := os.Truncate(name, 5); err != nil {
			t.Fatal(err)
		}
	}
	r = mustRun(t, s.Dir, s.Store, request("again", s.Drop))
	if r.Recovered != 0 {
		t.Errorf("from the trash came %d", r.Recovered)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/again")
}

// gc needs no room on the medium when it deletes at once.
func TestGCOnFullDisk(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	if _, err := run(t.Context(), fullDisk{}, s.Dir, Options{Now: true}); err != nil {
		t.Error(err)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// With a trash it cannot, says how it can, and frees what has been in the trash
// for long enough; then it may be able to.
func TestGCOnFullDiskWithTrash(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	s.gc(Options{})
	mustRun(t, s.Dir, s.Store, request("new", s.Store.Add("new", "new")))
	s.forget("new")
	before := backuptest.Tree(t, s.Path(layout.CacheDir))
	for i, want := range []string{"gc --now\" makes some", "were freed: try again"} {
		later := time.Duration(i) * 2 * DefaultGrace
		_, err := run(t.Context(), fullDisk{}, s.Dir, Options{now: time.Now().Add(later)})
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v later: %v, want %q", later, err, want)
		}
		if after := backuptest.Tree(t, s.Path(layout.CacheDir)); !slices.Equal(after, before) {
			t.Errorf("%v later, the cache changed: %v", later, after)
		}
		left, err := filepath.Glob(s.Path(layout.TrashDir, "*", layout.CacheDir, "*"+bincache.NarInfoExt))
		if gone := len(left) == 0; err != nil || gone != (later > 0) {
			t.Errorf("%v later, the trash has %v, %v", later, left, err)
		}
		if _, err := forget(t.Context(), fullDisk{}, s.Dir, ForgetRequest{Releases: []backup.ReleaseID{{Project: "p", Name: "keep"}}}); err == nil || !strings.Contains(err.Error(), "with --now") {
			t.Errorf("forget: %v", err)
		}
		backuptest.CheckWhole(t, s.Dir, "p/keep")
	}
	// For good, releases can be forgotten and what they needed freed.
	if _, err := forget(t.Context(), fullDisk{}, s.Dir, ForgetRequest{Releases: []backup.ReleaseID{{Project: "p", Name: "keep"}}, Now: true}); err != nil {
		t.Error(err)
	}
	r, err := run(t.Context(), fullDisk{}, s.Dir, Options{Now: true, NoReleases: true})
	if err != nil || len(goes(r, NarInfoKind)) != 4 || r.Freed == 0 {
		t.Errorf("for good: %+v, %v", r, err)
	}
}

// A fullDisk has no room for anything new.
type fullDisk struct{ backuptest.Memory }

func (fullDisk) Mkdir(string) error                   { return errFull }
func (fullDisk) CreateTemp(string) (disk.File, error) { return nil, errFull }
func (fullDisk) Append(string) (disk.File, error)     { return nil, errFull }

var errFull = fmt.Errorf("write: %w", syscall.ENOSPC)

// What others take out of the trash while it is weighed weighs nothing.
func TestTrashGoesWhileWeighed(t *testing.T) {
	if size, err := treeSize(filepath.Join(t.TempDir(), "gone")); size != 0 || err != nil {
		t.Errorf("got %d, %v", size, err)
	}
}

// A grace time that has overflown would empty the trash.
func TestNegativeGrace(t *testing.T) {
	s := newScene(t)
	s.refuses(Options{Grace: -1})
}
