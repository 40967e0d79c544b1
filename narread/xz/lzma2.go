package xz

// lzma2 decodes the chunks of LZMA2:
//
//	chunk = 00                                      the end
//	      | 01 or 02, u16 size-1, content           stored; 01 resets the dictionary
//	      | control, u16 size-1, u16 packed-1 [, properties], LZMA data
//
// All integers are big endian. Bits 0 to 4 of control (80 and more) are the high
// bits of the size. Bits 5 and 6 say what is reset: 0 nothing, 1 the state, 2
// also the properties, 3 also the dictionary.
type lzma2 struct {
	lzma
	lc, lp, pb          uint32
	needDict, needProps bool // a chunk must reset these first
	dict                uint32

	// data is a chunk that has nothing behind it.
	data [1<<16 + maxSymbol]byte
}

// chunkHeader is the header of a chunk, without the properties.
type chunkHeader struct {
	control byte
	size    int // of the content
	packed  int // of the data that follow
}

const (
	resetState = 0xa0
	resetProps = 0xc0
	resetDict  = 0xe0

	maxChunkHeader = 6
	maxChunk       = 1 << 21 // content
)

func (h chunkHeader) stored() bool     { return h.control < 0x80 }
func (h chunkHeader) resetsDict() bool { return h.control == 1 || h.control >= resetDict }

// chunkHeaderSize returns the length of the header that begins with control.
func chunkHeaderSize(control byte) int {
	switch {
	case control == 0:
		return 1
	case control < 0x80:
		return 3
	case control < resetProps:
		return 5
	}
	return maxChunkHeader
}

// begin is called before the first chunk of a block.
func (d *lzma2) begin(dict uint32) { d.needDict, d.needProps, d.dict = true, true, dict }

// header takes the header of a chunk, and resets what it says.
func (d *lzma2) header(b []byte) (chunkHeader, error) {
	h := chunkHeader{control: b[0], size: int(b[1])<<8 + int(b[2]) + 1}
	h.packed = h.size
	if h.stored() && h.control > 2 {
		return h, errData
	}
	if !h.stored() {
		h.size += int(h.control&0x1f) << 16
		h.packed = int(b[3])<<8 + int(b[4]) + 1
	}
	if h.resetsDict() {
		d.needDict, d.needProps = false, true
	}
	if h.control >= resetProps {
		d.needProps = false
		if err := d.properties(b[5]); err != nil {
			return h, err
		}
	}
	if d.needDict || d.needProps && !h.stored() {
		return h, errData
	}
	if h.control >= resetState {
		d.reset(d.lc, d.lp, d.pb)
	}
	return h, nil
}

func (d *lzma2) properties(b byte) error {
	p := uint32(b)
	d.lc, d.lp, d.pb = p%9, p/9%5, p/45
	if d.pb > 4 || d.lc+d.lp > 4 {
		return errData
	}
	return nil
}

// content decodes a chunk, whose data src begins with, to all of buf[pos:].
func (d *lzma2) content(h chunkHeader, buf []byte, pos, base int, src []byte) error {
	if h.stored() {
		copy(buf[pos:], src)
		return nil
	}
	if len(src) < h.packed+maxSymbol {
		copy(d.data[:], src[:h.packed])
		src = d.data[:]
	}
	return d.chunk(buf, pos, base, d.dict, src, h.packed)
}

// flat decodes the chunks of a block, which are all of src[:end], to dst, which
// they must fill.
func (d *lzma2) flat(dst, src []byte, end int) error {
	pos, base, in := 0, 0, 0
	for in < end && src[in] != 0 {
		n := chunkHeaderSize(src[in])
		if n > end-in {
			return errData
		}
		h, err := d.header(src[in : in+n])
		if err != nil {
			return err
		}
		in += n
		if h.resetsDict() {
			base = pos
		}
		if h.size > len(dst)-pos || h.packed > end-in {
			return errData
		}
		if err := d.content(h, dst[:pos+h.size], pos, base, src[in:]); err != nil {
			return err
		}
		pos += h.size
		in += h.packed
	}
	if in+1 != end || pos != len(dst) {
		return errMismatch
	}
	return nil
}
