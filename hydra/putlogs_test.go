package hydra_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// TestPutLog copies a log to where FindLogs, and Hydra, find it; one that is there
// stays, and what is no file is not copied.
func TestPutLog(t *testing.T) {
	dir, drv := t.TempDir(), storepath.Path(base("client-1.0.drv"))
	from, hydraDir := filepath.Join(dir, "log"), filepath.Join(dir, "hydra", "build-logs")
	if _, err := hydra.PutLog(hydraDir, drv, from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	for _, text := range []string{"built", "another"} {
		if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		put, err := hydra.PutLog(hydraDir, drv, from)
		if err != nil || put != (text == "built") {
			t.Errorf("%s: %v, %v", text, put, err)
		}
	}
	file := hydra.FindLogs([]string{hydraDir}, []storepath.Path{drv})[drv]
	if text, err := os.ReadFile(file); err != nil || string(text) != "built" {
		t.Errorf("%s has %q, %v", file, text, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
	}

	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.Symlink(from, link), syscall.Mkfifo(pipe, 0o644)); err != nil {
		t.Fatal(err)
	}
	other := storepath.Path(base("server-1.0.drv"))
	for _, name := range []string{link, pipe, dir} {
		if put, err := hydra.PutLog(hydraDir, other, name); put || err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	left, err := filepath.Glob(filepath.Join(hydraDir, "*", ".narvault*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestPutLogOwner makes directories in which Hydra's own user can go on writing.
func TestPutLogOwner(t *testing.T) {
	testenv.Need(t, "root")
	home, from := t.TempDir(), filepath.Join(t.TempDir(), "log")
	const hydraUser, mode = 65534, fs.ModeSetgid | 0o775
	if err := errors.Join(os.WriteFile(from, []byte("built"), 0o600), os.Chown(home, hydraUser, hydraUser), os.Chmod(home, mode)); err != nil {
		t.Fatal(err)
	}
	drv := storepath.Path(base("client-1.0.drv"))
	if _, err := hydra.PutLog(filepath.Join(home, "build-logs"), drv, from); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"build-logs", "build-logs/" + string(drv[:2])} {
		st, err := os.Stat(filepath.Join(home, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := st.Sys().(*syscall.Stat_t).Uid; owner != hydraUser || st.Mode() != fs.ModeDir|mode {
			t.Errorf("%s belongs to %d with mode %v", name, owner, st.Mode())
		}
	}
}

// TestDerivations are those of builds and steps; what is none is passed over.
func TestDerivations(t *testing.T) {
	rows := hydra.Rows(`{"version": 1, "tables": {"builds": [{"drvpath": "` + path("a.drv") + `"}, {"drvpath": "/etc/passwd"}, {}],
		"buildsteps": [{"drvpath": "` + path("b.drv") + `"}, {"drvpath": "` + path("a.drv") + `"}, {"drvpath": "` + path("c") + `"}]}}`)
	want := []storepath.Path{storepath.Path(base("a.drv")), storepath.Path(base("b.drv"))}
	slices.Sort(want)
	if got, err := rows.Derivations(storeDir); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := hydra.Rows("{").Derivations(storeDir); !errors.Is(err, hydra.ErrRows) {
		t.Errorf("no JSON: %v", err)
	}
}
