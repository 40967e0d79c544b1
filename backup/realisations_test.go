package backup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// Realisations of the release, and only they, are taken over byte for byte;
// what is there stays, and what is odd does no harm.
func TestRealisations(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	other := store.Add("other", "other")
	mustRun(t, dir, store, request("other", other))
	outside := filepath.Join(t.TempDir(), "outside")
	doi := func(p storepath.Path) string { return `{"outPath": "` + string(p) + `", "signatures":[]}` }
	if err := os.WriteFile(outside, []byte(doi(top)), 0o644); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, layout.CacheDir)
	trace := filepath.Join(source, bincache.BuildTraceDir, string(top)+".drv")
	if err := os.Mkdir(trace, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"realisations/sha256:aa!out.doi":               doi(top),
		"realisations/sha256:bb!out.doi":               doi(other),
		"realisations/sha256:cc!out.doi":               "{",
		"realisations/sha256:dd!out.doi":               `{"outPath": "../../x"}`,
		"realisations/sha256:ee!out.doi":               doi(top) + strings.Repeat(" ", maxRealisation),
		"realisations/sha256:ff!out.tmp":               doi(top),
		"build-trace-v2/" + string(top) + ".drv/o.doi": `{"outPath":"/nix/store/` + string(top) + `"}`,
		"build-trace-v2/file":                          doi(top),
	} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{
		"link": os.Symlink(outside, filepath.Join(source, bincache.RealisationDir, "link.doi")),
		"pipe": syscall.Mkfifo(filepath.Join(source, bincache.RealisationDir, "pipe.doi"), 0o600),
		"dirs": os.Symlink(filepath.Dir(outside), filepath.Join(source, bincache.BuildTraceDir, "away")),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	from := mustOpen(t, dir)
	to := filepath.Join(t.TempDir(), "to")
	for _, change := range []string{doi(top), "mine"} {
		if r := mustRun(t, to, FromCache(from, false), request("r", top)); len(r.Warnings) > 0 {
			t.Errorf("warnings: %q", r.Warnings)
		}
		got, err := filepath.Glob(filepath.Join(to, layout.CacheDir, "*", "*.doi"))
		more, _ := filepath.Glob(filepath.Join(to, layout.CacheDir, "*", "*", "*.doi"))
		want := []string{
			filepath.Join(to, layout.CacheDir, bincache.RealisationDir, "sha256:aa!out.doi"),
			filepath.Join(to, layout.CacheDir, bincache.BuildTraceDir, string(top)+".drv", "o.doi"),
		}
		if got = append(got, more...); err != nil || !slices.Equal(got, want) {
			t.Errorf("there is %q, want %q", got, want)
		}
		if text, err := os.ReadFile(want[0]); err != nil || string(text) != change {
			t.Errorf("%q, %v, want %q", text, err, change)
		}
		if err := os.WriteFile(want[0], []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	backuptest.CheckWhole(t, to, "p/r")
}

// TestRealisationsDurable kills a copy at each operation, lets the next one
// finish, and cuts the power then: realisations have become durable too.
func TestRealisationsDurable(t *testing.T) {
	dir, _, top := backedUp(t, "none")
	names := []string{"realisations/sha256:aa!out.doi", "build-trace-v2/" + string(top) + ".drv/out.doi"}
	text := `{"outPath": "` + string(top) + `"}`
	for _, name := range names {
		file := filepath.Join(dir, layout.CacheDir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	from := mustOpen(t, dir)
	for op := 1; ; op++ {
		to := filepath.Join(t.TempDir(), "to")
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		if _, err := run(t.Context(), fs, to, FromCache(from, false), request("r", top)); err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.Revive()
		if _, err := run(t.Context(), fs, to, FromCache(from, false), request("r", top)); err != nil {
			t.Fatalf("after a kill at operation %d: %v", op, err)
		}
		fs.Crash()
		backuptest.CheckWhole(t, to, "p/r")
		for _, name := range names {
			if got, err := os.ReadFile(filepath.Join(to, layout.CacheDir, name)); err != nil || string(got) != text {
				t.Errorf("after a kill at operation %d: %q, %v", op, got, err)
			}
		}
	}
}
