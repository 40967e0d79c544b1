package xz

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
)

// ReadIndex returns the blocks of the file of size bytes in src, in order. It
// reads the index and the header of each stream, and verifies that these and
// the blocks fill the file; the blocks themselves it does not read. Those
// without content are among them.
//
// A file of more than limit blocks, or of more than limit streams, is
// ErrTooMany; the memory that is needed is some 50 bytes for each.
func ReadIndex(src io.ReaderAt, size int64, limit int) ([]Block, error) {
	x := indexReader{src: src, limit: limit}
	end := size
	for streams := 0; ; streams++ {
		var err error
		if end, err = x.skipPadding(end); err != nil {
			return nil, err
		}
		if streams > limit {
			return nil, ErrTooMany
		}
		if end, err = x.stream(end); err != nil {
			return nil, err
		}
		if end == 0 {
			break
		}
	}
	slices.Reverse(x.blocks)
	return x.blocks, nil
}

// indexReader reads a file from its end to its beginning.
type indexReader struct {
	src    io.ReaderAt
	limit  int
	blocks []Block // the last one first

	window [4096]byte
	at     int64 // offset of window[:have]
	have   int
}

// bytes returns the n bytes before end. It reads some more before these, which
// are wanted next.
func (x *indexReader) bytes(end, n int64) ([]byte, error) {
	if n > end {
		return nil, &Error{0, io.ErrUnexpectedEOF}
	}
	if end-n < x.at || end > x.at+int64(x.have) {
		x.have = 0
		at := max(end-int64(len(x.window)), 0)
		if m, err := x.src.ReadAt(x.window[:end-at], at); m < int(end-at) {
			return nil, unexpected(err)
		}
		x.at, x.have = at, int(end-at)
	}
	return x.window[end-n-x.at : end-x.at], nil
}

// skipPadding returns where the stream ends that has the padding before end.
func (x *indexReader) skipPadding(end int64) (int64, error) {
	for {
		b, err := x.bytes(end, 4)
		if err != nil {
			return 0, err
		}
		if binary.LittleEndian.Uint32(b) != 0 {
			return end, nil
		}
		end -= 4
	}
}

// stream takes in the stream that ends at end, and returns where it begins.
func (x *indexReader) stream(end int64) (int64, error) {
	b, err := x.bytes(end, streamHeaderSize)
	if err != nil {
		return 0, err
	}
	footer := end - streamHeaderSize
	check, indexSize, err := parseFooter(b)
	if err != nil {
		return 0, &Error{footer, err}
	}
	indexAt := footer - indexSize
	if indexAt < streamHeaderSize {
		return 0, &Error{footer, errIndex}
	}
	first := len(x.blocks)
	if err := x.index(indexAt, indexSize, check); err != nil {
		return 0, err
	}
	start, err := x.place(x.blocks[first:], indexAt)
	if err != nil {
		return 0, err
	}
	if b, err = x.bytes(start+streamHeaderSize, streamHeaderSize); err != nil {
		return 0, err
	}
	got, err := parseStreamHeader(b)
	if err == nil && got != check {
		err = errStream
	}
	if err != nil {
		return 0, &Error{start, err}
	}
	return start, nil
}

// place gives the blocks of a stream their offsets, and reverses them. It
// returns where the stream begins.
func (x *indexReader) place(blocks []Block, indexAt int64) (int64, error) {
	slices.Reverse(blocks)
	at := indexAt
	for i := range blocks {
		at -= blocks[i].Stored() // which is not larger than the file
		if at < streamHeaderSize {
			return 0, &Error{indexAt, errIndex}
		}
		blocks[i].Offset = at
	}
	return at - streamHeaderSize, nil
}

// index reads an index, and appends its blocks in order.
func (x *indexReader) index(at, size int64, check Check) error {
	if size > maxIndex(x.limit-len(x.blocks)) {
		return ErrTooMany
	}
	b := make([]byte, size)
	if n, err := x.src.ReadAt(b, at); n < len(b) {
		return unexpected(err)
	}
	b, sum := b[:size-4], b[size-4:]
	if b[0] != 0 || crc32.ChecksumIEEE(b) != binary.LittleEndian.Uint32(sum) {
		return &Error{at, errIndex}
	}
	f := fields{b: b[1:]}
	count := f.number()
	if count > int64(x.limit-len(x.blocks)) {
		return ErrTooMany
	}
	for range count {
		block := Block{Unpadded: f.number(), Size: f.number(), Check: check}
		if f.bad || block.Unpadded < minUnpadded || block.Unpadded > at {
			return &Error{at, errIndex}
		}
		x.blocks = append(x.blocks, block)
	}
	if f.bad || len(f.b) > 3 || !zero(f.b) {
		return &Error{at, errIndex}
	}
	return nil
}

const minUnpadded = 5 // as the format has it; no block is as small

// maxIndex is the size of an index of so many blocks at most.
func maxIndex(blocks int) int64 { return 1 + 9 + 18*int64(blocks) + 3 + 4 }
