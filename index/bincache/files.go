package bincache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// The methods below reach any file of the cache, by its name relative to the
// directory, with slashes. They never leave the directory: a symlink that leads
// out is an error.

var errNotRegular = errors.New("is not a regular file")

// OpenFile opens a file for reading, and says what it is. What is no regular
// file, a symlink that leads out or in a circle among it, is a *DamageError. It does not wait: what looks like a file may be a
// pipe, which nobody would ever write to. The caller closes it.
func (c *Cache) OpenFile(name string) (*os.File, fs.FileInfo, error) {
	f, err := c.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil && leadsAstray(err) {
		return nil, nil, &DamageError{File: c.path(name), Err: fmt.Errorf("is a symlink: %w", cause(err))}
	}
	if err != nil {
		return nil, nil, c.named(name, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &DamageError{File: c.path(name), Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// ReadFile reads a file whole. One of more than limit bytes is a *DamageError.
func (c *Cache) ReadFile(name string, limit int64) ([]byte, error) {
	f, st, err := c.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var text bytes.Buffer
	text.Grow(int(min(st.Size(), limit)) + bytes.MinRead) // enough to see the end
	if _, err := text.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, c.named(name, err)
	}
	if int64(text.Len()) > limit {
		return nil, &DamageError{File: c.path(name), Err: fmt.Errorf("is larger than %d bytes", limit)}
	}
	return text.Bytes(), nil
}

// Lstat describes a file, directory or symlink.
func (c *Cache) Lstat(name string) (fs.FileInfo, error) {
	st, err := c.root.Lstat(name)
	if err != nil {
		return nil, c.named(name, err)
	}
	return st, nil
}

// ReadDir lists a directory, "." is the cache, in no order. Beside an error it
// returns what could be read.
func (c *Cache) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := c.root.Open(name)
	if err != nil {
		return nil, c.named(name, err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return entries, c.named(name, err)
	}
	return entries, nil
}

// named gives an error of the root, which knows relative names only, the whole
// path.
func (c *Cache) named(name string, err error) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		return err
	}
	return &fs.PathError{Op: "read", Path: c.path(name), Err: cause(err)}
}

// cause takes the name out of an error.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// leadsAstray reports whether an error of the root is about a symlink that leads
// out of it (which is no error of the kernel's) or to itself.
func leadsAstray(err error) bool {
	var errno syscall.Errno
	return !errors.As(err, &errno) && !errors.Is(err, fs.ErrClosed) || errno == syscall.ELOOP
}
