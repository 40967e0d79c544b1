package xz

import (
	"bufio"
	"errors"
	"io"
)

// Reader decodes a file in order, all its streams and up to its end. It reads
// nothing behind that: what follows a stream and is neither padding nor another
// stream is an error. It is for one goroutine at a time.
type Reader struct {
	in        input
	maxWindow int64
	err       error // remembered

	check Check // of the stream
	tally tally // of the stream
	block *blockReader
	data  chunkReader // of all blocks
	begun bool        // a stream has been begun
}

// maxDict bounds the dictionary of a Reader.
const maxDict = 1 << 29

// NewReader returns a Reader of r. A block whose dictionary is larger than
// maxWindow bytes, or than 512 MiB, is not supported. Memory for it grows with
// what is decoded, to 1.25 times the dictionary and 2 MiB at most.
func NewReader(r io.Reader, maxWindow int64) *Reader {
	z := &Reader{in: input{r: bufio.NewReaderSize(r, 64<<10)}, maxWindow: min(maxWindow, maxDict)}
	z.data.in = &z.in
	return z
}

// Read implements io.Reader. What it returns has been compared with the check
// of its block only when Read has gone on behind that block. At the end of the
// file everything has been verified.
func (z *Reader) Read(p []byte) (int, error) {
	for z.err == nil && len(p) > 0 {
		if z.block == nil {
			z.err = z.next()
			continue
		}
		n, err := z.block.Read(p)
		if err == io.EOF {
			err = z.endBlock()
		}
		z.err = z.located(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

// located adds the offset to an error that is not of the medium.
func (z *Reader) located(err error) error {
	var e *Error
	if err == nil || err == io.EOF || errors.As(err, &e) || z.in.err != nil && z.in.err != io.ErrUnexpectedEOF {
		return err
	}
	return &Error{z.in.off, err}
}

// next comes to the next block, or to the end of the file.
func (z *Reader) next() error {
	if !z.begun {
		if err := z.beginStream(); err != nil {
			return z.located(err)
		}
	}
	at := z.in.off
	c, err := z.in.byte()
	switch {
	case err != nil:
	case c == 0:
		err = z.endStream(at)
	default:
		err = z.beginBlock(c)
	}
	return z.located(err)
}

// beginStream takes a stream's header, and the padding before it unless it is
// the first. At the end of the file it returns io.EOF.
func (z *Reader) beginStream() error {
	var b [streamHeaderSize]byte
	for {
		if z.in.off > 0 && z.in.ended() {
			return io.EOF
		}
		if err := z.in.full(b[:4]); err != nil {
			return err
		}
		if z.in.off == 4 || !zero(b[:4]) {
			break
		}
	}
	at := z.in.off - 4
	if string(b[:4]) != string(streamMagic[:4]) {
		return &Error{at, errMagic}
	}
	if err := z.in.full(b[4:]); err != nil {
		return err
	}
	check, err := parseStreamHeader(b[:])
	if err != nil {
		return &Error{at, err}
	}
	z.check, z.tally, z.begun = check, tally{}, true
	return nil
}

// beginBlock takes a block's header, of which c is the first byte.
func (z *Reader) beginBlock(c byte) error {
	at := z.in.off - 1
	b := make([]byte, blockHeaderSize(c))
	b[0] = c
	if err := z.in.full(b[1:]); err != nil {
		return err
	}
	h, err := parseBlockHeader(b)
	if err == nil && int64(h.dict) > z.maxWindow {
		err = unsupported("dictionary of %d bytes, at most %d are decoded", h.dict, z.maxWindow)
	}
	if err != nil {
		return &Error{at, err}
	}
	z.data.beginBlock(h.dict)
	z.block = newBlockReader(h, &z.data, z.check)
	return nil
}

// endBlock takes what follows a block's data, and verifies it.
func (z *Reader) endBlock() error {
	b := z.block
	z.block = nil
	if !b.header.matches(z.data.packed, b.size) {
		return errMismatch
	}
	var buf [3 + maxCheck]byte
	pad := padding(z.data.packed)
	check := buf[pad : pad+z.check.Size()]
	if err := z.in.full(buf[:pad+len(check)]); err != nil {
		return err
	}
	if !zero(buf[:pad]) {
		return errPadding
	}
	if !b.checker.matches(check) {
		return errCheck
	}
	z.tally.add(int64(b.header.size)+z.data.packed+int64(len(check)), b.size)
	return nil
}

// endStream takes the index, which begins at the given offset, and the footer.
func (z *Reader) endStream(at int64) error {
	z.begun = false
	if err := z.tally.readIndex(&z.in); err != nil {
		return z.located(err)
	}
	size := z.in.off - at
	var b [streamHeaderSize]byte
	if err := z.in.full(b[:]); err != nil {
		return err
	}
	check, indexSize, err := parseFooter(b[:])
	if err == nil && (check != z.check || indexSize != size) {
		err = errStream
	}
	if err != nil {
		return &Error{z.in.off - streamHeaderSize, err}
	}
	return nil
}

// blockReader gives the content of one block.
type blockReader struct {
	header  blockHeader
	checker checker
	out     io.Reader // the last of the chain of filters
	size    int64     // so far
}

func newBlockReader(h blockHeader, data io.Reader, c Check) *blockReader {
	b := &blockReader{header: h, checker: newChecker(c), out: data}
	for _, f := range h.filters {
		b.out = newFilterReader(b.out, f)
	}
	return b
}

func (b *blockReader) Read(p []byte) (int, error) {
	n, err := b.out.Read(p)
	b.checker.write(p[:n])
	b.size += int64(n)
	return n, err
}

// input is a file that is read in order.
type input struct {
	r   *bufio.Reader
	off int64
	err error
}

// full fills b. The end of the file is io.ErrUnexpectedEOF.
func (in *input) full(b []byte) error {
	n, err := io.ReadFull(in.r, b)
	in.off += int64(n)
	in.err = unexpected(err)
	return in.err
}

func (in *input) byte() (byte, error) {
	c, err := in.r.ReadByte()
	if err != nil {
		in.err = unexpected(err)
		return 0, in.err
	}
	in.off++
	return c, nil
}

// ended reports whether the file ends here.
func (in *input) ended() bool {
	_, err := in.r.Peek(1)
	return err == io.EOF
}
