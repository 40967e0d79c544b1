package index

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// A disk carries out the operations by which a generation is published and
// others are removed. Tests stop a build at each of them, as a crash would.
// What Badger writes is not among them: it is in a temporary directory and
// counts for nothing before Sync.
type disk interface {
	// Mkdir makes a directory that everybody may read.
	Mkdir(name string) error
	// Write makes or replaces a file that everybody may read, durably.
	Write(name string, data []byte) error
	// Sync makes a file that is there durable and readable for everybody, and
	// SyncDir the names in a directory.
	Sync(name string) error
	SyncDir(name string) error
	Rename(from, to string) error
	// RemoveAll removes a file or a directory. One that is not there is fine.
	RemoveAll(name string) error
}

// osDisk is the real one.
type osDisk struct{}

func (osDisk) Mkdir(name string) error {
	if err := os.Mkdir(name, 0o755); err != nil {
		return err
	}
	return widen(name, 0o755)
}

func (osDisk) Write(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return widen(name, 0o644)
}

func (osDisk) Sync(name string) error {
	if err := widen(name, 0o644); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osDisk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // a file system that cannot
	}
	return errors.Join(err, d.Close())
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) RemoveAll(name string) error { return os.RemoveAll(name) }

// widen sets the mode, which the umask may have narrowed and Badger makes 0600.
// File systems without modes refuse: theirs are as the mount says.
func widen(name string, mode fs.FileMode) error {
	err := os.Chmod(name, mode)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
