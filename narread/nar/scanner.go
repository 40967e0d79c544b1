package nar

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	streamBuffer = 64 << 10 // of a scanner that reads a stream
	maxEmptyRead = 100      // reads in a row without a byte or an error
)

// A scanner takes the strings of a NAR from a stream through a buffer, and
// knows the offset of each.
type scanner struct {
	src  io.Reader
	jump *window // src, when it can leave out bytes; else nil
	buf  []byte
	r, w int   // buf[r:w] was read from src and is still to be used
	off  int64 // of buf[r] in the NAR
	err  error // what src returned after buf[:w]
}

// peek returns the next n bytes without using them; n is at most a target with
// its padding. They are valid until the next call of a method.
func (s *scanner) peek(n int) ([]byte, error) {
	for s.w-s.r < n {
		if err := s.more(); err != nil {
			return nil, err
		}
	}
	return s.buf[s.r : s.r+n], nil
}

// more reads at least one byte into the buffer, which is not full of unused
// ones.
func (s *scanner) more() error {
	if s.err != nil {
		return s.failed()
	}
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	n, err := s.readSource(s.buf[s.w:])
	s.w += n
	s.err = err
	if n == 0 {
		return s.failed()
	}
	return nil
}

// readSource reads at least one byte or returns an error.
func (s *scanner) readSource(p []byte) (int, error) {
	for range maxEmptyRead {
		n, err := s.src.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// failed returns s.err as the error of reading the NAR.
func (s *scanner) failed() error {
	end := s.off + int64(s.w-s.r)
	if s.err == io.EOF {
		return truncated(end)
	}
	return fmt.Errorf("read NAR at offset %d: %w", end, s.err)
}

// truncated returns the error for a NAR that ends at offset end.
func truncated(end int64) error {
	return &FormatError{Offset: end, Msg: "unexpected end", Err: io.ErrUnexpectedEOF}
}

// use moves over n bytes that peek returned.
func (s *scanner) use(n int) {
	s.r += n
	s.off += int64(n)
}

// at tells whether tag comes next.
func (s *scanner) at(tag string) (bool, error) {
	b, err := s.peek(len(tag))
	return string(b) == tag, err
}

// expect moves over seq, a sequence of tags, or says what is there instead.
func (s *scanner) expect(seq string) error {
	if b := s.buf[s.r:s.w]; len(b) >= len(seq) && string(b[:len(seq)]) == seq {
		s.use(len(seq))
		return nil
	}
	for len(seq) > 0 {
		n := 8 + int(padded(int64(seq[0])))
		if err := s.expectTag(seq[:n]); err != nil {
			return err
		}
		seq = seq[n:]
	}
	return nil
}

// expectTag is expect for one tag.
func (s *scanner) expectTag(tag string) error {
	b, err := s.peek(8)
	if err != nil {
		return err
	}
	word := tag[8 : 8+tag[0]]
	size := binary.LittleEndian.Uint64(b)
	if size > maxTag {
		return s.wrong("expected %q, got a string of %d bytes", word, size)
	}
	if b, err = s.peek(8 + int(padded(int64(size)))); err != nil {
		return err
	}
	if string(b) == tag {
		s.use(len(tag))
		return nil
	}
	if got := b[8 : 8+size]; string(got) != word {
		return s.wrong("expected %q, got %q", word, got)
	}
	return s.wrong("non-zero padding after %q", word)
}

// wrong returns a FormatError for what comes next.
func (s *scanner) wrong(format string, args ...any) error {
	return &FormatError{Offset: s.off, Msg: fmt.Sprintf(format, args...)}
}

// text appends the next string to dst and moves over it. Its length must be
// at most limit; what is how errors call it.
func (s *scanner) text(dst []byte, what string, limit int) ([]byte, error) {
	b, err := s.peek(8)
	if err != nil {
		return dst, err
	}
	size := binary.LittleEndian.Uint64(b)
	if size > uint64(limit) {
		return dst, s.wrong("a %s of %d bytes, allowed are %d", what, size, limit)
	}
	n, pad := int(size), padding(int64(size))
	if b, err = s.peek(8 + n + pad); err != nil {
		return dst, err
	}
	if !zeros(b[8+n:]) {
		return dst, s.wrong("non-zero padding after a %s", what)
	}
	dst = append(dst, b[8:8+n]...)
	s.use(8 + n + pad)
	return dst, nil
}

// pad moves over the padding of n bytes.
func (s *scanner) pad(n int64) error {
	b, err := s.peek(padding(n))
	if err != nil {
		return err
	}
	if !zeros(b) {
		return s.wrong("non-zero padding after contents")
	}
	s.use(len(b))
	return nil
}

// skip moves over n bytes of contents, without reading them where the source
// allows it.
func (s *scanner) skip(n int64) error {
	for {
		have := min(n, int64(s.w-s.r))
		s.use(int(have))
		if n -= have; n == 0 {
			return nil
		}
		if s.jump != nil && s.err == nil {
			if err := s.jump.skip(n); err != nil {
				return err
			}
			s.off += n
			return nil
		}
		if err := s.more(); err != nil {
			return err
		}
	}
}

// read reads contents into p, past the buffer when p is at least as large.
func (s *scanner) read(p []byte) (int, error) {
	if s.r == s.w && s.err == nil && len(p) >= len(s.buf) {
		n, err := s.readSource(p)
		s.off += int64(n)
		s.err = err
		if n == 0 {
			return 0, s.failed()
		}
		return n, nil
	}
	if s.r == s.w {
		if err := s.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.buf[s.r:s.w])
	s.use(n)
	return n, nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
