//go:build unix

package nar

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const maxOpenDirs = 32 // directories that a dump keeps open, the innermost ones

// Dump writes the NAR of the file, directory or symlink at path to w, the same
// bytes as `nix-store --dump` on Linux, and returns its listing. A file is
// executable when its owner may execute it. Other kinds of files (devices,
// sockets, pipes) are an error that names them.
//
// Symlinks are never followed: a directory that is exchanged for one while it
// is dumped makes it fail, and so does a file that does not deliver as many
// bytes as it had when it was opened. The NAR in w is then incomplete.
//
// The warnings are those of Listing.Warnings. Between chunks the context is looked at;
// its error is returned wrapped.
func Dump(ctx context.Context, w io.Writer, path string) (*Listing, []string, error) {
	d := &dumper{ctx: ctx, root: filepath.Clean(path), w: NewWriter(w)}
	d.w.depth = MaxDepth + 1
	defer d.close()
	if err := d.dump(); err != nil {
		return nil, nil, err
	}
	l, err := d.list.Listing()
	if err != nil {
		return nil, nil, err
	}
	return l, l.Warnings(d.root), nil
}

// A dumper is one call of Dump.
type dumper struct {
	ctx     context.Context
	root    string
	w       *Writer
	list    Builder
	open    []dumpDir // from the root to the directory that is dumped
	dirBuf  []byte    // of readDir
	names   []byte    // of readDir
	linkBuf []byte
}

// A dumpDir is a directory that is being dumped.
type dumpDir struct {
	fd      int // -1 while it is closed, see enter
	dev     uint64
	ino     uint64
	entries []dirEntry // sorted by bytes
	next    int
}

// A dirEntry is an entry of a directory, with its type if the file system told
// it. That is only a hint: it may have changed since.
type dirEntry struct {
	name string
	typ  Type
}

func (d *dumper) dump() error {
	if err := d.node(unix.AT_FDCWD, d.root, Header{}); err != nil {
		return err
	}
	for len(d.open) > 0 {
		dir := &d.open[len(d.open)-1]
		if dir.next == len(dir.entries) {
			if err := d.leave(); err != nil {
				return err
			}
			continue
		}
		e := dir.entries[dir.next]
		dir.next++
		if err := d.node(dir.fd, e.name, Header{Depth: len(d.open), Name: e.name, Type: e.typ}); err != nil {
			return err
		}
	}
	if err := d.w.Close(); err != nil {
		return d.failed("", err)
	}
	return nil
}

// node dumps what is called file in the directory fd: all of it, or the start
// of a directory. h has what is known already.
func (d *dumper) node(fd int, file string, h Header) error {
	if err := d.ctx.Err(); err != nil {
		return d.failed(h.Name, err)
	}
	if h.Type == 0 {
		var err error
		if h.Type, err = fileType(fd, file); err != nil {
			return d.failed(h.Name, err)
		}
	}
	switch h.Type {
	case Directory:
		return d.enter(fd, file, h)
	case Symlink:
		target, err := d.readlink(fd, file)
		if err != nil {
			return d.failed(h.Name, err)
		}
		h.Target = target
		return d.header(h)
	}
	return d.file(fd, file, h)
}

// header writes h and adds it to the listing.
func (d *dumper) header(h Header) error {
	if err := d.w.WriteHeader(h); err != nil {
		return d.failed(h.Name, err)
	}
	if err := d.list.Add(h); err != nil {
		return d.failed(h.Name, err)
	}
	return nil
}

