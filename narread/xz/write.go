package xz

import (
	"encoding/binary"
	"hash/crc32"
)

// AppendBlock appends a block to dst: a header that states all sizes, packed,
// and the check of content. Packed must be the LZMA2 data of content, made with
// a dictionary of at most 1<<dictBits bytes, 12 to 31.
func AppendBlock(dst []byte, content, packed []byte, c Check, dictBits int) []byte {
	header := []byte{0, 0xc0}
	header = binary.AppendUvarint(header, uint64(len(packed)))
	header = binary.AppendUvarint(header, uint64(len(content)))
	header = append(header, idLZMA2, 1, byte(2*(dictBits-12)))
	header = appendPadding(header)
	header[0] = byte(len(header) / 4) // with its CRC32, less one
	dst = append(dst, appendCRC32(header, header)...)
	dst = append(dst, packed...)
	dst = append(dst, make([]byte, padding(int64(len(packed))))...)
	k := newChecker(c)
	k.write(content)
	return k.append(dst)
}

// BlockOf returns what an index has to say of a block that AppendBlock has made.
func BlockOf(block []byte, c Check) Block {
	packed, n := binary.Uvarint(block[2:])
	size, _ := binary.Uvarint(block[2+n:])
	return Block{
		Unpadded: int64(blockHeaderSize(block[0])) + int64(packed) + int64(c.Size()),
		Size:     int64(size), Check: c,
	}
}

// Stream is what stands round the blocks of a stream that AppendBlock has made.
type Stream struct {
	check  Check
	blocks uint64
	index  []byte // the records
}

// NewStream returns a Stream of blocks with the given check.
func NewStream(c Check) *Stream { return &Stream{check: c} }

// Begin returns what the stream begins with.
func (s *Stream) Begin() []byte {
	return appendCRC32(append([]byte{}, append(streamMagic[:], 0, byte(s.check))...), []byte{0, byte(s.check)})
}

// Add takes in the next block of the stream. (How much content it has, it says
// itself.)
func (s *Stream) Add(block []byte, _ int) {
	b := BlockOf(block, s.check)
	s.blocks++
	s.index = binary.AppendUvarint(s.index, uint64(b.Unpadded))
	s.index = binary.AppendUvarint(s.index, uint64(b.Size))
}

// End returns what the stream ends with. It never fails.
func (s *Stream) End() ([]byte, error) {
	b := append(binary.AppendUvarint([]byte{0}, s.blocks), s.index...)
	b = appendPadding(b)
	b = appendCRC32(b, b)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(b)/4-1))
	footer = append(footer, 0, byte(s.check))
	b = appendCRC32(b, footer)
	return append(append(b, footer...), "YZ"...), nil
}

func appendPadding(b []byte) []byte { return append(b, make([]byte, padding(int64(len(b))))...) }

func appendCRC32(dst, of []byte) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(of))
}
