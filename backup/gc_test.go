package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A gcScene is a backup with a release to keep and one to forget. They share a
// library, and a content under two names.
type gcScene struct {
	*testing.T
	dir   string
	store *fakeStore
	keep  storepath.Path
	drop  storepath.Path
	only  storepath.Path // a library of drop alone
}

func newGCScene(t *testing.T) *gcScene {
	t.Helper()
	s := &gcScene{T: t, store: newFakeStore(t), dir: filepath.Join(t.TempDir(), "backup")}
	lib := s.store.add("lib", strings.Repeat("library ", 1000))
	twin := s.store.add("twin.txt", "shared content")
	s.keep = s.store.add("keep", "keep", lib, twin)
	s.only = s.store.add("only", strings.Repeat("only ", 1000), lib)
	other := s.store.add("other.txt", "shared content", s.only)
	s.drop = s.store.add("drop", "drop", s.only, other, lib)
	mustRun(t, s.dir, s.store, request("keep", s.keep))
	mustRun(t, s.dir, s.store, request("drop", s.drop))
	return s
}

func (s *gcScene) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *gcScene) forget(names ...string) *ForgetResult {
	s.Helper()
	var req ForgetRequest
	for _, name := range names {
		req.Releases = append(req.Releases, ReleaseID{"p", name})
	}
	r, err := forget(s.Context(), memory{}, s.dir, req)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *gcScene) gc(o GCOptions) *GCResult {
	s.Helper()
	r, err := gc(s.Context(), memory{}, s.dir, o)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// refuses checks that gc changes nothing.
func (s *gcScene) refuses(o GCOptions) error {
	s.Helper()
	before := tree(s.T, s.dir)
	_, err := gc(s.Context(), memory{}, s.dir, o)
	if err == nil || !errors.Is(err, ErrRefused) {
		s.Errorf("got %v, want a refusal", err)
	}
	if after := tree(s.T, s.dir); !slices.Equal(before, after) {
		s.Errorf("it changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	return err
}

func (s *gcScene) remove(elem ...string) {
	s.Helper()
	if err := os.RemoveAll(s.path(elem...)); err != nil {
		s.Fatal(err)
	}
}

func (s *gcScene) write(text string, elem ...string) {
	s.Helper()
	name := s.path(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

func (s *gcScene) narInfo(p storepath.Path) *narinfo.NarInfo {
	s.Helper()
	b, err := Open(s.dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	info, err := b.Cache.Lookup(p)
	if err != nil {
		s.Fatal(err)
	}
	return info
}

// setURL makes a narinfo name another NAR file.
func (s *gcScene) setURL(p storepath.Path, url string) {
	s.Helper()
	info := s.narInfo(p)
	info.URL = url
	s.write(string(info.Bytes()), layout.CacheDir, p.Hash()+bincache.NarInfoExt)
}

// tree returns the names and sizes of all files but locks.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); base == layout.LocksDir || base == layout.LockFile || base == layout.MutexFile {
			return nil
		}
		info, err := d.Info()
		if err == nil && d.IsDir() {
			files = append(files, name)
		} else if err == nil {
			files = append(files, fmt.Sprint(name, " ", info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func goes(r *GCResult, kind Kind) (names []string) {
	for _, item := range r.Goes {
		if item.Kind == kind {
			names = append(names, filepath.Base(item.Name))
		}
	}
	return names
}

// What no release needs goes to the trash, and after the grace time for good.
func TestGC(t *testing.T) {
	s := newGCScene(t)
	if r := s.gc(GCOptions{}); len(r.Goes) != 0 || len(r.Kept) != 6 || len(r.Releases) != 2 {
		t.Errorf("nothing to collect: %+v", r)
	}
	s.forget("drop")
	planned := s.gc(GCOptions{DryRun: true})
	r := s.gc(GCOptions{})
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
	checkWhole(t, s.dir, "p/keep")
	inTrash := r.InTrash
	if r := s.gc(GCOptions{}); r.InTrash != inTrash || r.Freed != 0 || len(r.Goes) != 0 {
		t.Errorf("the next day: %+v", r)
	}
	if r := s.gc(GCOptions{now: time.Now().Add(DefaultGrace + time.Minute)}); r.InTrash != 0 || r.Freed != inTrash {
		t.Errorf("after the grace time: %+v", r)
	}
	if left, err := os.ReadDir(s.path(layout.TrashDir)); err != nil || len(left) > 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	checkWhole(t, s.dir, "p/keep")
}

// --now needs no trash and leaves none.
func TestGCNow(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if r.Freed == 0 || r.InTrash != 0 || r.Trash != "" {
		t.Errorf("got %+v", r)
	}
	if left, _ := os.ReadDir(s.path(layout.TrashDir)); len(left) > 0 {
		t.Errorf("left in the trash: %v", left)
	}
	checkWhole(t, s.dir, "p/keep")
}

// Design section 9: "Deleting a NAR that a live narinfo shares".
func TestSharedNARStays(t *testing.T) {
	s := newGCScene(t)
	shared := s.narInfo(s.keep).URL
	s.setURL(s.only, shared)
	s.forget("drop")
	s.gc(GCOptions{Now: true})
	checkWhole(t, s.dir, "p/keep")

	// The same file by another name, as where case does not count.
	s = newGCScene(t)
	file := s.path(layout.CacheDir, s.narInfo(s.keep).URL)
	if err := os.Link(file, s.path(layout.CacheDir, bincache.NARDir, "OTHER.nar.zst")); err != nil {
		t.Fatal(err)
	}
	s.setURL(s.only, "nar/OTHER.nar.zst")
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if slices.Contains(goes(r, NARKind), "OTHER.nar.zst") {
		t.Error("another name of a file that is needed was taken")
	}
	checkWhole(t, s.dir, "p/keep")
}

// A release that was forgotten long before gc can be had back for as long as
// what it consists of.
func TestForgottenLongBeforeGC(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	later := time.Now().Add(2 * DefaultGrace)
	s.gc(GCOptions{now: later})
	s.gc(GCOptions{now: later.Add(DefaultGrace / 2)})
	s.mustUnforget()
	checkWhole(t, s.dir, "p/keep", "p/drop")
	s.forget("drop")
	s.gc(GCOptions{now: later})
	if r := s.gc(GCOptions{now: later.Add(2 * DefaultGrace)}); r.InTrash != 0 {
		t.Errorf("%d bytes are left in the trash", r.InTrash)
	}
}

// The same for one that was forgotten shortly before gc.
func TestForgottenBeforeGC(t *testing.T) {
	s := newGCScene(t)
	now := time.Now()
	s.forget("drop")
	s.gc(GCOptions{now: now.Add(DefaultGrace - time.Hour)})
	s.gc(GCOptions{now: now.Add(DefaultGrace + time.Hour)})
	s.mustUnforget()
	checkWhole(t, s.dir, "p/keep", "p/drop")
}

// A recorder is a file system that tells what was done.
type recorder struct {
	memory
	log []string
}

func (r *recorder) Rename(from, to string) error {
	r.log = append(r.log, "take "+from)
	return r.memory.Rename(from, to)
}

func (r *recorder) Remove(name string) error {
	r.log = append(r.log, "take "+name)
	return r.memory.Remove(name)
}

func (r *recorder) SyncDir(dir string) error {
	r.log = append(r.log, "sync "+dir)
	return nil
}

// Design section 9: "deleting NARs before narinfos": they go after, when that
// the narinfos are gone is durable, and what refers to others goes before them.
func TestNARsGoAfterNarInfos(t *testing.T) {
	for _, now := range []bool{false, true} {
		s := newGCScene(t)
		info := func(p storepath.Path) string { return "take " + s.path(layout.CacheDir, p.Hash()+bincache.NarInfoExt) }
		nar := "take " + s.path(layout.CacheDir, s.narInfo(s.only).URL)
		s.forget("drop")
		fs := new(recorder)
		if _, err := gc(t.Context(), fs, s.dir, GCOptions{Now: now}); err != nil {
			t.Fatal(err)
		}
		at := []int{slices.Index(fs.log, info(s.drop))}
		for _, next := range []string{"sync " + s.path(layout.CacheDir), info(s.only), "sync " + s.path(layout.CacheDir), nar, "sync " + s.path(layout.CacheDir, bincache.NARDir)} {
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
	s := newGCScene(t)
	var locked *lock.HeldError
	req := request("new", s.keep)
	req.Progress.Planned = func(Estimate) {
		if _, err := gc(t.Context(), memory{}, s.dir, GCOptions{}); !errors.As(err, &locked) {
			t.Errorf("gc beside a backup: %v", err)
		}
		s.gc(GCOptions{DryRun: true})
	}
	mustRun(t, s.dir, s.store, req)
	held := mustLock(t, s.dir, lock.Excluding)
	if _, err := run(t.Context(), memory{}, s.dir, s.store, req); !errors.As(err, &locked) {
		t.Errorf("a backup beside gc: %v", err)
	}
	held.Close()
}

// What a backup needs again comes out of the trash, and is not written anew.
func TestBackupBringsBack(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	s.gc(GCOptions{})
	r := mustRun(t, s.dir, s.store, request("again", s.drop))
	if r.Write.Paths != 0 || r.Recovered != 3 {
		t.Errorf("written %d, from the trash %d", r.Write.Paths, r.Recovered)
	}
	checkWhole(t, s.dir, "p/keep", "p/again")
	// But not what has another content now, nor what is damaged.
	s.forget("again")
	s.gc(GCOptions{})
	nars, err := filepath.Glob(s.path(layout.TrashDir, "*", layout.CacheDir, bincache.NARDir, "*"))
	if err != nil || len(nars) != 2 {
		t.Fatal(nars, err)
	}
	for _, name := range nars {
		if err := os.Truncate(name, 5); err != nil {
			t.Fatal(err)
		}
	}
	r = mustRun(t, s.dir, s.store, request("again", s.drop))
	if r.Recovered != 0 {
		t.Errorf("from the trash came %d", r.Recovered)
	}
	checkWhole(t, s.dir, "p/keep", "p/again")
}

// gc needs no room on the medium when it deletes at once.
func TestGCOnFullDisk(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	if _, err := gc(t.Context(), fullDisk{}, s.dir, GCOptions{Now: true}); err != nil {
		t.Error(err)
	}
	checkWhole(t, s.dir, "p/keep")
}

// A fullDisk has no room for anything new.
type fullDisk struct{ memory }

func (fullDisk) Mkdir(string) error                   { return errFull }
func (fullDisk) CreateTemp(string) (disk.File, error) { return nil, errFull }
func (fullDisk) Append(string) (disk.File, error)     { return nil, errFull }

var errFull = errors.New("full")

// What a mount has looked into and gc takes out is gone, not damaged.
func TestTreeOfCollectedPath(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	s := newGCScene(t)
	if warning := publishIndex(t.Context(), s.dir, bincache.Options{}); warning != "" {
		t.Fatal(warning)
	}
	l, _ := indexed(t, s.dir)
	open := func(p storepath.Path) *Tree {
		tree, err := l.OpenTree(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Close() })
		return tree
	}
	unread, read := open(s.drop), open(s.only)
	if _, err := read.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	s.forget("drop")
	s.gc(GCOptions{Now: true})
	if _, err := unread.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrNotExist) || isDamage(err) {
		t.Errorf("got %v", err)
	}
	if _, err := read.ReadAt(make([]byte, 1), 100); err != nil {
		t.Errorf("an archive that was open: %v", err)
	}
	if _, err := l.OpenTree(s.drop); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opened anew: %v", err)
	}
	// A NAR file that is gone while its narinfo is there is damage as ever.
	kept := open(s.keep)
	s.remove(layout.CacheDir, s.narInfo(s.keep).URL)
	if _, err := kept.ReadAt(make([]byte, 1), 0); !isDamage(err) {
		t.Errorf("a NAR file that is missing: %v", err)
	}
}

// What others take out of the trash while it is weighed weighs nothing.
func TestTrashGoesWhileWeighed(t *testing.T) {
	if size, err := treeSize(filepath.Join(t.TempDir(), "gone")); size != 0 || err != nil {
		t.Errorf("got %d, %v", size, err)
	}
}

// A grace time that has overflown would empty the trash.
func TestNegativeGrace(t *testing.T) {
	s := newGCScene(t)
	s.refuses(GCOptions{Grace: -1})
}
