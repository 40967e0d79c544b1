package hydra_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/narread/testenv"
)

// TestMakeRootsDir makes the directory of the GC roots as root: it belongs to
// Hydra, or to whom the one above it belongs. What is there stays as it is.
func TestMakeRootsDir(t *testing.T) {
	testenv.Need(t, "root")
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"nobody": uid, "no-such-user": 12345} {
		top := t.TempDir()
		if err := os.Chown(top, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(top, "per-user", "hydra", "hydra-roots")
		if err := hydra.MakeRootsDir(dir, name); err != nil {
			t.Fatal(err)
		}
		for dir := dir; dir != top; dir = filepath.Dir(dir) {
			if got := ownerOf(t, dir); got != want {
				t.Errorf("%s is of %d, want %d", dir, got, want)
			}
		}
		if got := ownerOf(t, top); got != 12345 {
			t.Errorf("%s is of %d now", top, got)
		}
		if err := os.Chown(dir, 7, 7); err != nil {
			t.Fatal(err)
		}
		if err := hydra.MakeRootsDir(dir, name); err != nil || ownerOf(t, dir) != 7 {
			t.Errorf("again it is of %d, %v", ownerOf(t, dir), err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := hydra.MakeRootsDir(filepath.Join(file, "roots"), "nobody"); err == nil {
		t.Error("a directory in a file")
	}
}

func ownerOf(t *testing.T, name string) int {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Uid)
}

// TestRootsDir looks where NixOS has the roots, then where Hydra has them by
// itself.
func TestRootsDir(t *testing.T) {
	state := t.TempDir()
	t.Setenv("NIX_STATE_DIR", state)
	if got, want := hydra.RootsDir(), state+"/gcroots/per-user/hydra/hydra-roots"; got != want {
		t.Errorf("the roots are in %s, want %s", got, want)
	}
	want := filepath.Join(state, "gcroots", "hydra")
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := hydra.RootsDir(); got != want {
		t.Errorf("the roots are in %s, want %s", got, want)
	}
}
