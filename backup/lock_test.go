package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

func mustLock(t *testing.T, dir string, kind lockKind, o LockOptions) *backupLock {
	t.Helper()
	l, err := lockBackup(t.Context(), dir, kind, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// What may be held beside what.
func TestLockKinds(t *testing.T) {
	kinds := []lockKind{reading, writing, excluding}
	for _, held := range kinds {
		for _, wanted := range kinds {
			dir := t.TempDir()
			mustLock(t, dir, held, LockOptions{})
			l, err := lockBackup(t.Context(), dir, wanted, LockOptions{})
			if free := held != excluding && wanted != excluding; (err == nil) != free {
				t.Errorf("%v beside %v: %v", wanted, held, err)
			}
			if err == nil {
				l.Close()
			}
		}
	}
}

// A process that is killed leaves no lock, and is named while it lives.
func TestKilledHolderLeavesNoLock(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 20)
	n, _ := out.Read(line)
	if string(line[:n]) != "locked\n" {
		t.Fatalf("the child says %q", line[:n])
	}
	_, err = lockBackup(t.Context(), dir, writing, LockOptions{})
	host, _ := os.Hostname()
	who := fmt.Sprintf("process %d on %s (child, since %s", cmd.Process.Pid, host, time.Now().Format("2006-"))
	if err == nil || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want %q", err, who)
	}
	cmd.Process.Kill()
	cmd.Wait()
	l := mustLock(t, dir, writing, LockOptions{})
	if !l.alone() {
		t.Error("the dead process counts as a writer")
	}
	if names, err := os.ReadDir(filepath.Join(dir, locksDir)); err != nil || len(names) != 2 {
		t.Errorf("left are %v, %v", names, err)
	}
}

// Who waits is told for whom, once, and gets the lock when it is free.
func TestWaitForLock(t *testing.T) {
	dir := t.TempDir()
	held := mustLock(t, dir, writing, LockOptions{Command: "narvault backup"})
	told := 0
	o := LockOptions{Wait: -1, Waiting: func(e *LockedError) {
		told++
		if len(e.Holders) != 1 || !strings.Contains(e.Error(), "narvault backup") {
			t.Errorf("told: %v", e)
		}
		held.Close()
	}}
	mustLock(t, dir, excluding, o).Close()
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	mustLock(t, dir, excluding, LockOptions{})
	var locked *LockedError
	if _, err := lockBackup(t.Context(), dir, writing, LockOptions{Wait: time.Millisecond}); !errors.As(err, &locked) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Waiting = func(*LockedError) { cancel() }
	if _, err := lockBackup(ctx, dir, writing, o); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// Media without locks are refused with what to do, unless nobody else writes.
func TestNoLocks(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		o := LockOptions{flock: func(*os.File, int) error { return errno }}
		_, err := lockBackup(t.Context(), t.TempDir(), writing, o)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "has no locks") || !strings.Contains(err.Error(), "--no-lock") {
			t.Errorf("%v: %v", errno, err)
		}
		o.NoLock = true
		l := mustLock(t, t.TempDir(), writing, o)
		if err := l.exclusively(t.Context(), func() error { return nil }); err != nil || !l.alone() {
			t.Errorf("without locks: %v", err)
		}
	}
}

// Removing the lock file does not let two in.
func TestLockFileRemoved(t *testing.T) {
	dir := t.TempDir()
	first := mustLock(t, dir, excluding, LockOptions{})
	o := LockOptions{Wait: -1, Waiting: func(*LockedError) {
		if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
			t.Error(err)
		}
		first.Close()
	}}
	mustLock(t, dir, excluding, o)
	if _, err := lockBackup(t.Context(), dir, excluding, LockOptions{}); err == nil {
		t.Error("two hold the lock")
	}
}

