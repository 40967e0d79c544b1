package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// crashScene is a store with two releases: the first is backed up before a
// crash, the second while it happens.
type crashScene struct {
	store  *fakeStore
	first  storepath.Path
	second storepath.Path
}

func newCrashScene(t *testing.T) crashScene {
	s := newFakeStore(t)
	lib := s.add("lib", strings.Repeat("library ", 1000))
	first := s.add("first", "uses "+string(lib), lib)
	lib2 := s.add("lib2", strings.Repeat("new library ", 50_000), lib)
	twin := s.add("twin.txt", "same", lib)
	other := s.add("other.txt", "same", twin)
	known := s.add("known", "uses "+string(lib), lib2)
	second := s.add("second", "top", lib2, twin, other, known, first)
	return crashScene{store: s, first: first, second: second}
}

// secondNARs is how many NAR files the second release adds: lib2, twin.txt (as
// other.txt) and second; the content of known is that of first.
const secondNARs = 3

func request(name string, root storepath.Path) Request {
	return Request{Release: ReleaseID{"p", name}, Roots: []storepath.Path{root}}
}

// TestCrashAnywhere stops a backup at each single operation on the file system,
// takes away what was not durable, and looks at what is left.
func TestCrashAnywhere(t *testing.T) {
	testFaultAnywhere(t, errPower, func(t *testing.T, fs *powerFS, _ string) { fs.crash() })
}

// TestKillAnywhere is the same without a power cut: what was written stays.
func TestKillAnywhere(t *testing.T) {
	testFaultAnywhere(t, errPower, func(*testing.T, *powerFS, string) {})
}

// TestDiskFullAnywhere lets one operation fail for lack of space. The process
// goes on and must leave no temporary file.
func TestDiskFullAnywhere(t *testing.T) {
	testFaultAnywhere(t, syscall.ENOSPC, func(t *testing.T, _ *powerFS, dir string) {
		checkNoTemp(t, dir)
	})
}

func testFaultAnywhere(t *testing.T, fault error, after func(*testing.T, *powerFS, string)) {
	scene := newCrashScene(t)
	for op := 1; ; op++ {
		done := false
		t.Run(fmt.Sprint("operation ", op), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "backup")
			if _, err := run(t.Context(), memory{}, dir, scene.store, request("first", scene.first)); err != nil {
				t.Fatal(err)
			}
			fs := newPowerFS(t, op, fault, uint64(op))
			_, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second))
			if fs.ops < op {
				done = true
			}
			if err != nil && !errors.Is(err, fault) || done && err != nil {
				t.Fatalf("ended with %v", err)
			}
			after(t, fs, dir)
			checkWhole(t, dir, "p/first")
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
		if _, err := run(t.Context(), memory{}, dir, scene.store, request("first", scene.first)); err != nil {
			t.Fatal(err)
		}
		fs := newPowerFS(t, op, errPower, uint64(op))
		if _, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second)); err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.revive()
		if _, err := run(t.Context(), fs, dir, scene.store, request("second", scene.second)); err != nil {
			t.Fatalf("after a kill at operation %d: %v", op, err)
		}
		fs.crash()
		checkWhole(t, dir, "p/first", "p/second")
	}
}

// TestCrashWhileCreating stops the very first backup, whose directory is not
// there before.
func TestCrashWhileCreating(t *testing.T) {
	scene := newCrashScene(t)
	for op := 1; ; op++ {
		dir := filepath.Join(t.TempDir(), "backup")
		fs := newPowerFS(t, op, errPower, uint64(op))
		_, err := run(t.Context(), fs, dir, scene.store, request("first", scene.first))
		if err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.crash()
		if _, err := run(t.Context(), memory{}, dir, scene.store, request("first", scene.first)); err != nil {
			t.Fatalf("after a crash at operation %d: %v", op, err)
		}
		checkWhole(t, dir, "p/first")
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
	r, err := run(t.Context(), memory{}, dir, scene.store, request("second", scene.second))
	if err != nil {
		t.Fatal(err)
	}
	if r.Write.Paths+len(finished) > secondNARs {
		t.Errorf("%d NARs were written, though %d were finished", r.Write.Paths, len(finished))
	}
	checkWhole(t, dir, "p/first", "p/second")
	if exists(filepath.Join(dir, layout.JournalFile)) {
		t.Error("the journal is left")
	}
}

// checkWhole checks every invariant of a backup on disk: each narinfo has its
// NAR file, with the bytes that it promises, and its references; each release
// named is there with all its paths.
func checkWhole(t *testing.T, dir string, releases ...string) {
	t.Helper()
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	hashes, err := b.Cache.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	err = b.Cache.Scan(context.Background(), hashes, func(info *narinfo.NarInfo) {
		checkArchived(t, b, info)
	}, func(d *bincache.DamageError) { t.Error(d) })
	if err != nil {
		t.Error(err)
	}
	for _, name := range releases {
		id, err := ParseReleaseID(name)
		if err != nil {
			t.Fatal(err)
		}
		paths, err := b.Closure(id)
		if err != nil {
			t.Error(err)
		}
		for _, p := range paths {
			if _, err := b.Cache.Lookup(p); err != nil {
				t.Errorf("release %s: %v", id, err)
			}
		}
		if r, err := b.Release(id); err != nil || r.Paths != len(paths) {
			t.Errorf("release %s: %v, %+v", id, err, r)
		}
	}
}

func checkArchived(t *testing.T, b *Backup, info *narinfo.NarInfo) {
	t.Helper()
	for _, ref := range info.References {
		if has, err := b.Cache.Has(ref.Hash()); !has || err != nil {
			t.Errorf("%s refers to %s, which has no narinfo (%v)", info.StorePath, ref, err)
		}
	}
	f, size, err := b.Cache.OpenNAR(info)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	sum := newSum()
	if _, err := io.Copy(sum, f); err != nil || size != info.FileSize || sum.sum().String() != info.FileHash {
		t.Errorf("%s: file hash %s, not %s (%v)", info.URL, sum.sum(), info.FileHash, err)
	}
}
