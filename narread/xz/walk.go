package xz

import "io"

// WalkBlocks returns the blocks of the first stream of a file, as far as the
// headers of blocks say where the next one is: for a file of which ReadIndex
// finds no good end. Encoders with several threads state these sizes, and the
// CRC32 of the header covers them. It stops, without an error, at the first
// header that does not, that is damaged, or that is of a block which the file
// does not have whole, and after limit blocks. Errors are those of reading.
func WalkBlocks(src io.ReaderAt, size int64, limit int) ([]Block, error) {
	read := func(at int64, n int) ([]byte, error) {
		b := make([]byte, min(int64(n), max(size-at, 0)))
		if got, err := src.ReadAt(b, at); got < len(b) {
			return nil, unexpected(err)
		}
		return b, nil
	}
	b, err := read(0, streamHeaderSize)
	if err != nil || len(b) < streamHeaderSize {
		return nil, err
	}
	check, err := parseStreamHeader(b)
	if err != nil {
		return nil, nil
	}
	var blocks []Block
	at := int64(streamHeaderSize)
	for len(blocks) < limit {
		b, err := read(at, maxBlockHeader)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 || b[0] == 0 || blockHeaderSize(b[0]) > len(b) {
			break
		}
		h, err := parseBlockHeader(b[:blockHeaderSize(b[0])])
		if err != nil || h.packed < 0 || h.unpacked < 0 || h.packed > size {
			break
		}
		block := Block{Offset: at, Unpadded: int64(h.size) + h.packed + int64(check.Size()), Size: h.unpacked, Check: check}
		if block.Stored() > size-at {
			break
		}
		blocks = append(blocks, block)
		at += block.Stored()
	}
	return blocks, nil
}
