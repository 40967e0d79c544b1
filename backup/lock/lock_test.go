package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
)

const childVar = "NARVAULT_LOCK_TEST"

// TestMain lets the test binary be a process that holds a lock until it is
// killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		hold(dir)
	}
	os.Exit(m.Run())
}

func hold(dir string) {
	if _, err := Take(context.Background(), dir, Excluding, Options{Command: "child"}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	select {}
}

func mustLock(t *testing.T, dir string, kind Kind, o Options) *Lock {
	t.Helper()
	l, err := Take(t.Context(), dir, kind, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// What may be held beside what.
func TestLockKinds(t *testing.T) {
	kinds := []Kind{Reading, Writing, Excluding}
	for _, held := range kinds {
		for _, wanted := range kinds {
			dir := t.TempDir()
			mustLock(t, dir, held, Options{})
			l, err := Take(t.Context(), dir, wanted, Options{})
			if free := held != Excluding && wanted != Excluding; (err == nil) != free {
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
	_, err = Take(t.Context(), dir, Writing, Options{})
	host, _ := os.Hostname()
	who := fmt.Sprintf("process %d on %s (child, since %s", cmd.Process.Pid, host, time.Now().Format("2006-"))
	if err == nil || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want %q", err, who)
	}
	cmd.Process.Kill()
	cmd.Wait()
	l := mustLock(t, dir, Writing, Options{})
	if !l.Alone() {
		t.Error("the dead process counts as a writer")
	}
	if names, err := os.ReadDir(filepath.Join(dir, layout.LocksDir)); err != nil || len(names) != 2 {
		t.Errorf("left are %v, %v", names, err)
	}
}

// What one does exclusively no other does meanwhile, though both may write.
func TestExclusively(t *testing.T) {
	dir := t.TempDir()
	one, other := mustLock(t, dir, Writing, Options{}), mustLock(t, dir, Writing, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	again := func() error { return other.Exclusively(ctx, func() error { return nil }) }
	if err := one.Exclusively(t.Context(), again); !errors.Is(err, context.Canceled) {
		t.Errorf("two at once: %v", err)
	}
	if err := again(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Who waits is told for whom, once, and gets the lock when it is free.
func TestWaitForLock(t *testing.T) {
	dir := t.TempDir()
	held := mustLock(t, dir, Writing, Options{Command: "narvault backup"})
	told := 0
	o := Options{Wait: -1, Waiting: func(e *HeldError) {
		told++
		if len(e.Holders) != 1 || !strings.Contains(e.Error(), "narvault backup") {
			t.Errorf("told: %v", e)
		}
		held.Close()
	}}
	mustLock(t, dir, Excluding, o).Close()
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	mustLock(t, dir, Excluding, Options{})
	var locked *HeldError
	if _, err := Take(t.Context(), dir, Writing, Options{Wait: time.Millisecond}); !errors.As(err, &locked) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Waiting = func(*HeldError) { cancel() }
	if _, err := Take(ctx, dir, Writing, o); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// Media without locks are refused with what to do, unless nobody else writes.
func TestNoLocks(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		o := Options{Flock: func(*os.File, int) error { return errno }}
		_, err := Take(t.Context(), t.TempDir(), Writing, o)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "has no locks") || !strings.Contains(err.Error(), "--no-lock") {
			t.Errorf("%v: %v", errno, err)
		}
		o.NoLock = true
		l := mustLock(t, t.TempDir(), Writing, o)
		if err := l.Exclusively(t.Context(), func() error { return nil }); err != nil || !l.Alone() {
			t.Errorf("without locks: %v", err)
		}
	}
}

// Removing the lock file does not let two in.
func TestLockFileRemoved(t *testing.T) {
	dir := t.TempDir()
	first := mustLock(t, dir, Excluding, Options{})
	o := Options{Wait: -1, Waiting: func(*HeldError) {
		if err := os.Remove(filepath.Join(dir, layout.LockFile)); err != nil {
			t.Error(err)
		}
		first.Close()
	}}
	mustLock(t, dir, Excluding, o)
	if _, err := Take(t.Context(), dir, Excluding, Options{}); err == nil {
		t.Error("two hold the lock")
	}
}

// The first narvault wrote into the lock file who held it; other programs' files
// of that name are none of ours.
func TestOldLockFile(t *testing.T) {
	for text, ok := range map[string]bool{"process 12 on host\n": true, "": true, "process": false, "12345\n": false} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, layout.LockFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := Take(t.Context(), dir, Writing, Options{})
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			l.Close()
		}
	}
}
