//go:build acceptance

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/testenv"
)

// TestAcceptance takes a corpus of real packages, and testdata/odd.nix, through
// every way in and out, and compares all of it with Nix.
func TestAcceptance(t *testing.T) {
	testenv.Need(t, "root", "nix", "fuse")
	a := &acceptance{t: t, dir: t.TempDir()}
	a.binary = filepath.Join(a.dir, "narvault")
	testenv.Run(t, ".", "go", "build", "-o", a.binary, ".")
	a.roots = corpus(t, a.dir)
	a.paths = strings.Fields(testenv.Run(t, a.dir, "nix-store", append([]string{"-qR"}, a.roots...)...))
	t.Logf("%d store paths", len(a.paths))
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", a.dir).Run() })

	t.Log(testenv.Run(t, a.dir, a.binary, append([]string{"backup", "backup", "--release", "a/all"}, a.roots...)...))
	t.Log(testenv.Run(t, a.dir, a.binary, append([]string{"backup", "backup", "--release", "a/all"}, a.roots...)...))
	t.Run("Dumps", func(t *testing.T) { a.dumps(t) })
	t.Run("Export", func(t *testing.T) {
		a.restored(t, "s1", "$narvault export backup a/all | nix-store --store $PWD/s1 --import > /dev/null")
	})
	t.Run("NixCopy", func(t *testing.T) {
		a.restored(t, "s2", "nix copy --no-check-sigs --from file://$PWD/backup/cache --to $PWD/s2 $roots 2> copy.log")
	})
	t.Run("Substituter", func(t *testing.T) {
		a.restored(t, "s3", "nix-store --store $PWD/s3 --option substituters file://$PWD/backup/cache --option require-sigs false --realise $roots > /dev/null 2> realise.log")
	})
	t.Run("Restore", func(t *testing.T) {
		a.restored(t, "s5", "$narvault restore backup a/all --store $PWD/s5 --no-root -q")
	})
	t.Run("RestoreTo", func(t *testing.T) { a.unpacked(t) })
	t.Run("Mount", func(t *testing.T) { a.mount(t) })
}

// acceptance is one run.
type acceptance struct {
	t            *testing.T
	dir          string // of the backup and the stores
	binary       string
	roots, paths []string
}

// corpus returns the paths to back up.
func corpus(t *testing.T, dir string) []string {
	roots := testenv.Corpus(t, dir)
	paths, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return append(roots, paths["odd"])
}