// What only looks needs no right to write, and writes nothing.
func TestLockOfReader(t *testing.T) {
	dir, _, _ := backedUp(t, "zstd")
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l, err := b.Lock(t.Context(), LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockBackup(t.Context(), dir, excluding, LockOptions{}); err == nil {
		t.Error("gc could take away what is being read")
	}
	l.Close()
	gc := mustLock(t, dir, excluding, LockOptions{})
	if _, err := b.Lock(t.Context(), LockOptions{}); err == nil {
		t.Error("the lock of gc was passed over")
	}
	gc.Close()
	foreign, err := Open(filepath.Join(dir, cacheDir), bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if l, err := foreign.Lock(t.Context(), LockOptions{}); err != nil || exists(filepath.Join(dir, cacheDir, lockFile)) {
		t.Errorf("a foreign cache: %v, %v", l, err)
	}
}

// Many backups at once, of the same and of other paths and releases.
func TestBackupsAtOnce(t *testing.T) {
	store := newFakeStore(t)
	var tops, libs []storepath.Path
	for i := range 6 {
		lib := store.add(fmt.Sprint("lib", i), strings.Repeat(fmt.Sprint("lib", i/2), 50_000), libs...)
		libs = append(libs, lib)
		tops = append(tops, store.add(fmt.Sprint("top", i), "top", libs...))
	}
	dir := filepath.Join(t.TempDir(), "backup")
	var group sync.WaitGroup
	var names []string
	for i, top := range tops {
		names = append(names, fmt.Sprintf("p/r%d", i), "p/all")
		for _, name := range []string{fmt.Sprint("r", i), "all"} {
			group.Go(func() {
				if _, err := run(t.Context(), memory{}, dir, store, request(name, top)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	checkWhole(t, dir, names...)
	checkNoTemp(t, dir)
	if left, err := os.ReadDir(filepath.Join(dir, locksDir)); err != nil || len(left) != 1 {
		t.Errorf("locks left: %v, %v", left, err)
	}
	if exists(filepath.Join(dir, journalFile)) {
		t.Error("the journal is left")
	}
}

// The second of two backups that bring a store path with different contents
// leaves it as the first archived it, and says so, though it was not there when
// it made its plan.
func TestConflictBetweenBackups(t *testing.T) {
	store, other := newFakeStore(t), newFakeStore(t)
	other.dir = store.dir
	extra := store.add("extra", "needed by the first only")
	p := store.add("p.txt", "one", extra)
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("second", p)
	first := store.infos[p]
	req.Progress.Planned = func(Estimate) {
		mustRun(t, dir, store, request("first", p))
		if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	other.register(p, nil)
	if err := os.WriteFile(store.RealPath(p), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := mustRun(t, dir, other, req)
	want := Conflict{Path: p, Archived: first.NarHash, Local: other.infos[p].NarHash}
	if len(r.Conflicts) != 1 || r.Conflicts[0] != want {
		t.Errorf("conflicts %v, want %v", r.Conflicts, want)
	}
	checkWhole(t, dir, "p/first", "p/second")
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if paths, err := b.Closure(ReleaseID{"p", "second"}); err != nil || len(paths) != 2 {
		t.Errorf("closure %v, %v", paths, err)
	}
}

// A backup that begins while another is at work leaves its temporary files and
// its memory of finished NARs alone.
func TestRunningBackupKeepsItsFiles(t *testing.T) {
	store := newFakeStore(t)
	a := store.add("a", strings.Repeat("a", 1<<20))
	b := store.add("b", "b")
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("b", b))
	running := mustLock(t, dir, writing, LockOptions{})
	temp := filepath.Join(dir, cacheDir, narDir, ".narvault-x.tmp")
	if err := os.WriteFile(temp, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, store, request("a", a))
	if !exists(temp) || !exists(filepath.Join(dir, journalFile)) {
		t.Error("the files of a running backup were removed")
	}
	running.Close()
	mustRun(t, dir, store, request("a", a))
	if exists(temp) {
		t.Error("the leftover of a backup that ended stays")
	}
}
