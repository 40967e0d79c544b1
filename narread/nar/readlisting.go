package nar

import (
	"fmt"
	"io"
	"math"
)

const (
	smallWindow = 4 << 10
	largeWindow = 16 << 10
)

// ReadListing returns the listing of the NAR that r holds from its first to
// its last byte, size in all. It is tolerant; Listing.Deviation tells what a
// strict reader would have refused. Contents are left out: it reads about 4 KiB
// for each large file, and small files together.
//
// Errors are as those of Reader.Next. It does not call r concurrently.
func ReadListing(r io.ReaderAt, size int64) (*Listing, error) {
	w := &window{src: r, size: size, step: smallWindow}
	nr := &Reader{s: scanner{src: w, jump: w, buf: make([]byte, largeWindow)}}
	l, err := nr.Listing()
	if err != nil {
		return nil, err
	}
	if nr.Offset() != size {
		return nil, &FormatError{Offset: nr.Offset(), Msg: fmt.Sprintf("%d more bytes after its end", size-nr.Offset())}
	}
	return l, nil
}

// Listing reads the nodes that follow, all of them when it is called before
// Next, and returns their listing. Its errors are those of Next, and a
// *FormatError when a directory has two entries of one name. While it is made
// a listing takes about 110 bytes an entry, less than an entry has in the NAR:
// who limits the size of the NAR limits the memory. Large ones are made one at
// a time, so it may wait for another one.
func (r *Reader) Listing() (*Listing, error) { return r.ListingWithin(math.MaxInt32) }

// ListingWithin is Listing for whoever cannot limit the size of the NAR: where
// there are more than limit entries it stops, and returns nil without an error.
func (r *Reader) ListingWithin(limit int) (*Listing, error) {
	var b Builder
	var large largeListing
	defer large.done()
	for n := 0; ; n++ {
		err := r.advance()
		if err == io.EOF {
			break
		}
		if err == nil && n == limit {
			return nil, nil
		}
		if err == nil {
			large.grown(b.memSize())
			err = b.addNode(&r.cur)
		}
		if err != nil {
			return nil, err
		}
	}
	l, err := b.Listing()
	if err != nil {
		return nil, err
	}
	l.deviation = r.deviation
	return l, nil
}

// A window reads an io.ReaderAt in order, and can leave out bytes. It reads
// more at a time where little is left out.
type window struct {
	src  io.ReaderAt
	size int64
	off  int64 // of what is read next
	step int   // how much to read next
}

// Read reads what comes next, at most w.step bytes.
func (w *window) Read(p []byte) (int, error) {
	left := w.size - w.off
	if left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), int64(w.step), left)]
	n, err := w.src.ReadAt(p, w.off)
	w.off += int64(n)
	w.step = min(2*w.step, largeWindow)
	if n == len(p) {
		err = nil // io.ReaderAt may return io.EOF at its end
	}
	return n, err
}

// skip leaves out n bytes, which is an error when there are not so many.
func (w *window) skip(n int64) error {
	if n > w.size-w.off {
		return truncated(w.size)
	}
	if n > largeWindow {
		w.step = smallWindow
	}
	w.off += n
	return nil
}
