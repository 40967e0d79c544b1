package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

func mustLock(t *testing.T, dir string, kind lock.Kind) *lock.Lock {
	t.Helper()
	l, err := lock.Take(t.Context(), dir, kind, lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// What only looks needs no right to write, and writes nothing.
func TestLockOfReader(t *testing.T) {
	dir, _, _ := backedUp(t, "zstd")
	b := mustOpen(t, dir)
	l, err := b.Lock(t.Context(), lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Take(t.Context(), dir, lock.Excluding, lock.Options{}); err == nil {
		t.Error("gc could take away what is being read")
	}
	l.Close()
	gc := mustLock(t, dir, lock.Excluding)
	if _, err := b.Lock(t.Context(), lock.Options{}); err == nil {
		t.Error("the lock of gc was passed over")
	}
	gc.Close()
	foreign := mustOpen(t, filepath.Join(dir, layout.CacheDir))
	if l, err := foreign.Lock(t.Context(), lock.Options{}); err != nil || backuptest.Exists(filepath.Join(dir, layout.CacheDir, layout.LockFile)) {
		t.Errorf("a foreign cache: %v, %v", l, err)
	}
}

// Many backups at once, of the same and of other paths and releases.
func TestBackupsAtOnce(t *testing.T) {
	store := backuptest.NewStore(t)
	var tops, libs []storepath.Path
	for i := range 6 {
		lib := store.Add(fmt.Sprint("lib", i), strings.Repeat(fmt.Sprint("lib", i/2), 50_000), libs...)
		libs = append(libs, lib)
		tops = append(tops, store.Add(fmt.Sprint("top", i), "top", libs...))
	}
	dir := filepath.Join(t.TempDir(), "backup")
	var group sync.WaitGroup
	var names []string
	for i, top := range tops {
		names = append(names, fmt.Sprintf("p/r%d", i), "p/all")
		for _, name := range []string{fmt.Sprint("r", i), "all"} {
			group.Go(func() {
				if _, err := run(t.Context(), backuptest.Memory{}, dir, store, request(name, top)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	backuptest.CheckWhole(t, dir, names...)
	backuptest.CheckNoTemp(t, dir)
	if left, err := os.ReadDir(filepath.Join(dir, layout.LocksDir)); err != nil || len(left) != 1 {
		t.Errorf("locks left: %v, %v", left, err)
	}
	if backuptest.Exists(filepath.Join(dir, layout.JournalFile)) {
		t.Error("the journal is left")
	}
}

// A mutexFS looks whether names of narinfos and records change under the mutex.
type mutexFS struct {
	backuptest.Memory
	t       *testing.T
	dir     string
	changes map[string]int // by extension
}

func (fs *mutexFS) Rename(from, to string) error {
	if ext := filepath.Ext(to); ext == bincache.NarInfoExt || strings.HasPrefix(to, filepath.Join(fs.dir, layout.ReleasesDir)) {
		fs.changes[ext]++
		f, err := os.Open(filepath.Join(fs.dir, layout.LocksDir, layout.MutexFile))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			fs.t.Errorf("%s: the mutex is free (%v)", to, err)
		}
	}
	return fs.Memory.Rename(from, to)
}

// No two backups decide at once what is archived and recorded.
func TestMutexOfBackups(t *testing.T) {
	scene, dir := newCrashScene(t), filepath.Join(t.TempDir(), "backup")
	fs := &mutexFS{t: t, dir: dir, changes: make(map[string]int)}
	for _, top := range []storepath.Path{scene.first, scene.second} {
		if _, err := run(t.Context(), fs, dir, scene.store, request("r", top)); err != nil {
			t.Fatal(err)
		}
	}
	if fs.changes[bincache.NarInfoExt] != 7 || fs.changes[".txt"] < 2 || fs.changes[".json"] < 2 {
		t.Errorf("changed were %v", fs.changes)
	}
}

// The second of two backups that bring a store path with different contents
// leaves it as the first archived it, and says so, though it was not there when
// it made its plan.
func TestConflictBetweenBackups(t *testing.T) {
	store, other := backuptest.NewStore(t), backuptest.NewStore(t)
	other.Top = store.Top
	extra := store.Add("extra", "needed by the first only")
	p := store.Add("p.txt", "one", extra)
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("second", p)
	first := store.Valid[p]
	req.Progress.Planned = func(Estimate) {
		mustRun(t, dir, store, request("first", p))
		if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	other.Register(p, nil)
	if err := os.WriteFile(store.RealPath(p), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := mustRun(t, dir, other, req)
	want := Conflict{Path: p, Archived: first.NarHash, Local: other.Valid[p].NarHash}
	if len(r.Conflicts) != 1 || r.Conflicts[0] != want {
		t.Errorf("conflicts %v, want %v", r.Conflicts, want)
	}
	backuptest.CheckWhole(t, dir, "p/first", "p/second")
	b := mustOpen(t, dir)
	if paths, err := b.Closure(ReleaseID{"p", "second"}); err != nil || len(paths) != 2 {
		t.Errorf("closure %v, %v", paths, err)
	}
}

// A backup that begins while another is at work leaves its temporary files and
// its memory of finished NARs alone.
func TestRunningBackupKeepsItsFiles(t *testing.T) {
	store := backuptest.NewStore(t)
	a := store.Add("a", strings.Repeat("a", 1<<20))
	b := store.Add("b", "b")
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("b", b))
	running := mustLock(t, dir, lock.Writing)
	temp := filepath.Join(dir, layout.CacheDir, bincache.NARDir, ".narvault-x.tmp")
	if err := os.WriteFile(temp, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, store, request("a", a))
	if !backuptest.Exists(temp) || !backuptest.Exists(filepath.Join(dir, layout.JournalFile)) {
		t.Error("the files of a running backup were removed")
	}
	running.Close()
	mustRun(t, dir, store, request("a", a))
	if backuptest.Exists(temp) {
		t.Error("the leftover of a backup that ended stays")
	}
}
