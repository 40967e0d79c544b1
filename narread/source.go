package narread

import (
	"fmt"
	"io"
)

// Source is a container file: read at any offset, by many at a time. If it is
// an io.Closer too, Archive.Close closes it.
type Source = io.ReaderAt

// file is a Source with what errors and limits need.
type file struct {
	src  Source
	size int64
	name string
}

// read fills p from off. A file that ends early is damage; what the medium
// says is passed on.
func (f *file) read(p []byte, off int64) error {
	n, err := f.src.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		return f.damage(-1, off, errTruncated)
	}
	return fmt.Errorf("read %s: %w", f.name, err)
}

// ReadAt implements io.ReaderAt, with the errors of read.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.read(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) damage(block int, off int64, err error) error {
	return &DamageError{File: f.name, Block: block, Offset: off, Err: err}
}

// fileReader reads a file in order, and remembers what went wrong below a
// decoder, which may hide it.
type fileReader struct {
	f   *file
	off int64
	err error // of the medium, or damage of the file as such
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	left := r.f.size - r.off
	if left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	if err := r.f.read(p, r.off); err != nil {
		r.err = err
		return 0, err
	}
	r.off += int64(len(p))
	return len(p), nil
}
