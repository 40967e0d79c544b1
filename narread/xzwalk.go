package narread

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// xzWalk follows the structure of the .xz file that is written to it (the .xz
// file format 1.2.0, and the LZMA2 chunks in its blocks), without decoding. It
// is there for what ulikunitz/xz lets pass: a dictionary of up to 4 GiB, which
// the decoder would allocate, and a file that is cut off between two blocks.
type xzWalk struct {
	step  func(*xzWalk, []byte) error // takes the next need bytes
	need  int
	have  []byte
	skip  int64 // bytes to pass over before have
	ended bool  // between streams

	check   int64 // size of the check of a block
	packed  int64 // bytes of the block's compressed data so far
	records uint64
	index   int64 // bytes of the index so far
}

var (
	errXzFormat  = errors.New("xz: invalid structure")
	errXzEnd     = errors.New("xz: file is cut off")
	errXzFilters = errors.New("xz: unsupported filters")
)

func newXzWalk() *xzWalk {
	w := &xzWalk{}
	w.expect(12, (*xzWalk).streamHeader)
	return w
}

// Write takes the next bytes of the file.
func (w *xzWalk) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.skip > 0 {
			c := min(w.skip, int64(len(p)))
			w.skip -= c
			p = p[c:]
			continue
		}
		c := min(w.need-len(w.have), len(p))
		w.have = append(w.have, p[:c]...)
		p = p[c:]
		if len(w.have) < w.need {
			break
		}
		b := w.have
		w.have = w.have[:0]
		if err := w.step(w, b); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// end is called when the file has ended.
func (w *xzWalk) end() error {
	if !w.ended || len(w.have) > 0 || w.skip > 0 {
		return errXzEnd
	}
	return nil
}

func (w *xzWalk) expect(n int, step func(*xzWalk, []byte) error) { w.need, w.step = n, step }

func (w *xzWalk) streamHeader(b []byte) error {
	if string(b[:6]) != "\xfd7zXZ\x00" || b[6] != 0 || b[7] > 15 {
		return errXzFormat
	}
	w.ended, w.records = false, 0
	w.check = [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]]
	w.expect(1, (*xzWalk).blockStart)
	return nil
}

func (w *xzWalk) blockStart(b []byte) error {
	if b[0] == 0 {
		w.index = 1
		w.expect(1, (*xzWalk).indexByte)
		return nil
	}
	w.records++
	w.expect((int(b[0])+1)*4-1, (*xzWalk).blockHeader)
	return nil
}

// blockHeader takes what follows the size byte, CRC32 included.
func (w *xzWalk) blockHeader(b []byte) error {
	flags := b[0]
	if flags&0x3f != 0 { // reserved bits, or more than one filter
		return errXzFilters
	}
	b = b[1:]
	for range int(flags>>6&1) + int(flags>>7) { // compressed and uncompressed size
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return errXzFormat
		}
		b = b[n:]
	}
	if len(b) < 3 || b[0] != 0x21 || b[1] != 1 {
		return errXzFilters
	}
	if d := xzDictionary(b[2]); d > maxWindow {
		return fmt.Errorf("xz: dictionary of %d bytes, at most %d are decoded", d, maxWindow)
	}
	w.packed = 0
	w.expect(1, (*xzWalk).chunk)
	return nil
}

// xzDictionary decodes the dictionary size of an LZMA2 filter.
func xzDictionary(b byte) int64 {
	return (2 | int64(b&1)) << (b&0x3f/2 + 11)
}

// chunk takes the control byte of an LZMA2 chunk.
func (w *xzWalk) chunk(b []byte) error {
	w.packed++
	switch c := b[0]; {
	case c == 0:
		w.skip = -w.packed&3 + w.check
		w.expect(1, (*xzWalk).blockStart)
	case c <= 2:
		w.expect(2, (*xzWalk).rawChunk)
	case c < 0x80:
		return errXzFormat
	case c < 0xc0:
		w.expect(4, (*xzWalk).packedChunk)
	default: // a properties byte follows the sizes
		w.expect(5, (*xzWalk).packedChunk)
	}
	return nil
}

func (w *xzWalk) rawChunk(b []byte) error {
	w.nextChunk(len(b), int64(binary.BigEndian.Uint16(b))+1)
	return nil
}

func (w *xzWalk) packedChunk(b []byte) error {
	w.nextChunk(len(b), int64(binary.BigEndian.Uint16(b[2:]))+1)
	return nil
}

func (w *xzWalk) nextChunk(header int, data int64) {
	w.packed += int64(header) + data
	w.skip = data
	w.expect(1, (*xzWalk).chunk)
}

// indexByte takes the number of records, of which each is two numbers. Their
// values are the decoder's to check.
func (w *xzWalk) indexByte(b []byte) error {
	w.index++
	if b[0]&0x80 != 0 {
		return nil // the number goes on
	}
	left := 2 * w.records
	w.expect(1, func(w *xzWalk, b []byte) error { return w.record(b, &left) })
	if left == 0 {
		return w.indexEnd()
	}
	return nil
}

func (w *xzWalk) record(b []byte, left *uint64) error {
	w.index++
	if b[0]&0x80 != 0 {
		return nil
	}
	if *left--; *left > 0 {
		return nil
	}
	return w.indexEnd()
}

// indexEnd passes over padding and CRC32.
func (w *xzWalk) indexEnd() error {
	w.skip = -w.index&3 + 4
	w.expect(12, (*xzWalk).footer)
	return nil
}

func (w *xzWalk) footer(b []byte) error {
	if string(b[10:]) != "YZ" {
		return errXzFormat
	}
	w.ended = true
	w.expect(4, (*xzWalk).padding)
	return nil
}

// padding takes four bytes between two streams.
func (w *xzWalk) padding(b []byte) error {
	if binary.LittleEndian.Uint32(b) == 0 {
		return nil
	}
	w.ended = false
	w.have = append(w.have, b...) // b is the beginning of w.have
	w.expect(12, (*xzWalk).streamHeader)
	return nil
}
