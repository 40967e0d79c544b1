//go:build acceptance

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

// maxMemory bounds what narvault, and each Nix process that it starts, may have
// in memory at once while a store path of 6 GiB goes through, in KiB.
const maxMemory = 256 << 10

// TestAcceptanceLarge takes a store path of 6 GiB through backup, restore into a
// Nix store, restore --to, check, copy and repair, in constant memory.
func TestAcceptanceLarge(t *testing.T) {
	testenv.Need(t, "root", "nix")
	a := &acceptance{t: t, dir: t.TempDir()}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", a.dir).Run() })
	a.binary = filepath.Join(a.dir, "narvault")
	testenv.Run(t, ".", "go", "build", "-o", a.binary, ".")
	path := strings.TrimSpace(testenv.Run(t, ".", "nix-build", "--no-out-link", "testdata/large.nix"))
	a.roots, a.paths = []string{path}, []string{path}

	a.lean(t, "backup", "backup", "--release", "a/large", path)
	t.Run("Restore", func(t *testing.T) {
		a.lean(t, "restore", "backup", "a/large", "--store", filepath.Join(a.dir, "store"), "--no-root")
		a.sh(t, "nix-store --store $PWD/store --verify-path "+path)
		a.sh(t, "cmp "+path+"/large store"+path+"/large")
		a.sh(t, "chmod -R u+w store && rm -r store")
	})
	t.Run("RestoreTo", func(t *testing.T) {
		a.lean(t, "restore", "backup", "a/large", "--to", "out")
		a.sh(t, "cmp "+path+"/large out/"+filepath.Base(path)+"/large")
		a.sh(t, "test $(du -sk out | cut -f 1) -lt 10000") // the holes are holes
	})
	t.Run("Copy", func(t *testing.T) { a.lean(t, "copy", "backup", "second") })
	t.Run("Repair", func(t *testing.T) {
		a.sh(t, "truncate -s -9 backup/cache/nar/*")
		a.lean(t, "repair", "backup", "--no-store", "--from", "second")
	})
	t.Run("Check", func(t *testing.T) { a.lean(t, "check", "backup", "--read-data") })
}

// lean runs narvault, which must not take more than maxMemory. (The maximum that
// the kernel tells is that of the process and of those it waited for.)
func (a *acceptance) lean(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(a.binary, args...)
	cmd.Dir, cmd.Env = a.dir, testenv.NixEnv(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("narvault %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	t.Logf("narvault %s: %d MiB, %v", args[0], peak>>10, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	if peak > maxMemory {
		t.Errorf("narvault %s took %d KiB of memory", strings.Join(args, " "), peak)
	}
}