// file dumps a regular file.
func (d *dumper) file(dirfd int, file string, h Header) error {
	// O_NONBLOCK: if it is a pipe by now, do not wait for a writer.
	fd, err := openAt(dirfd, file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return d.failed(h.Name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return d.failed(h.Name, err)
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		return d.failed(h.Name, errChanged)
	}
	h.Size, h.Executable = st.Size, uint32(st.Mode)&unix.S_IXUSR != 0
	if err := d.header(h); err != nil {
		return err
	}
	if err := d.contents(fd); err != nil {
		return d.failed(h.Name, err)
	}
	return nil
}

// contents copies a file, which must have exactly as many bytes as its header
// says, straight into the buffer of the Writer.
func (d *dumper) contents(fd int) error {
	for {
		// One byte more shows a file that has grown, without a read of its
		// own: a regular file gives less than asked for only at its end.
		want := d.w.left + 1
		p, err := d.w.room(want)
		if err != nil {
			return err
		}
		p = p[:min(int64(len(p)), want)]
		n, err := read(fd, p)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if int64(n) > d.w.left || n == 0 && d.w.left > 0 {
			return errChanged
		}
		d.w.filled(n)
		if n < len(p) && d.w.left == 0 {
			return nil
		}
		if err := d.ctx.Err(); err != nil {
			return err
		}
	}
}

// enter starts a directory.
func (d *dumper) enter(dirfd int, file string, h Header) error {
	if err := d.header(h); err != nil {
		return err
	}
	fd, err := openAt(dirfd, file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY)
	if err != nil {
		return d.failed(h.Name, err)
	}
	d.push(fd)
	dir := &d.open[len(d.open)-1]
	if err := dir.identify(); err != nil {
		return d.failed("", err)
	}
	if err := d.readDir(dir); err != nil {
		return d.failed("", err)
	}
	return nil
}

// push makes fd the innermost directory. So that deep trees do not need a file
// descriptor for each level, only some of the innermost stay open.
func (d *dumper) push(fd int) {
	n := len(d.open)
	if n < cap(d.open) {
		d.open = d.open[:n+1] // its entries can be used again
	} else {
		d.open = append(d.open, dumpDir{})
	}
	d.open[n].fd = fd
	if n >= maxOpenDirs {
		d.open[n-maxOpenDirs].shut()
	}
}

// leave ends the innermost directory, and makes sure that the one around it is
// open.
func (d *dumper) leave() error {
	n := len(d.open) - 1
	dir := &d.open[n]
	if n > 0 && d.open[n-1].fd < 0 {
		if err := d.reopen(&d.open[n-1], dir.fd); err != nil {
			return d.failed("", err)
		}
	}
	dir.shut()
	clear(dir.entries) // frees the names
	dir.entries, dir.next = dir.entries[:0], 0
	d.open = d.open[:n]
	return nil
}

// reopen opens parent again as the directory that child is in, unless that is
// another one by now.
func (d *dumper) reopen(parent *dumpDir, child int) error {
	dev, ino := parent.dev, parent.ino
	fd, err := openAt(child, "..", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	parent.fd = fd
	if err := parent.identify(); err != nil {
		return err
	}
	if parent.dev != dev || parent.ino != ino {
		return errChanged
	}
	return nil
}

// identify sets which directory dir.fd is.
func (dir *dumpDir) identify() error {
	var st unix.Stat_t
	if err := fstat(dir.fd, &st); err != nil {
		return err
	}
	dir.dev, dir.ino = uint64(st.Dev), uint64(st.Ino)
	return nil
}

func (dir *dumpDir) shut() {
	if dir.fd >= 0 {
		unix.Close(dir.fd)
		dir.fd = -1
	}
}

// close closes what is open after an error.
func (d *dumper) close() {
	for i := range d.open {
		d.open[i].shut()
	}
}

// path returns the path of name in the innermost directory, or of that
// directory when name is "".
func (d *dumper) path(name string) string {
	var b strings.Builder
	if d.root != "/" || name == "" && len(d.open) < 2 {
		b.WriteString(d.root)
	}
	for i := range len(d.open) - 1 {
		dir := &d.open[i] // the directory in it that is dumped is that before next
		b.WriteString("/" + dir.entries[dir.next-1].name)
	}
	if name != "" {
		b.WriteString("/" + name)
	}
	return b.String()
}

// failed returns err as that of dumping name in the innermost directory.
func (d *dumper) failed(name string, err error) error {
	return fmt.Errorf("dump %s: %w", d.path(name), err)
}
