package xz

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	streamHeaderSize = 12 // also of the footer
	maxBlockHeader   = 1024
	maxNumber        = 1<<63 - 1
)

var streamMagic = [6]byte{0xfd, '7', 'z', 'X', 'Z', 0}

// parseStreamHeader returns the check of a stream.
func parseStreamHeader(b []byte) (Check, error) {
	if [6]byte(b) != streamMagic {
		return 0, errMagic
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return 0, errStream
	}
	return parseStreamFlags(b[6:])
}

func parseStreamFlags(b []byte) (Check, error) {
	if b[0] != 0 || b[1] > 15 {
		return 0, unsupported("stream flags %#x", b[:2])
	}
	return Check(b[1]), nil
}

// parseFooter returns the check of a stream, and the size of its index.
func parseFooter(b []byte) (Check, int64, error) {
	if string(b[10:12]) != "YZ" {
		return 0, 0, errFooter
	}
	if crc32.ChecksumIEEE(b[4:10]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, errStream
	}
	check, err := parseStreamFlags(b[8:])
	return check, (int64(binary.LittleEndian.Uint32(b[4:])) + 1) * 4, err
}

// blockHeader is what the header of a block says.
type blockHeader struct {
	size             int   // of the header
	packed, unpacked int64 // -1 when not stated
	dict             uint32
	filters          []filter // in the order in which they are undone
}

// blockHeaderSize returns the length of the header that begins with b, which is
// not 0.
func blockHeaderSize(b byte) int { return (int(b) + 1) * 4 }

// parseBlockHeader takes a header of the length that its first byte says.
func parseBlockHeader(b []byte) (h blockHeader, err error) {
	h.size = len(b)
	n := len(b) - 4
	if crc32.ChecksumIEEE(b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return h, errHeader
	}
	flags := b[1]
	if flags&0x3c != 0 {
		return h, unsupported("block flags %#x", flags)
	}
	f := fields{b: b[2:n]}
	h.packed, h.unpacked = -1, -1
	if flags&0x40 != 0 {
		h.packed = f.number()
	}
	if flags&0x80 != 0 {
		h.unpacked = f.number()
	}
	if err := h.parseFilters(&f, int(flags&3)+1); err != nil {
		return h, err
	}
	if f.bad || h.packed == 0 {
		return h, errHeader
	}
	if !zero(f.b) {
		return h, errPadding
	}
	return h, nil
}

func (h *blockHeader) parseFilters(f *fields, n int) error {
	for i := range n {
		id := f.number()
		props := f.bytes(f.number())
		if f.bad {
			return errHeader
		}
		if i == n-1 {
			return h.parseLZMA2(id, props)
		}
		undo, err := newFilter(id, props)
		if err != nil {
			return err
		}
		h.filters = append([]filter{undo}, h.filters...)
	}
	return nil
}

const idLZMA2 = 0x21

func (h *blockHeader) parseLZMA2(id int64, props []byte) error {
	switch {
	case id != idLZMA2:
		return unsupported("filter %#x at the end of the chain", id)
	case len(props) != 1 || props[0] > 40:
		return unsupported("LZMA2 properties %#x", props)
	case props[0] == 40:
		h.dict = 1<<32 - 1
	default:
		h.dict = (2 | uint32(props[0]&1)) << (props[0]/2 + 11)
	}
	return nil
}

// fields takes apart what it has already been read whole.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) number() int64 {
	v, n := binary.Uvarint(f.b)
	if f.bad || n <= 0 || v > maxNumber || n > 1 && f.b[n-1] == 0 {
		f.bad = true
		return 0
	}
	f.b = f.b[n:]
	return int64(v)
}

func (f *fields) bytes(n int64) []byte {
	if f.bad || n > int64(len(f.b)) {
		f.bad = true
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// padding returns how many bytes are missing to a multiple of four.
func padding(n int64) int { return int(-n & 3) }

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
