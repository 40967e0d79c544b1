package hydra

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// User is whom Hydra runs as, where nobody has decided otherwise.
const User = "hydra"

// RootsDir returns where Hydra has its GC roots on this machine: gcroots/hydra,
// if that is there (NixOS), or gcroots/per-user/hydra/hydra-roots, its own
// default, below $NIX_STATE_DIR.
func RootsDir() string {
	gcroots := filepath.Join(env("NIX_STATE_DIR", "/nix/var/nix"), "gcroots")
	if dir := filepath.Join(gcroots, "hydra"); isDir(dir) {
		return dir
	}
	return filepath.Join(gcroots, "per-user", User, "hydra-roots")
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

// MakeRootsDir makes the directory of Hydra's GC roots and those above it, if
// they are not there. What root makes belongs to the user of that name or, if
// there is none, to whom the directory belongs that it is in: Hydra has to be able
// to write there.
func MakeRootsDir(dir, name string) error {
	if isDir(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := MakeRootsDir(parent, name); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) && isDir(dir) {
		return nil // just now, by Hydra
	} else if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := owner(parent, name)
	if err != nil {
		return err
	}
	return os.Lchown(dir, uid, gid)
}

// owner returns the ids of a user or, if there is none of this name, of whom a
// directory belongs to.
func owner(dir, name string) (uid, gid int, err error) {
	if u, err := user.Lookup(name); err == nil {
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		return uid, gid, errors.Join(uidErr, gidErr)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return int(st.Uid), int(st.Gid), nil
}
