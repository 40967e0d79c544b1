package spool

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Writer takes the NAR that Acquire wants decoded, in order. It is closed by
// Commit or Abort. What has been written can be read at the same time.
type Writer struct {
	f    *os.File
	d    *Dir // nil: there is none
	key  Key
	kept bool // in d, for all; else a temporary file
}

// A WriteError says that the spool took no more.
type WriteError struct {
	Size int64 // of the NAR
	Err  error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("write the spool file, of %d bytes in all: %v (make room, or set XDG_CACHE_HOME or TMPDIR to a directory that has it)", e.Size, e.Err)
}

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// Write appends to the NAR. Errors are *WriteError.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if w.kept {
		w.d.step("block written")
	}
	if err != nil {
		return n, &WriteError{Size: w.key.Size, Err: err}
	}
	return n, nil
}

// Commit makes what was written, of which the NarHash must have been verified
// and sums made, available to all, and returns it. It works also when that
// fails: then the file is this process's own.
func (w *Writer) Commit(sums Sums) *File {
	f := &File{f: w.f, key: w.key, sums: sums}
	if w.d == nil {
		return f
	}
	err := w.d.saveSums(w.key, sums)
	if !w.kept {
		return f
	}
	final := w.d.path(w.key, narExt)
	if err == nil {
		err = os.Rename(w.f.Name(), final)
	}
	w.d.step("nar published")
	if err != nil {
		os.Remove(w.f.Name())
		return f
	}
	f.name = final
	flock(w.f, unix.LOCK_SH) // others may read it from now on
	return f
}

// Abort gives up.
func (w *Writer) Abort() error {
	if w.kept {
		os.Remove(w.f.Name()) // while it is locked: nobody else can have taken it over
	}
	return w.f.Close()
}

// Forsake is Abort, but what has been written can still be read until Abort.
func (w *Writer) Forsake() {
	if w.kept {
		os.Remove(w.f.Name())
		w.kept = false
	}
}

// ReadAt reads what has been written.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) { return w.f.ReadAt(p, off) }

// File is a whole NAR. Its content has to be compared with Sums when it is read.
type File struct {
	f    *os.File
	key  Key
	name string // "" for that of f
	sums Sums
}

// Sums returns what the blocks must be. It must not be changed.
func (f *File) Sums() Sums { return f.sums }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	if n < len(p) && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // it was cut off behind our back
	}
	return n, err
}

// Discard removes a file of the spool that is not what its sums say.
func (f *File) Discard() {
	name := f.name
	if name == "" {
		name = f.f.Name()
	}
	w := Writer{f: f.f}
	at, err := os.Lstat(name)
	if err != nil {
		return
	}
	if open, err := w.f.Stat(); err == nil && os.SameFile(at, open) {
		os.Remove(name)
	}
}

// Close closes the file. It stays in the spool.
func (f *File) Close() error { return f.f.Close() }
