package hydra

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
)

// Derivations returns the derivations that the builds of a release and their
// steps are of, sorted: those whose build logs Hydra shows.
func (rows Rows) Derivations(storeDir string) ([]storepath.Path, error) {
	var doc rowSet
	if err := json.Unmarshal(rows, &doc); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRows, err)
	}
	seen := make(map[storepath.Path]bool)
	for _, table := range []string{"builds", "buildsteps"} {
		for _, r := range doc.Tables[table] {
			if p, err := storepath.ParseIn(storeDir, r.text("drvpath")); err == nil && p.IsDerivation() {
				seen[p] = true
			}
		}
	}
	return sortedKeys(seen), nil
}

// PutLog copies a build log that is not compressed to where Hydra looks for it,
// below dir (the first of LogDirs). If there is one already, it stays, and the
// result is false.
func PutLog(dir string, drv storepath.Path, file string) (bool, error) {
	put, err := putLog(dir, drv, file)
	if err != nil {
		return false, fmt.Errorf("restore build log of %s: %w", drv, err)
	}
	return put, nil
}

func putLog(dir string, drv storepath.Path, file string) (bool, error) {
	if findLog([]string{dir}, drv) != "" {
		return false, nil
	}
	// What a link leads to may be nothing that Hydra should show.
	in, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	if st, err := in.Stat(); err != nil || !st.Mode().IsRegular() {
		return false, errors.Join(err, fmt.Errorf("%s is no regular file", file))
	}
	target := filepath.Join(dir, string(drv[:2]), string(drv[2:]))
	if err := mkdirLike(filepath.Dir(target)); err != nil {
		return false, err
	}
	out, err := os.CreateTemp(filepath.Dir(target), ".narvault-*.tmp")
	if err != nil {
		return false, err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o644) // Hydra is another user
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), target)
	}
	if err != nil {
		return false, errors.Join(err, ignoreMissing(os.Remove(out.Name())))
	}
	return true, nil
}

// mkdirLike makes a directory and those above it, each with the owner and the
// mode of the one that it is in: what root restores must not keep Hydra's own
// user from writing its logs there.
func mkdirLike(dir string) error {
	if isDir(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdirLike(parent); err != nil {
		return err
	}
	var like syscall.Stat_t
	if err := syscall.Stat(parent, &like); err != nil {
		return &fs.PathError{Op: "stat", Path: parent, Err: err}
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return nil // just now, by Hydra
	} else if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	// The mode last: to give a directory away takes its set-group-id bit.
	return errors.Join(os.Lchown(dir, int(like.Uid), int(like.Gid)), syscall.Chmod(dir, like.Mode&0o7777))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
