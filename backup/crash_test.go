package backup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// crashScene is a store with two releases: the first is backed up before a
// crash, the second while it happens.
type crashScene struct {
	store  *backuptest.Store
	first  storepath.Path
	second storepath.Path
}

func newCrashScene(t *testing.T) crashScene {
	s := backuptest.NewStore(t)
	lib := s.Add("lib", strings.Repeat("library ", 1000))
	first := s.Add("first", "uses "+string(lib), lib)
	lib2 := s.Add("lib2", strings.Repeat("new library ", 50_000), lib)
	twin := s.Add("twin.txt", "same", lib)
	other := s.Add("other.txt", "same", twin)
	known := s.Add("known", "uses "+string(lib), lib2)
	second := s.Add("second", "top", lib2, twin, other, known, first)
	return crashScene{store: s, first: first, second: second}
}

// secondNARs is how many NAR files the second release adds: lib2, twin.txt (as
// other.txt) and second; the content of known is that of first.
const secondNARs = 3

// twoReleases is a scene that was backed up in memory.
func twoReleases(t *testing.T) *backuptest.Scene {
	return backuptest.NewScene(t, func(dir string, store *backuptest.Store, name string, root storepath.Path) {
		mustRun(t, dir, store, request(name, root))
	})
}

func request(name string, root storepath.Path) Request {
	return Request{Release: ReleaseID{"p", name}, Roots: []storepath.Path{root}}
}

// TestCrashAnywhere stops a backup at each single operation on the file system,
// takes away what was not durable, and looks at what is left.
func TestCrashAnywhere(t *testing.T) {
	testFaultAnywhere(t, backuptest.ErrPower, func(t *testing.T, fs *backuptest.PowerFS, _ string) { fs.Crash() })
}

// TestKillAnywhere is the same without a power cut: what was written stays.
func TestKillAnywhere(t *testing.T) {
	testFaultAnywhere(t, backuptest.ErrPower, func(*testing.T, *backuptest.PowerFS, string) {})
}

// TestDiskFullAnywhere lets one operation fail for lack of space. The process
// goes on and must leave no temporary file.
func TestDiskFullAnywhere(t *testing.T) {
	testFaultAnywhere(t, syscall.ENOSPC, func(t *testing.T, _ *backuptest.PowerFS, dir string) {
		backuptest.CheckNoTemp(t, dir)
	})
}

func testFaultAnywhere(t *testing.T, fault error, after func(*testing.T, *backuptest.PowerFS, string)) {
	scene := newCrashScene(t)
	for op := 1; ; op++ {
		done := false
		t.Run(fmt.Sprint("operation ", op), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "backup")
			if _, err := run(t.Context(), backuptest.Memory{}, dir, scene.store, request("first", scene.first)); err != nil {
				t.Fatal(err)
			}
			fs := backuptest.NewPowerFS(t, op, fault, uint64(op))
			_, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second))
			if fs.Ops < op {
				done = true
			}
			if err != nil && !errors.Is(err, fault) || done && err != nil {
				t.Fatalf("ended with %v", err)
			}
			after(t, fs, dir)
			backuptest.CheckWhole(t, dir, "p/first")
			// What is recorded is whole, and what was said to be done is recorded.
			if done || backuptest.Exists(filepath.Join(dir, layout.ReleasesDir, "p", "second", layout.ReleaseFile)) {
				backuptest.CheckWhole(t, dir, "p/second")
			}
			checkRecovery(t, dir, scene)
		})
		if done || t.Failed() {
			t.Logf("%d operations", op-1)
			return
		}
	}
}

// TestKillRunAgainPowerCut kills a backup at each operation, lets the next one
// finish, and cuts the power then: what the first one wrote and did not sync
// must have become durable too.
func TestKillRunAgainPowerCut(t *testing.T) {
	scene := newCrashScene(t)
	for op := 1; ; op++ {
		dir := filepath.Join(t.TempDir(), "backup")
		if _, err := run(t.Context(), backuptest.Memory{}, dir, scene.store, request("first", scene.first)); err != nil {
			t.Fatal(err)
		}
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		if _, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second)); err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.Revive()
		if _, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second)); err != nil {
			t.Fatalf("after a kill at operation %d: %v", op, err)
		}
		fs.Crash()
		backuptest.CheckWhole(t, dir, "p/first", "p/second")
	}
}

// TestCrashWhileCreating stops the very first backup, whose directory is not
// there before.
func TestCrashWhileCreating(t *testing.T) {
	scene := newCrashScene(t)
	for op := 1; ; op++ {
		dir := filepath.Join(t.TempDir(), "backup")
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		_, err := run(t.Context(), fs, dir, scene.store, request("first", scene.first))
		if err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.Crash()
		if _, err := run(t.Context(), backuptest.Memory{}, dir, scene.store, request("first", scene.first)); err != nil {
			t.Fatalf("after a crash at operation %d: %v", op, err)
		}
		backuptest.CheckWhole(t, dir, "p/first")
	}
}

// checkRecovery runs the backup again: it must succeed, and finished NARs are
// not written again.
func checkRecovery(t *testing.T, dir string, scene crashScene) {
	t.Helper()
	finished, err := newJournal(disk.OS{}, dir).load()
	if err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), backuptest.Memory{}, dir, scene.store, request("second", scene.second))
	if err != nil {
		t.Fatal(err)
	}
	if r.Write.Paths+len(finished) > secondNARs {
		t.Errorf("%d NARs were written, though %d were finished", r.Write.Paths, len(finished))
	}
	backuptest.CheckWhole(t, dir, "p/first", "p/second")
	if backuptest.Exists(filepath.Join(dir, layout.JournalFile)) {
		t.Error("the journal is left")
	}
}
