package narread

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// newLzma decodes an .lzma file, which Nix made of Compression: lzma, and which
// has no checksum.
func newLzma(r *bufio.Reader) (io.Reader, error) {
	return lzma.ReaderConfig{DictCap: maxWindow}.NewReader(r)
}

var errLzip = errors.New("invalid lzip member")

// lzip decodes an .lz file (lzip's manual, "File format"): members one behind the
// other, each of them
//
//	"LZIP", version 1, size of the dictionary, LZMA stream with an end marker,
//	u32 CRC-32 of the content, u64 its size, u64 size of the member
type lzip struct {
	in   countingReader
	dec  io.Reader // of the member, nil between members
	crc  hash.Hash32
	size uint64 // of the content of the member so far

	spare uint64 // bytes of dictionaries that members may still have
}

// Each member has a dictionary of its own, which takes time to make: thousands of
// tiny members with large ones would keep a decoder busy for hours. What a file
// may have beyond spareDict is by far more than compressors take for its size.
const (
	spareDict          = 1 << 30
	dictPerPackedByte  = 1024
	dictPerContentByte = 4
)

func newLzip(r *bufio.Reader) *lzip {
	return &lzip{in: countingReader{r: r}, spare: spareDict}
}

// Read implements io.Reader.
func (z *lzip) Read(p []byte) (int, error) {
	if z.dec == nil {
		if err := z.begin(); err != nil {
			return 0, err
		}
	}
	n, err := z.dec.Read(p)
	z.crc.Write(p[:n])
	z.size += uint64(n)
	if err == io.EOF {
		err = z.end()
	}
	return n, err
}

// begin takes the header of a member. At the end of the file it returns io.EOF.
func (z *lzip) begin() error {
	z.in.n = 0
	var h [6]byte
	if _, err := io.ReadFull(&z.in, h[:]); err != nil {
		return err
	}
	if string(h[:5]) != "LZIP\x01" {
		return errLzip
	}
	dict := int64(1) << (h[5] & 0x1f)
	dict -= dict / 16 * int64(h[5]>>5)
	if dict < 4<<10 || dict > maxWindow {
		return fmt.Errorf("%w: dictionary of %d bytes, at most %d are decoded", errLzip, dict, maxWindow)
	}
	if uint64(dict) > z.spare {
		return fmt.Errorf("%w: too many small ones with dictionaries of up to %d bytes", errLzip, dict)
	}
	z.spare -= uint64(dict)
	// The same stream as in an .lzma file, with fixed properties.
	head := binary.LittleEndian.AppendUint32([]byte{0x5d}, uint32(dict))
	head = binary.LittleEndian.AppendUint64(head, 1<<64-1)
	dec, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(&prefixed{head, &z.in})
	z.dec, z.crc, z.size = dec, crc32.NewIEEE(), 0
	return unexpected(err)
}

// end takes the trailer of a member.
func (z *lzip) end() error {
	z.dec = nil
	var t [20]byte
	if _, err := io.ReadFull(&z.in, t[:]); err != nil {
		return unexpected(err)
	}
	le := binary.LittleEndian
	if le.Uint32(t[:]) != z.crc.Sum32() || le.Uint64(t[4:]) != z.size || le.Uint64(t[12:]) != z.in.n {
		return fmt.Errorf("%w: its trailer does not fit", errLzip)
	}
	z.spare += dictPerPackedByte*z.in.n + dictPerContentByte*z.size
	return nil
}

// countingReader counts what is read.
type countingReader struct {
	r *bufio.Reader
	n uint64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += uint64(n)
	return n, err
}

func (c *countingReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// prefixed is a reader with some bytes before it. It reads no more than is asked
// for.
type prefixed struct {
	head []byte
	*countingReader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.countingReader.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}
