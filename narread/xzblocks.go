package narread

import (
	"errors"
	"math"

	"github.com/narvault/narvault/narread/xz"
)

// maxXzBlock is the largest content of an xz block that is decoded on its own.
// Decoding takes about 1 s for 60 MiB.
const maxXzBlock = maxWhole

// maxXzCount is maxCount for xz: ReadIndex needs some 50 bytes a block.
func maxXzCount(narSize int64) int { return min(maxCount(narSize), 1<<20) }

// xzBlocks is a NAR in the blocks of an .xz file. In its table, packed is the
// "Unpadded Size" of the index.
type xzBlocks struct {
	table
	check xz.Check
}

// decode reads and decodes block i, and verifies its check if it has one.
func (bs *xzBlocks) decode(i int, dst []byte) (verified bool, err error) {
	b := xz.Block{Offset: bs.off[i], Unpadded: int64(bs.packed[i]), Size: int64(len(dst)), Check: bs.check}
	buf, err := bs.load(i, int(b.Stored()))
	if err != nil {
		return false, err
	}
	defer bs.dec.buffers.put(buf)
	if err := bs.dec.xzBlock(b, dst, buf.b); err != nil {
		return false, bs.f.damage(i, b.Offset, err)
	}
	return b.Check.Verified(), nil
}

// openXzBlocks finds the blocks of an .xz file by its indexes. Blocks of more
// than limit, and those of streams with different checks, are not for random
// access (errNoFrames). Of a file that is damaged behind its blocks, or cut off,
// those are returned that state their sizes and have a check; warn is told of the
// damage then.
func openXzBlocks(f *file, dec *decoders, narSize, limit int64, warn func(error)) (*xzBlocks, error) {
	blocks, err := xz.ReadIndex(f, f.size, maxXzCount(narSize))
	var format *xz.Error
	switch {
	case err == xz.ErrTooMany:
		return nil, errNoFrames
	case errors.As(err, &format):
		return lastingXzBlocks(f, dec, narSize, limit, warn, f.damage(-1, format.Offset, format.Err))
	case err != nil:
		return nil, err
	}
	bs, left, err := xzTable(f, dec, blocks, narSize, limit)
	if err == nil && left > 0 {
		err = f.damage(-1, f.size, errTooShort)
	}
	return bs, err
}

// xzTable returns blocks as a container, and how much of the NAR it lacks.
func xzTable(f *file, dec *decoders, blocks []xz.Block, narSize, limit int64) (*xzBlocks, int64, error) {
	bs, left, fit := &xzBlocks{table: newTable(f, dec)}, narSize, true
	if len(blocks) > 0 {
		bs.check = blocks[0].Check
	}
	for i, b := range blocks {
		if b.Size > left {
			return nil, 0, f.damage(i, b.Offset, errTooLong)
		}
		left -= b.Size
		fit = fit && b.Check == bs.check && b.Size <= min(limit, maxXzBlock) &&
			b.Unpadded <= min(maxPacked(b.Size), math.MaxUint32)
		if fit {
			bs.add(b.Offset, uint32(b.Unpadded), b.Size)
		}
	}
	if !fit {
		return nil, 0, errNoFrames
	}
	return bs, left, nil
}

// lastingXzBlocks returns what can be had of a damaged file.
func lastingXzBlocks(f *file, dec *decoders, narSize, limit int64, warn func(error), damage error) (*xzBlocks, error) {
	blocks, err := xz.WalkBlocks(f, f.size, maxXzCount(narSize))
	if err != nil {
		return nil, err
	}
	bs, left, err := xzTable(f, dec, blocks, narSize, limit)
	if err != nil || bs.count() == 0 || !bs.check.Verified() {
		return nil, damage
	}
	warn(damage)
	if bs.lost = damage; left > 0 {
		bs.cut(bs.count(), narSize)
	}
	return bs, nil
}
