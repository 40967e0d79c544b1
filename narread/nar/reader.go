package nar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// ReaderOptions say how a Reader reads. The zero value is tolerant.
type ReaderOptions struct {
	// Strict refuses what the newest Nix refuses. Without it such a NAR is
	// read as far as Nix 2.8 would restore it, and Deviation tells of it.
	Strict bool
}

// A Reader reads a NAR from a stream, node after node in the order in which
// they are stored: a directory before what is in it. It is used like a reader
// of archive/tar. Its memory is bounded whatever the NAR says; it is not safe
// for concurrent use.
//
// A tolerant Reader refuses a name that follows itself, but does not remember
// all names of an unsorted directory: that no name is there twice is checked
// where a [Listing] is made.
type Reader struct {
	s         scanner
	strict    bool
	state     readerState
	open      []openDir // the directories that what comes next is in
	cur       node      // made by advance
	left      int64     // bytes of contents that were not read
	scratch   []byte
	deviation error
	err       error // what Next returns from now on
}

type readerState uint8

const (
	atStart     readerState = iota
	inDirectory             // an entry or the end of the innermost directory comes next
	inContents              // the contents of cur come next
	atEnd
)

// An openDir is a directory whose end was not yet read.
type openDir struct {
	last []byte // name of its entry that was read last
}

// A node is a Header whose strings are the Reader's, valid until it advances.
type node struct {
	depth        int
	typ          Type
	executable   bool
	size, offset int64
	name, target []byte
}

// NewReader returns a Reader of the NAR that r is at. It reads through a
// buffer, so that more of r may have been read than the NAR has bytes:
// Buffered returns what was.
func NewReader(r io.Reader, o ReaderOptions) *Reader {
	return &Reader{strict: o.Strict, s: scanner{src: r, buf: make([]byte, streamBuffer)}}
}

// Next moves to the next node, over what was not read of the contents of the
// current one. The end of a directory shows as a smaller Depth. After the
// end of the root it returns io.EOF; bytes behind it are not looked at.
//
// Other errors are a *FormatError if the NAR is wrong or ends early
// (io.ErrUnexpectedEOF), else the wrapped error of the underlying reader. They
// are returned again by every later call.
func (r *Reader) Next() (Header, error) {
	if err := r.advance(); err != nil {
		return Header{}, err
	}
	n := &r.cur
	return Header{
		Depth:      n.depth,
		Name:       string(n.name),
		Type:       n.typ,
		Executable: n.executable,
		Size:       n.size,
		Offset:     n.offset,
		Target:     string(n.target),
	}, nil
}

// Read reads from the contents of the current node and returns io.EOF at their
// end, and for what is not a regular file. Whether they are padded as they
// should is seen by Next.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil && r.err != io.EOF:
		return 0, r.err
	case r.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	n, err := r.s.read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.err = err
	return n, err
}

// Offset returns the offset in the NAR of what is read next. After Next has
// returned io.EOF that is the size of the NAR.
func (r *Reader) Offset() int64 { return r.s.off }

// Buffered returns what was read from the underlying reader behind Offset. The
// slice is valid until the next call of Next or Read.
func (r *Reader) Buffered() []byte { return r.s.buf[r.s.r:r.s.w] }

// Deviation returns the first thing that a tolerant Reader has met so far and
// a strict one would have refused, a *FormatError, or nil.
func (r *Reader) Deviation() error { return r.deviation }

// advance is Next without a Header: it sets r.cur.
func (r *Reader) advance() error {
	if r.err == nil {
		r.err = r.step()
	}
	return r.err
}

func (r *Reader) step() error {
	switch r.state {
	case atStart:
		if err := r.magic(); err != nil {
			return err
		}
		return r.node(0, nil)
	case inContents:
		if err := r.endContents(); err != nil {
			return err
		}
	}
	return r.nextEntry()
}

// magic moves over the start of a NAR.
func (r *Reader) magic() error {
	if is, err := r.s.at(tagMagic); err == nil && !is {
		return r.s.wrong("not a NAR: it does not start with %q", tagMagic[8:8+tagMagic[0]])
	}
	return r.s.expect(seqRoot)
}

// endContents moves over the rest of the contents, and what closes their node.
func (r *Reader) endContents() error {
	if err := r.s.skip(r.left); err != nil {
		return err
	}
	r.left = 0
	if err := r.s.pad(r.cur.size); err != nil {
		return err
	}
	return r.endNode()
}

// endNode moves over what closes a node, in r.open unless it is the root.
func (r *Reader) endNode() error {
	if len(r.open) == 0 {
		r.state = atEnd
		return r.s.expect(tagClose)
	}
	r.state = inDirectory
	return r.s.expect(seqEntryEnd)
}

