package gc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/testenv"
)

// tmpfs mounts a file system of some KiB.
func tmpfs(t *testing.T, kib int) (dir string, resize func(kib int)) {
	t.Helper()
	dir = t.TempDir()
	mount := func(flags uintptr, kib int) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dk", kib)); err != nil {
			t.Fatal(err)
		}
	}
	mount(0, kib)
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	return dir, func(kib int) { mount(syscall.MS_REMOUNT, kib) }
}

// A file system that fills up, wherever it is: what was recorded stays whole, gc
// works on the full one, and with more room the backup succeeds.
func TestSmallFileSystemFillsUp(t *testing.T) {
	testenv.Need(t, "root")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	store := backuptest.NewStore(t)
	small := store.Add("small", "small")
	paths := request("", small).Roots
	for i := range 6 {
		// Hardly compressible: each text is a row of other hashes.
		var text strings.Builder
		for k := range 500 {
			text.WriteString(narinfo.Hash(sha256.Sum256(fmt.Append(nil, i, k))).String())
		}
		paths = append(paths, store.Add(fmt.Sprint("big", i), text.String(), paths...))
	}
	big := paths[len(paths)-1]
	full := 0
	for kib := 40; ; kib += 8 {
		fs, resize := tmpfs(t, 4096)
		dir := filepath.Join(fs, "backup")
		if _, err := backup.Run(t.Context(), dir, store, request("small", small)); err != nil {
			t.Fatal(err)
		}
		resize(kib + 40)
		_, err := backup.Run(t.Context(), dir, store, request("big", big))
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d KiB: %v", kib, err)
		}
		backuptest.CheckWhole(t, dir, "p/small")
		backuptest.CheckNoTemp(t, dir)
		if err == nil {
			t.Logf("full %d times, enough are %d KiB", full, kib)
			backuptest.CheckWhole(t, dir, "p/big")
			if full < 5 {
				t.Error("the file system was hardly ever full")
			}
			return
		}
		full++
		if _, err := Run(t.Context(), dir, Options{Now: true}); err != nil {
			t.Errorf("%d KiB: gc: %v", kib, err)
		}
		backuptest.CheckWhole(t, dir, "p/small")
		resize(4096)
		if _, err := backup.Run(t.Context(), dir, store, request("big", big)); err != nil {
			t.Errorf("%d KiB: with more room: %v", kib, err)
		}
		backuptest.CheckWhole(t, dir, "p/small", "p/big")
	}
}
