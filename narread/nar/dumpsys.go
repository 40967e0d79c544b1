//go:build unix

package nar

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	errChanged     = errors.New("changed while it was read")
	errUnsupported = errors.New("neither a file, a directory nor a symlink")
)

// The system calls below are made again when a signal interrupts them, which
// happens on network file systems and FUSE.

func openAt(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ELOOP || err == unix.ENOTDIR {
			return -1, errChanged // into a symlink
		}
		if err != nil {
			return -1, fmt.Errorf("open: %w", err)
		}
		return fd, nil
	}
}

func fstat(fd int, st *unix.Stat_t) error {
	for {
		err := unix.Fstat(fd, st)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("stat: %w", err)
		}
	}
}

func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// fileType returns what is called name in the directory dirfd.
func fileType(dirfd int, name string) (Type, error) {
	var st unix.Stat_t
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW).(unix.Errno)
	}
	if err != 0 {
		return 0, fmt.Errorf("stat: %w", err)
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular, nil
	case unix.S_IFDIR:
		return Directory, nil
	case unix.S_IFLNK:
		return Symlink, nil
	}
	return 0, errUnsupported
}

// readlink returns the target of the symlink that is called name in the
// directory dirfd.
func (d *dumper) readlink(dirfd int, name string) (string, error) {
	if d.linkBuf == nil {
		d.linkBuf = make([]byte, MaxTarget+1)
	}
	for {
		n, err := unix.Readlinkat(dirfd, name, d.linkBuf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL: // not a symlink
			return "", errChanged
		case err != nil:
			return "", fmt.Errorf("readlink: %w", err)
		case n > MaxTarget:
			return "", fmt.Errorf("the target is longer than %d bytes, which newer Nix does not restore", MaxTarget)
		}
		return string(d.linkBuf[:n]), nil
	}
}

// readDir reads the entries of dir and sorts them. The names of a directory
// are one allocation.
func (d *dumper) readDir(dir *dumpDir) error {
	if d.dirBuf == nil {
		d.dirBuf = make([]byte, 32<<10)
	}
	found := make([]foundEntry, 0, 16)
	d.names = d.names[:0]
	for {
		n, err := unix.ReadDirent(dir.fd, d.dirBuf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read directory: %w", err)
		}
		if n <= 0 {
			break
		}
		found, d.names = parseDirents(d.dirBuf[:n], found, d.names)
		if err := d.ctx.Err(); err != nil {
			return err
		}
	}
	text := string(d.names)
	for _, f := range found {
		name := text[:f.size]
		text = text[f.size:]
		if name != "." && name != ".." {
			dir.entries = append(dir.entries, dirEntry{name, f.typ})
		}
	}
	slices.SortFunc(dir.entries, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	return nil
}

// A foundEntry is an entry of a directory whose name, size bytes long, was
// appended to those before it.
type foundEntry struct {
	size int
	typ  Type
}