// sh runs a shell command in the directory of the run.
func (a *acceptance) sh(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
	cmd.Dir = a.dir
	cmd.Env = append(testenv.NixEnv(t), "narvault="+a.binary, "roots="+strings.Join(a.roots, " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// each calls f for every store path, a few at a time.
func (a *acceptance) each(t *testing.T, f func(path, base string)) {
	var wg sync.WaitGroup
	for chunk := range slices.Chunk(a.paths, (len(a.paths)+3)/4) {
		wg.Go(func() {
			for _, path := range chunk {
				f(path, filepath.Base(path))
			}
		})
	}
	wg.Wait()
}

// dumps compares every archived NAR with nix-store --dump.
func (a *acceptance) dumps(t *testing.T) {
	a.each(t, func(path, base string) {
		a.compare(t, fmt.Sprintf("zstd -dc backup/cache/$(sed -n 's/^URL: //p' backup/cache/%s.narinfo) | cmp - <(nix-store --dump %s)", base[:32], path))
	})
}

// compare is sh for several goroutines.
func (a *acceptance) compare(t *testing.T, command string) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
	cmd.Dir, cmd.Env = a.dir, testenv.NixEnv(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// restored runs a command that fills a store, and compares that store with the
// one that was backed up.
func (a *acceptance) restored(t *testing.T, store, command string) {
	start := time.Now()
	a.sh(t, command)
	t.Logf("%.1f s", time.Since(start).Seconds())
	a.sh(t, "nix-store --store $PWD/"+store+" --verify --check-contents")
	const questions = "for q in --hash --size --references --deriver; do nix-store %s --query $q %s; done"
	a.each(t, func(path, base string) {
		a.compare(t, fmt.Sprintf("diff -r --no-dereference %s %s%s", path, store, path))
		a.compare(t, fmt.Sprintf("diff <("+questions+") <("+questions+")", "", path, "--store $PWD/"+store, path))
	})
	a.sh(t, "chmod -R u+w "+store+" && rm -rf "+store)
}

// unpacked compares what is restored as plain files with the store.
func (a *acceptance) unpacked(t *testing.T) {
	start := time.Now()
	a.sh(t, "$narvault restore backup a/all --to out -q")
	t.Logf("%.1f s", time.Since(start).Seconds())
	a.each(t, func(path, base string) {
		a.compare(t, "nix-store --dump out/"+base+" | cmp - <(nix-store --dump "+path+")")
	})
	a.sh(t, "cd out && sha256sum --check --strict --quiet narvault-restore.sha256")
	a.sh(t, "$narvault restore backup a/all --to out | grep 'already there'")
	a.sh(t, "chmod -R u+w out && rm -rf out")
}

// mount compares the mounted backup with the store, once with raw links, byte
// by byte, and once with relative ones, each of which must resolve.
func (a *acceptance) mount(t *testing.T) {
	stop := a.mounted(t, "--links=raw")
	a.each(t, func(path, base string) {
		a.compare(t, "diff -r --no-dereference "+path+" mnt/store/"+base)
		a.compare(t, "diff -r --no-dereference "+path+" mnt/releases/a/all/"+base)
		a.compare(t, "test $(nix-store --dump mnt/store/"+base+" | sha256sum | cut -c 1-64) = $(nix-store --query --hash "+path+" | xargs nix-hash --type sha256 --to-base16)")
	})
	a.restored(t, "s4", "nix-store --store $PWD/s4 --import < mnt/exports/releases/a/all.closure > /dev/null")
	stop()
	stop = a.mounted(t)
	defer stop()
	a.links(t, "mnt/store")
	a.links(t, "mnt/releases/a/all")
}

// mounted mounts the backup and returns how to end that.
func (a *acceptance) mounted(t *testing.T, flags ...string) (stop func()) {
	mnt := filepath.Join(a.dir, "mnt")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, a.binary, append([]string{"mount", "backup", "mnt"}, flags...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.Dir, cmd.Stderr = a.dir, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 1)
	if _, err := stdout.Read(ready); err != nil {
		t.Fatalf("the mount did not get ready: %v", err)
	}
	return func() {
		cancel()
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("the mount ended with %v", cmd.ProcessState)
		}
	}
}

// links checks that every symlink to a store path of the backup resolves below
// top, and that no other link was changed.
func (a *acceptance) links(t *testing.T, top string) {
	have := make(map[string]bool)
	for _, path := range a.paths {
		have[filepath.Base(path)] = true
	}
	changed, total := 0, 0
	top = filepath.Join(a.dir, top)
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		total++
		rel, _ := filepath.Rel(top, name)
		raw, err := os.Readlink("/nix/store/" + rel)
		if err != nil {
			return err
		}
		shown, err := os.Readlink(name)
		if err != nil {
			return err
		}
		base, _, _ := strings.Cut(strings.TrimPrefix(raw, "/nix/store/"), "/")
		if !strings.HasPrefix(raw, "/nix/store/") || !have[base] {
			if shown != raw {
				t.Errorf("%s shows %s, is %s", rel, shown, raw)
			}
			return nil
		}
		changed++
		if want := filepath.Join(top, strings.TrimPrefix(raw, "/nix/store/")); filepath.Join(filepath.Dir(name), shown) != want {
			t.Errorf("%s shows %s, which is not %s", rel, shown, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d of %d symlinks are relative", changed, total)
	if changed == 0 {
		t.Error("no symlink leads to another store path: the test proves nothing")
	}
}
