package narread

import (
	"encoding/binary"
	"errors"

	"github.com/narvault/narvault/narread/xz"
)

// The first byte of what Layout returns says what the blocks are. What follows
// are unsigned varints:
//
//	check of the blocks, only for xz
//	size of the file, size of the NAR, number of blocks
//	for each block: bytes in the file before it that belong to none, size in
//	the file (for xz without padding), size of the content
const (
	layoutZstd = 1
	layoutXz   = 2
)

var errLayout = errors.New("layout is not of this file")

// Layout returns how the container is cut into blocks, for Options.Layout: some
// 6 bytes for each 256 KiB before compression. It is nil where opening the
// container would not become cheaper by it.
func (a *Archive) Layout() []byte {
	p, ok := a.random.(packed)
	if !ok || !a.RandomAccess() {
		return nil
	}
	b := []byte{layoutZstd}
	if bs, ok := p.(*xzBlocks); ok {
		b = binary.AppendUvarint([]byte{layoutXz}, uint64(bs.check))
	}
	fs := p.places()
	b = binary.AppendUvarint(b, uint64(a.file.size))
	b = binary.AppendUvarint(b, uint64(a.o.NarSize))
	b = binary.AppendUvarint(b, uint64(len(fs.off)))
	end := int64(0)
	for i, off := range fs.off {
		b = binary.AppendUvarint(b, uint64(off-end))
		b = binary.AppendUvarint(b, uint64(fs.packed[i]))
		b = binary.AppendUvarint(b, uint64(fs.starts[i+1]-fs.starts[i]))
		end = off + int64(fs.packed[i])
	}
	return b
}

// layoutBlocks returns the container that data, a Layout, says f is, each block
// of limit bytes at most. What they hold is verified when they are decoded, so
// that a layout that is wrong leads to errors.
func layoutBlocks(f *file, dec *decoders, data []byte, narSize, limit int64) (packed, format, error) {
	if len(data) == 0 {
		return nil, "", errLayout
	}
	kind, data := data[0], data[1:]
	switch kind {
	case layoutZstd:
		t, err := layoutTable(f, dec, data, narSize, limit)
		return &frames{table: t, checked: true}, formatZstd, err
	case layoutXz:
		check, n := binary.Uvarint(data)
		if n <= 0 || check > 15 || !xz.Check(check).Verified() {
			return nil, "", errLayout
		}
		t, err := layoutTable(f, dec, data[n:], narSize, min(limit, maxXzBlock))
		return &xzBlocks{table: t, check: xz.Check(check)}, formatXz, err
	}
	return nil, "", errLayout
}

// layoutTable takes apart what follows the kind of the blocks.
func layoutTable(f *file, dec *decoders, data []byte, narSize, limit int64) (table, error) {
	number := func(most int64) int64 {
		v, n := binary.Uvarint(data)
		if n <= 0 || v > uint64(max(most, 0)) {
			data = nil
			return -1
		}
		data = data[n:]
		return int64(v)
	}
	fs := newTable(f, dec)
	if number(maxNarSize) != f.size || number(maxNarSize) != narSize {
		return fs, errLayout
	}
	count := number(int64(min(maxCount(narSize), len(data)/3)))
	end := int64(0)
	for range count {
		gap := number(f.size - end)
		packed := number(f.size - end - gap)
		content := number(limit)
		if gap < 0 || packed < 0 || content < 1 || packed > maxPacked(content) {
			return fs, errLayout
		}
		fs.add(end+gap, uint32(packed), content)
		end += gap + packed
	}
	if count < 0 || len(data) > 0 || fs.starts[count] != narSize {
		return fs, errLayout
	}
	return fs, nil
}

// enterByLayout sets what detect and enterable would find out, and reports
// whether it could.
func (a *Archive) enterByLayout() bool {
	if a.o.Layout == nil {
		return false
	}
	blocks, format, err := layoutBlocks(&a.file, &a.cache.dec, a.o.Layout, a.o.NarSize, a.frameLimit())
	if err != nil {
		return false
	}
	a.format, a.random, a.direct = format, blocks, true
	return true
}
