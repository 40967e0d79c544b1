// Package disk is the little that a backup needs of a file system when it
// writes: temporary files, fsync, rename, and the same for directories.
//
// Writers go through the FS interface so that tests can stop them at every
// single operation, as a crash or a full disk would.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// A File is a file being written.
type File interface {
	io.Writer
	Name() string
	Sync() error // the content is durable, the name is not
	Close() error
}

// An FS carries out the operations that change a backup. All errors name the
// operation and the path.
type FS interface {
	// CreateTemp makes a new file in dir, called by TempPrefix, something
	// random and TempSuffix.
	CreateTemp(dir string) (File, error)
	// Append opens a file for appending and makes it if need be. A symlink is an
	// error.
	Append(name string) (File, error)
	// Rename moves a file to a name in the same file system, over what is there.
	Rename(from, to string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Mkdir makes one directory. One that is there already is fine.
	Mkdir(dir string) error
	// Remove deletes a file. One that is not there is fine.
	Remove(name string) error
}

// OS is the real file system.
type OS struct{}

// CreateTemp implements FS.
func (OS) CreateTemp(dir string) (File, error) {
	for {
		// Not os.CreateTemp: it makes files that only their owner may read, but a
		// backup is for everybody who may enter its directory.
		name := filepath.Join(dir, TempPrefix+strconv.FormatUint(rand.Uint64(), 36)+TempSuffix)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

// Append implements FS.
func (OS) Append(name string) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o666)
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir implements FS. File systems that cannot sync a directory (some
// network and FUSE ones answer EINVAL or ENOTSUP) are taken as they are.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// Mkdir implements FS.
func (OS) Mkdir(dir string) error {
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrExist) {
		if st, statErr := os.Stat(dir); statErr == nil && st.IsDir() {
			return nil
		}
	}
	return err
}

// Remove implements FS.
func (OS) Remove(name string) error {
	err := os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// MkdirAll makes dir below base, which exists, and every directory between
// them, each durable before the next. Symlinks on the way are errors: they
// could lead out of base.
func MkdirAll(fsys FS, base, dir string) error {
	rel, err := filepath.Rel(base, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("make directory %s: is not below %s", dir, base)
	}
	for at, rest := base, rel; rest != "." && rest != ""; {
		var first string
		first, rest = cutFirst(rest)
		if err := mkdirDurably(fsys, at, filepath.Join(at, first)); err != nil {
			return err
		}
		at = filepath.Join(at, first)
	}
	return nil
}

// mkdirDurably makes one directory, if need be. It syncs the parent in any
// case: who made the directory may have been killed before doing so.
func mkdirDurably(fsys FS, parent, dir string) error {
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fsys.Mkdir(dir)
	case err == nil && !st.IsDir():
		err = fmt.Errorf("make directory %s: %w, and is no directory but %s", dir, fs.ErrExist, st.Mode().Type())
	}
	if err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}

func cutFirst(rel string) (first, rest string) {
	for i := range len(rel) {
		if rel[i] == filepath.Separator {
			return rel[:i], rel[i+1:]
		}
	}
	return rel, ""
}

// WriteFile replaces the file at name by data: temporary file, fsync, rename,
// and fsync of the directory, so that a crash leaves the old content or the
// new. A failure leaves the old content and no temporary file.
func WriteFile(fsys FS, name string, data []byte) error {
	if err := Stage(fsys, name, data); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// Stage is WriteFile without the fsync of the directory: the content is
// durable, the new name only after SyncDir.
func Stage(fsys FS, name string, data []byte) error {
	temp, err := WriteTemp(fsys, filepath.Dir(name), data)
	if err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return errors.Join(err, fsys.Remove(temp))
	}
	return nil
}

// How temporary files in a backup are called, so that leftovers of a crash are
// known as such.
const (
	TempPrefix = ".narvault-"
	TempSuffix = ".tmp"
)

// WriteTemp writes data to a temporary file in dir, durably, and returns its
// path.
func WriteTemp(fsys FS, dir string, data []byte) (string, error) {
	f, err := fsys.CreateTemp(dir)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, fsys.Remove(f.Name()))
	}
	return f.Name(), nil
}

// SyncDirs makes moves durable: the new names before the old ones go, so that
// at worst there are both.
func SyncDirs(fsys FS, targets, sources map[string]bool) error {
	for _, dir := range slices.Concat(slices.Sorted(maps.Keys(targets)), slices.Sorted(maps.Keys(sources))) {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