// nextEntry closes the directories that end here and starts the next entry.
func (r *Reader) nextEntry() error {
	for r.state == inDirectory {
		end, err := r.s.at(tagClose)
		if err != nil {
			return err
		}
		if !end {
			return r.entry()
		}
		r.open = r.open[:len(r.open)-1]
		if err := r.endNode(); err != nil {
			return err
		}
	}
	return io.EOF
}

// entry reads an entry of the innermost directory up to what is in its node.
func (r *Reader) entry() error {
	if err := r.s.expect(seqEntry); err != nil {
		return err
	}
	if err := r.name(); err != nil {
		return err
	}
	dir := &r.open[len(r.open)-1]
	if err := r.s.expect(seqNode); err != nil {
		return err
	}
	return r.node(len(r.open), dir.last)
}

// name reads the name of an entry into the innermost directory.
func (r *Reader) name() error {
	at := r.s.off
	name, err := r.s.text(r.scratch[:0], "name", MaxName)
	if err != nil {
		return err
	}
	r.scratch = name
	if p := nameProblem(name); p != "" {
		return &FormatError{Offset: at, Msg: p}
	}
	dir := &r.open[len(r.open)-1]
	switch bytes.Compare(name, dir.last) {
	case 0:
		return &FormatError{Offset: at, Msg: fmt.Sprintf("the name %q twice", name)}
	case -1:
		err = r.deviate(at, "directory is not sorted: %q after %q", name, dir.last)
	}
	dir.last = append(dir.last[:0], name...)
	return err
}

// deviate returns what a strict Reader refuses, and only remembers it in a
// tolerant one.
func (r *Reader) deviate(at int64, format string, args ...any) error {
	if !r.strict && r.deviation != nil {
		return nil
	}
	err := &FormatError{Offset: at, Msg: fmt.Sprintf(format, args...)}
	if r.strict {
		return err
	}
	r.deviation = err
	return nil
}

// node reads a node from its type on: all of it but contents and entries.
func (r *Reader) node(depth int, name []byte) error {
	if err := r.checkDepth(depth); err != nil {
		return err
	}
	r.cur = node{depth: depth, name: name, target: r.cur.target[:0]}
	tag, err := r.s.peek(len(tagRegular))
	if err != nil {
		return err
	}
	switch string(tag) {
	case tagRegular:
		r.s.use(len(tagRegular))
		return r.regular()
	case tagSymlink:
		r.s.use(len(tagSymlink))
		return r.symlink()
	case tagDirectory[:len(tagRegular)]:
		return r.directory()
	}
	return r.s.expectTag(tagRegular) // it is not: for the error
}

func (r *Reader) checkDepth(depth int) error {
	if depth > MaxDepth {
		return r.s.wrong("nested %d deep", depth)
	}
	if depth >= StrictDepth {
		return r.deviate(r.s.off, "nested %d deep, allowed is less than %d", depth, StrictDepth)
	}
	return nil
}

func (r *Reader) regular() error {
	r.cur.typ = Regular
	plain, err := r.s.at(tagContents)
	if err != nil {
		return err
	}
	if !plain {
		if err := r.s.expect(seqExecutable); err != nil {
			return err
		}
		r.cur.executable = true
	}
	if err := r.s.expect(tagContents); err != nil {
		return err
	}
	b, err := r.s.peek(8)
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(b)
	if size > math.MaxInt64/2 {
		return r.s.wrong("contents of %d bytes", size)
	}
	r.s.use(8)
	r.cur.size, r.cur.offset = int64(size), r.s.off
	r.left = int64(size)
	r.state = inContents
	return nil
}

func (r *Reader) symlink() error {
	r.cur.typ = Symlink
	if err := r.s.expect(tagTarget); err != nil {
		return err
	}
	at := r.s.off
	target, err := r.s.text(r.cur.target, "target", MaxTarget)
	if err != nil {
		return err
	}
	if len(target) == 0 {
		return &FormatError{Offset: at, Msg: "an empty target"}
	}
	if bytes.IndexByte(target, 0) >= 0 {
		return &FormatError{Offset: at, Msg: fmt.Sprintf("the target %q contains NUL", target)}
	}
	r.cur.target = target
	return r.endNode()
}

func (r *Reader) directory() error {
	r.cur.typ = Directory
	if err := r.s.expect(tagDirectory); err != nil {
		return err
	}
	n := len(r.open)
	if n < cap(r.open) {
		r.open = r.open[:n+1]
		r.open[n].last = r.open[n].last[:0]
	} else {
		r.open = append(r.open, openDir{})
	}
	r.state = inDirectory
	return nil
}
