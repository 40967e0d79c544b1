package narread

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"compress/bzip2"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/narvault/narvault/narread/xz"
)

const (
	streamBuffer = 64 << 10

	// maxWindow is how much history a decoder may keep: what `zstd --long=27`
	// and xz presets need, and what Nix's decoder allows for zstd.
	maxWindow = 128 << 20
)

// stream decodes a container from its beginning to its end. It implements
// container for callers that ask for its blocks in order and one at a time:
// block i is the bytes from i*blockSize on.
type stream struct {
	fixed
	in   *fileReader
	buf  *bufio.Reader // between in and the decoder
	dec  io.Reader     // nil before the first block
	stop func()        // frees the decoder, or nil
	f    format
}

func newStream(f *file, fm format, narSize int64) *stream {
	return &stream{fixed: fixed{size: narSize, width: blockSize}, in: &fileReader{f: f}, f: fm}
}

// decode fills dst with the block that follows the one before. With the last
// block it checks that the container ends there too.
func (s *stream) decode(i int, dst []byte) (bool, error) {
	if err := guard(func() error { return s.next(i, dst) }); err != nil {
		return false, s.failed(err)
	}
	return false, nil
}

// failed returns the error of reading, which the decoder may have hidden, or
// what is wrong with the file.
func (s *stream) failed(err error) error {
	if s.in.err != nil {
		return s.in.err
	}
	var x *xz.Error
	if errors.As(err, &x) {
		return s.in.f.damage(-1, x.Offset, x.Err)
	}
	return s.in.f.damage(-1, s.in.off, err)
}

func (s *stream) next(i int, dst []byte) error {
	if s.dec == nil {
		if err := s.open(); err != nil {
			return unexpected(err)
		}
	}
	switch _, err := io.ReadFull(s.dec, dst); err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		return errTooShort
	default:
		return err
	}
	if i+1 < s.count() {
		return nil
	}
	return s.end()
}

// end checks that nothing follows the last block.
func (s *stream) end() error {
	var one [1]byte
	switch n, err := io.ReadFull(s.dec, one[:]); {
	case n > 0:
		return errTooLong
	case err != io.EOF:
		return err
	case s.in.off < s.in.f.size || s.buf.Buffered() > 0:
		return errGarbage
	}
	return nil
}

// open makes the decoder.
func (s *stream) open() (err error) {
	s.buf = bufio.NewReaderSize(s.in, streamBuffer)
	switch s.f {
	case formatZstd:
		s.dec, err = s.openZstd()
	case formatXz:
		s.dec = xz.NewReader(s.buf, maxWindow)
	case formatBzip2:
		s.dec = bzip2.NewReader(s.buf)
	case formatGzip:
		s.dec, err = gzip.NewReader(s.buf)
	case formatBr:
		s.dec = brotli.NewReader(s.buf)
	case formatLzma:
		s.dec, err = newLzma(s.buf)
	case formatLzip:
		s.dec = newLzip(s.buf)
	case formatLz4:
		s.dec = lz4.NewReader(s.buf)
	default:
		err = fmt.Errorf("no decoder for %s", s.f)
	}
	return err
}

func (s *stream) openZstd() (io.Reader, error) {
	// Concurrency 1 decodes on the caller's goroutine: nothing to leak, and a panic
	// can be caught. MaxMemory bounds a frame that is one segment.
	d, err := zstd.NewReader(s.buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
	if err != nil {
		return nil, err
	}
	s.stop = d.Close
	return d, nil
}

func (s *stream) close() {
	if s.stop != nil {
		s.stop()
	}
}

// unexpected is for places where an end is an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
