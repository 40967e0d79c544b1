package backup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// A copyScene is a backup with a release of Hydra's, with its log and a dump, to
// be copied into one that has another release already.
type copyScene struct {
	from     *Backup
	id       ReleaseID
	template string // the backup to copy into
	want     map[string][]byte
}

func newCopyScene(t *testing.T) *copyScene {
	store, req := hydraScene(t)
	big := store.Add("big", strings.Repeat("big ", 100_000))
	req.Record.Roots = append(req.Record.Roots, Root{Job: "big", NixName: "big-1", StorePath: big, DrvPath: req.Record.Roots[0].DrvPath, Output: "out"})
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("built"), 0o644); err != nil {
		t.Fatal(err)
	}
	req.Logs = map[storepath.Path]string{req.Record.Roots[0].DrvPath: log}
	dir := filepath.Join(t.TempDir(), "from")
	mustRun(t, dir, store, req)
	mustAddDump(t, dir, dumpOf("hydra", strings.Repeat("row\n", 50_000)))
	from, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	s := &copyScene{from: from, id: req.Release, template: filepath.Join(t.TempDir(), "to"), want: make(map[string][]byte)}
	mustRun(t, s.template, store, request("first", store.Add("first", "first", req.Record.Roots[1].StorePath)))
	for _, pattern := range []string{"releases/hello/hello-1.0/*", "cache/*.narinfo", "cache/*.ls", "cache/nar/*", "cache/log/*", "hydra/*"} {
		names, err := filepath.Glob(from.Path(pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s.want[name[len(dir):]] = text
		}
	}
	return s
}

func (s *copyScene) copy(t *testing.T, fs *backuptest.PowerFS, dir string) error {
	req := Request{}
	if _, err := FromCache(s.from, false).request(s.id, &req); err != nil {
		return err
	}
	if _, err := run(t.Context(), fs, dir, FromCache(s.from, false), req); err != nil {
		return err
	}
	_, err := copyDumps(t.Context(), fs, dir, s.from, lock.Options{})
	return err
}

// TestCopyCrashAnywhere cuts the power at each operation of copying a release and
// a dump to another backup. What that had is whole, nothing is there in part, and
// the next try completes it: then all files are those that were copied.
func TestCopyCrashAnywhere(t *testing.T) {
	testCopyFaults(t, backuptest.ErrPower, (*backuptest.PowerFS).Crash)
}

// TestCopyKillAnywhere is the same without a power cut at that time: it comes
// when the next try has ended, and takes away nothing any more.
func TestCopyKillAnywhere(t *testing.T) {
	testCopyFaults(t, backuptest.ErrPower, func(*backuptest.PowerFS) {})
}

// TestCopyDiskFullAnywhere lets one operation fail for lack of space.
func TestCopyDiskFullAnywhere(t *testing.T) {
	testCopyFaults(t, syscall.ENOSPC, func(*backuptest.PowerFS) {})
}

func testCopyFaults(t *testing.T, fault error, after func(*backuptest.PowerFS)) {
	s := newCopyScene(t)
	for op := 1; !t.Failed(); op++ {
		dir := filepath.Join(t.TempDir(), "to")
		if err := os.CopyFS(dir, os.DirFS(s.template)); err != nil {
			t.Fatal(err)
		}
		fs := backuptest.NewPowerFS(t, op, fault, uint64(op))
		err := s.copy(t, fs, dir)
		if err != nil && !errors.Is(err, fault) {
			t.Fatalf("operation %d: ended with %v", op, err)
		}
		done := fs.Ops < op
		after(fs)
		backuptest.CheckWhole(t, dir, "p/first")
		s.checkNothingWrong(t, dir)
		if errors.Is(fault, syscall.ENOSPC) {
			backuptest.CheckNoTemp(t, dir)
		}
		fs.Revive()
		if err := s.copy(t, fs, dir); err != nil {
			t.Errorf("once more: %v", err)
		}
		fs.Crash()
		backuptest.CheckWhole(t, dir, "p/first", s.id.String())
		for name := range s.want {
			if !backuptest.Exists(dir + name) {
				t.Errorf("%s is not there", name)
			}
		}
		s.checkNothingWrong(t, dir)
		if t.Failed() {
			t.Errorf("it was operation %d", op)
		}
		if done {
			t.Logf("%d operations", op-1)
			return
		}
	}
}

// checkNothingWrong checks that no file of a copy differs from the original.
func (s *copyScene) checkNothingWrong(t *testing.T, dir string) {
	t.Helper()
	for name, want := range s.want {
		if filepath.Base(name) == layout.ReleaseFile { // it has the time of the copy
			continue
		}
		if got, err := os.ReadFile(dir + name); err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s is %.200q, not %.200q", name, got, want)
		}
	}
}
