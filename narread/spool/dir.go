package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/narread/narinfo"
)

const (
	narExt  = ".nar"
	sumsExt = ".sums"
	partExt = ".part"
	tempExt = ".tmp"
)

// Key is which NAR is meant.
type Key struct {
	Hash narinfo.Hash
	Size int64 // bytes
}

func (k Key) name() string { return k.Hash.Nix32() + "-" + strconv.FormatInt(k.Size, 10) }

// Dir is a spool directory. It may be used by any number of processes at a
// time, and its methods by any number of goroutines. A nil *Dir keeps nothing.
type Dir struct {
	name string
	max  int64
	hook func(step string) // for tests: called after each step that changes the directory
}

// New returns the spool in the directory name, which is made when it is needed.
// It takes at most maxBytes of the file system, and at most half of what would
// be free without it. What is larger gets a temporary file (see Acquire).
func New(name string, maxBytes int64) *Dir { return &Dir{name: name, max: maxBytes} }

func (d *Dir) path(k Key, ext string) string { return filepath.Join(d.name, k.name()+ext) }

func (d *Dir) step(what string) {
	if d.hook != nil {
		d.hook(what)
	}
}

// Open returns a NAR that is in the spool, nil if it is not. The caller closes
// the file.
func (d *Dir) Open(k Key) *File {
	if d == nil {
		return nil
	}
	f, _ := d.open(k)
	return f
}

// open is Open, and reports whether another process is just publishing or
// removing the file.
func (d *Dir) open(k Key) (_ *File, busy bool) {
	f, err := os.OpenFile(d.path(k, narExt), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, false
	}
	file := &File{f: f, key: k}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() {
		err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
		busy = errors.Is(err, unix.EWOULDBLOCK)
	}
	if err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, busy
	}
	if file.sums = d.Sums(k); file.sums == nil || st.Size() != k.Size {
		file.Discard()
		f.Close()
		return nil, false
	}
	touch(f.Name())
	return file, false
}

// poll is how often Acquire looks whether another process is done.
const poll = 20 * time.Millisecond

// stalled is after how long without progress another process is not waited for
// any more: it may have been stopped, by Ctrl-Z for one.
const stalled = 30 * time.Second

// Acquire returns a NAR that is in the spool, or else a Writer for the caller to
// decode it to, for whom all others wait: exactly one of both, if err is nil.
// While another process decodes it, Acquire waits, until ctx ends.
//
// Where the NAR cannot be kept (no directory, too large, disk full), or the other
// process does not get on with it, the Writer is to a temporary file that only
// this process has.
func (d *Dir) Acquire(ctx context.Context, k Key) (*File, *Writer, error) {
	for d != nil {
		f, w, err := d.try(k)
		if err == nil {
			return f, w, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || d.stalled(k) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(poll):
		}
	}
	w, err := d.temporary(k)
	return nil, w, err
}

// stalled reports whether whoever decodes a NAR has not written for long.
func (d *Dir) stalled(k Key) bool {
	part, err := os.Lstat(d.path(k, partExt))
	return err == nil && time.Since(part.ModTime()) > stalled
}

// try is Acquire without waiting: the error is then EWOULDBLOCK.
func (d *Dir) try(k Key) (*File, *Writer, error) {
	f, busy := d.open(k)
	if f != nil {
		return f, nil, nil
	}
	if busy {
		return nil, nil, unix.EWOULDBLOCK
	}
	w, err := d.create(k)
	if err != nil {
		return nil, nil, err
	}
	// It may have been published since we looked.
	if f, busy = d.open(k); f != nil || busy {
		w.Abort()
		w = nil
	}
	if busy {
		err = unix.EWOULDBLOCK
	}
	return f, w, err
}

// create begins a .part file. The error is EWOULDBLOCK while another one is at
// it, or when it just ended.
func (d *Dir) create(k Key) (*Writer, error) {
	if err := os.MkdirAll(d.name, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(k, partExt), os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, d: d, key: k, kept: true}
	if err := w.begin(); err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}

// begin takes a .part file over, makes room for it, and reserves that.
func (w *Writer) begin() error {
	if err := flock(w.f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if !w.named() { // removed, or completed, before we had the lock
		return unix.EWOULDBLOCK
	}
	w.d.step("part created")
	err := w.f.Truncate(0)
	if err == nil {
		err = w.d.makeRoom(w.key.Size)
	}
	if err == nil {
		err = reserve(w.f, w.key.Size)
	}
	w.d.step("part reserved")
	if err != nil {
		os.Remove(w.f.Name())
	}
	return err
}

// named reports whether the file is the one that has its name.
func (w *Writer) named() bool {
	at, err := os.Lstat(w.f.Name())
	if err != nil {
		return false
	}
	open, err := w.f.Stat()
	return err == nil && os.SameFile(at, open)
}

// Temporary returns a Writer to a file that has no name: it goes when it is
// closed, or when the process ends in whatever way. It is made in the directory
// dir, os.TempDir if that is "".
func Temporary(dir string, k Key) (*Writer, error) {
	f, err := os.CreateTemp(dir, "narvault-spool-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file for %d bytes: %w (set TMPDIR to a directory with room)", k.Size, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &Writer{f: f, key: k}, nil
}

// temporary is Temporary, in the directory of the spool if possible: there is
// more room than in one of memory. If there is less, it is seen now: blocks may be
// read before the last one is written, so to begin anew elsewhere is too late then.
func (d *Dir) temporary(k Key) (*Writer, error) {
	if d == nil {
		return Temporary("", k)
	}
	dir := d.name
	if free(dir) < k.Size && free(os.TempDir()) >= k.Size {
		dir = ""
	}
	w, err := Temporary(dir, k)
	if err != nil {
		w, err = Temporary("", k)
	}
	if err == nil {
		w.d = d
	}
	return w, err
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// touch takes note that a file is used. It may fail: then the file goes earlier.
func touch(name string) {
	now := time.Now()
	os.Chtimes(name, now, now)
}
