package narread

import (
	"encoding/binary"
	"errors"
)

// layoutVersion is the first byte of what Layout returns. What follows are
// unsigned varints:
//
//	size of the file, size of the NAR, number of frames
//	for each frame: bytes in the file before it that belong to none, size in
//	the file, size of the content
const layoutVersion = 1

var errLayout = errors.New("layout is not of this file")

// Layout returns how the container is cut into blocks, for Options.Layout: some
// 6 bytes for each 256 KiB before compression. It is nil where opening the
// container would not become cheaper by it.
func (a *Archive) Layout() []byte {
	fs, ok := a.random.(*frames)
	if !ok || !a.RandomAccess() {
		return nil
	}
	b := []byte{layoutVersion}
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

// layoutFrames returns the frames that data, a Layout, says f has, each of them
// of limit bytes at most. What they hold is verified when they are decoded, so
// that a layout that is wrong leads to errors.
func layoutFrames(f *file, dec *decoders, data []byte, narSize, limit int64) (*frames, error) {
	if len(data) == 0 || data[0] != layoutVersion {
		return nil, errLayout
	}
	data = data[1:]
	number := func(most int64) int64 {
		v, n := binary.Uvarint(data)
		if n <= 0 || v > uint64(max(most, 0)) {
			data = nil
			return -1
		}
		data = data[n:]
		return int64(v)
	}
	if number(maxNarSize) != f.size || number(maxNarSize) != narSize {
		return nil, errLayout
	}
	count := number(int64(min(maxCount(narSize), len(data)/3)))
	fs := &frames{starts: starts{0}, f: f, dec: dec, checked: true}
	end := int64(0)
	for range count {
		gap := number(f.size - end)
		packed := number(f.size - end - gap)
		content := number(limit)
		if gap < 0 || packed < 0 || content < 1 || packed > maxPacked(content) {
			return nil, errLayout
		}
		fs.add(end+gap, uint32(packed), content)
		end += gap + packed
	}
	if count < 0 || len(data) > 0 || fs.starts[count] != narSize {
		return nil, errLayout
	}
	return fs, nil
}

// enterByLayout sets what detect and enterable would find out, and reports
// whether it could.
func (a *Archive) enterByLayout() bool {
	if a.o.Layout == nil {
		return false
	}
	fs, err := layoutFrames(&a.file, &a.cache.dec, a.o.Layout, a.o.NarSize, a.frameLimit())
	if err != nil {
		return false
	}
	a.format, a.random, a.direct = formatZstd, fs, true
	return true
}
