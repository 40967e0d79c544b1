package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	firstBuffer = 32 << 10  // of a Writer: all that most NARs need
	largeBuffer = 256 << 10 // of a Writer from the first time the other is full
)

// ErrTooLong is returned for a write beyond the size in the header.
var ErrTooLong = errors.New("write too long")

// A Writer writes a NAR node after node, in the order in which a Reader
// returns them. What it writes, strict readers accept: it refuses anything
// else. It is not safe for concurrent use.
//
// After an error the NAR cannot be completed: every call returns that error.
type Writer struct {
	w       io.Writer
	depth   int // that is refused
	buf     []byte
	n       int      // bytes of buf that are used
	open    []string // of each directory that is open the last name
	started bool
	cur     Type  // of the current node
	left    int64 // bytes of contents to be written
	pad     int   // zeros after them
	err     error
}

// NewWriter returns a Writer that writes a NAR to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, depth: StrictDepth, buf: make([]byte, firstBuffer)}
}

// WriteHeader starts the next node, after the contents of the current one were
// written. Its Depth says which directories end before it. Offset is not
// looked at.
func (w *Writer) WriteHeader(h Header) error {
	if w.err == nil {
		w.err = w.header(&h)
	}
	return w.err
}

func (w *Writer) header(h *Header) error {
	if p := w.refuses(h); p != "" {
		return fmt.Errorf("write NAR: %q: %s", h.Name, p)
	}
	if err := w.closeTo(h.Depth); err != nil {
		return err
	}
	if h.Depth == 0 {
		w.started = true
		w.put(seqRoot)
	} else {
		w.open[h.Depth-1] = h.Name
		w.put(seqEntry)
		w.text(h.Name)
		w.put(seqNode)
	}
	w.node(h)
	return w.err
}

// refuses says why h cannot come next, or "".
func (w *Writer) refuses(h *Header) string {
	switch {
	case h.Depth >= w.depth:
		return fmt.Sprintf("nested %d deep, allowed is less than %d", h.Depth, w.depth)
	case h.Depth > len(w.open):
		return fmt.Sprintf("nested %d deep in a directory of depth %d", h.Depth, len(w.open)-1)
	case (h.Depth == 0) == w.started:
		return "not one root first"
	}
	if p := h.problem(); p != "" {
		return p
	}
	if h.Depth > 0 && h.Name <= w.open[h.Depth-1] {
		return fmt.Sprintf("does not sort after %q", w.open[h.Depth-1])
	}
	return ""
}

// node writes a node from its type on: all of it but contents and entries.
func (w *Writer) node(h *Header) {
	w.cur = h.Type
	switch h.Type {
	case Directory:
		w.put(tagDirectory)
		w.open = append(w.open, "")
	case Symlink:
		w.put(tagSymlink + tagTarget)
		w.text(h.Target)
	case Regular:
		w.put(tagRegular)
		if h.Executable {
			w.put(seqExecutable)
		}
		w.put(tagContents)
		w.number(uint64(h.Size))
		w.left, w.pad = h.Size, padding(h.Size)
	}
}

// closeTo ends the current node and then directories until depth are open.
func (w *Writer) closeTo(depth int) error {
	if w.left > 0 {
		return fmt.Errorf("write NAR: contents are %d bytes short: %w", w.left, io.ErrUnexpectedEOF)
	}
	w.put(zero7[:w.pad])
	w.pad = 0
	if w.cur == Regular || w.cur == Symlink {
		w.endNode()
	}
	w.cur = 0
	for len(w.open) > depth {
		w.open = w.open[:len(w.open)-1]
		w.endNode()
	}
	return w.err
}

// endNode ends a node that is in w.open unless it is the root.
func (w *Writer) endNode() {
	if len(w.open) == 0 {
		w.put(tagClose)
	} else {
		w.put(seqEntryEnd)
	}
}

// Write writes contents of the current node. Beyond the size in its header it
// returns ErrTooLong, wrapped.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		w.err = fmt.Errorf("write NAR: contents are longer than their header says: %w", ErrTooLong)
		return 0, w.err
	}
	if len(p) < len(w.buf)-w.n {
		w.n += copy(w.buf[w.n:], p)
	} else if w.flush(); w.err == nil {
		_, w.err = w.w.Write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	w.left -= int64(len(p))
	return len(p), nil
}

// Close ends the NAR, which must be complete, and writes what is buffered. It
// does not close the underlying writer. Further calls return an error.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if !w.started {
		w.err = errors.New("write NAR: nothing was written")
		return w.err
	}
	if w.err = w.closeTo(0); w.err != nil {
		return w.err
	}
	if w.flush(); w.err != nil {
		return w.err
	}
	w.err = errors.New("write NAR: it is closed")
	return nil
}

// put writes s. Errors stay in w.err.
func (w *Writer) put(s string) {
	for len(s) > len(w.buf)-w.n {
		n := copy(w.buf[w.n:], s)
		w.n += n
		s = s[n:]
		if w.flush(); w.err != nil {
			return
		}
	}
	w.n += copy(w.buf[w.n:], s)
}

func (w *Writer) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	w.put(string(b[:]))
}

// text writes a string of the format.
func (w *Writer) text(s string) {
	w.number(uint64(len(s)))
	w.put(s)
	w.put(zero7[:padding(int64(len(s)))])
}

// flush writes what is buffered, and makes the buffer larger: this is not one
// of the many small NARs.
func (w *Writer) flush() {
	if w.err == nil && w.n > 0 {
		_, w.err = w.w.Write(w.buf[:w.n])
	}
	w.n = 0
	if len(w.buf) < largeBuffer {
		w.buf = make([]byte, largeBuffer)
	}
}

// room returns the part of the buffer that is free, to be filled with at most
// w.left bytes of contents and given to filled. It is at least enough bytes,
// or half of the buffer.
func (w *Writer) room(enough int64) ([]byte, error) {
	if int64(len(w.buf)-w.n) < min(enough, int64(len(w.buf)/2)) {
		w.flush()
	}
	return w.buf[w.n:], w.err
}

// filled takes the first n bytes of what room returned as contents.
func (w *Writer) filled(n int) {
	w.n += n
	w.left -= int64(n)
}
