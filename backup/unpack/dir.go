package unpack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/backup/disk"
)

// A Dir is a directory that archives are unpacked into. It is not safe for
// concurrent use.
type Dir struct {
	root   *os.Root
	lock   *os.File // the directory, locked
	limits Limits
	hasty  bool // nothing is made durable; for tests
}

// ErrBusy is wrapped by Open's error while another Dir has the directory open:
// both would work on the same temporary trees.
var ErrBusy = errors.New("another restore is at work in it: wait for it to end")

// Limits are what a file system cannot hold of a store path.
type Limits struct {
	NoSymlinks bool // it has no symlinks
	NoModes    bool // all files are executable, or none
	FoldsCase  bool // names that differ only in case are one
}

// Warnings says what cannot be held, in words.
func (l Limits) Warnings() []string {
	var w []string
	for _, c := range []struct {
		is   bool
		text string
	}{
		{l.NoSymlinks, "it holds no symlinks"},
		{l.NoModes, "it does not tell which files are executable"},
		{l.FoldsCase, "it does not tell upper from lower case in names"},
	} {
		if c.is {
			w = append(w, c.text)
		}
	}
	return w
}

// Open opens a directory, which is made if its parent is there, and finds out
// what its file system can hold. The caller closes it.
func Open(path string) (*Dir, error) {
	if err := os.Mkdir(path, 0o777); err == nil {
		err = disk.OS{}.SyncDir(filepath.Dir(filepath.Clean(path)))
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("restore into %s: %w", path, err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("restore into %s: %w", path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", path, err)
	}
	d := &Dir{root: root}
	if err = d.takeLock(); err == nil {
		err = d.probe()
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("restore into %s: %w", path, err)
	}
	return d, nil
}

// takeLock locks the directory, until the process ends at the latest. File
// systems without locks are taken as they are.
func (d *Dir) takeLock() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	d.lock = f
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	}
	return nil
}

// Close releases the directory.
func (d *Dir) Close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}

// Limits returns what the file system cannot hold.
func (d *Dir) Limits() Limits { return d.limits }

// probe tries what a store path needs.
func (d *Dir) probe() error { return d.aside(d.probeIn) }

// aside runs try in a directory that is taken away again.
func (d *Dir) aside(try func(at *os.Root) error) error {
	const name = disk.TempPrefix + "probe" + disk.TempSuffix
	if err := d.root.RemoveAll(name); err != nil {
		return err
	}
	if err := d.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	defer d.root.RemoveAll(name)
	at, err := d.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer at.Close()
	return try(at)
}

func (d *Dir) probeIn(at *os.Root) error {
	f, err := at.OpenFile("a", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	d.limits.NoModes = !keepsModes(f)
	d.limits.NoSymlinks = cannotLink(at.Symlink("a", "link"))
	_, err = at.Lstat("A")
	d.limits.FoldsCase = err == nil
	return nil
}

// keepsModes reports whether a file is executable when it is said to be, and
// only then.
func keepsModes(f *os.File) bool {
	for _, mode := range []fs.FileMode{modeProgram, modeFile} {
		if f.Chmod(mode) != nil {
			return false
		}
		if st, err := f.Stat(); err != nil || st.Mode()&0o100 != mode&0o100 {
			return false
		}
	}
	return true
}

// canName reports whether a file may have a name.
func (d *Dir) canName(name string) bool {
	if d.limits == (Limits{}) {
		return true
	}
	err := d.aside(func(at *os.Root) error {
		f, err := at.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	})
	return !cannotName(err)
}

// cannotLink reports whether an error is that of a file system without symlinks.
func cannotLink(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, errors.ErrUnsupported)
}

// cannotName reports whether an error is that of a file system which cannot hold
// a name, in a directory that is there. (exfat-fuse says ENOENT for a colon.)
func cannotName(err error) bool {
	for _, e := range []error{syscall.EINVAL, syscall.EILSEQ, syscall.ENAMETOOLONG, syscall.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Commit makes trees durable and gives them their names: those that are whole
// their own, those that are damaged one that says so. Nothing that is there is
// replaced.
func (d *Dir) Commit(trees []*Tree) error {
	if err := d.sync(); err != nil {
		return err
	}
	for _, t := range trees {
		if t.temp == "" {
			continue
		}
		name := t.Name
		if t.State == Damaged {
			name += damagedSuffix
			if err := removeAll(d.root, name); err != nil {
				return fmt.Errorf("restore %s: %w", t.Name, err)
			}
		}
		if err := d.rename(t.temp, name); err != nil {
			return fmt.Errorf("restore %s: %w", t.Name, err)
		}
		t.temp = ""
		if t.State == Restored {
			// What an earlier run could save is no longer needed.
			if err := removeAll(d.root, t.Name+damagedSuffix); err != nil {
				return fmt.Errorf("restore %s: %w", t.Name, err)
			}
		}
	}
	return d.syncNames()
}

// rename gives a tree its name, if nothing has it.
func (d *Dir) rename(from, to string) error {
	if _, err := d.root.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return d.root.Rename(from, to)
}

// sync makes the contents of the file system durable: one call for thousands of
// files, where each would cost one.
func (d *Dir) sync() error {
	if d.hasty {
		return nil
	}
	if err := unix.Syncfs(int(d.lock.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", d.root.Name(), err)
	}
	return nil
}

// syncNames makes the names in the directory durable.
func (d *Dir) syncNames() error {
	if d.hasty {
		return nil
	}
	return disk.OS{}.SyncDir(d.root.Name())
}

// removeAll removes a tree, also where directories are read-only.
func removeAll(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := makeWritable(root, name); err != nil {
		return err
	}
	return root.RemoveAll(name)
}

// makeWritable lets the owner remove what is in a tree. (fs.WalkDir knows no names
// that are not UTF-8.)
func makeWritable(root *os.Root, name string) error {
	st, err := root.Lstat(name)
	if err != nil || !st.IsDir() {
		return err
	}
	if err := root.Chmod(name, 0o700); err != nil {
		return err
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := makeWritable(dir, name); err != nil {
			return err
		}
	}
	return nil
}

func readNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
