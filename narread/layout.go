package narread

import (
	"encoding/binary"
	"errors"

	"github.com/narvault/narvault/narread/spool"
	"github.com/narvault/narvault/narread/xz"
)

// The first byte of what Layout returns says what the blocks are. What follows
// are unsigned varints:
//
//	check of the blocks, only for xz
//	size of the file, size of the NAR
//	for zstd and xz: number of blocks; for each block: bytes in the file before
//	it that belong to none, size in the file (for xz without padding), size of
//	the content
//
// If layoutSums is set in the first byte, 8 bytes for each block end the layout:
// XXH64 of it, little endian, made while the NarHash was verified. Those of a
// plain NAR, and of a container in one piece, are for blocks of 256 KiB.
const (
	layoutZstd     = 1
	layoutXz       = 2
	layoutPlain    = 3
	layoutOnePiece = 4

	layoutSums  = 0x10
	bytesPerSum = 8
)

var errLayout = errors.New("layout is not of this file")

// Layout returns how the container is cut into blocks, and what is known of
// their content, for Options.Layout: some 6 to 14 bytes for each 256 KiB. It is
// nil where opening the container would not become cheaper by it. Where a
// container without checksums of its own has been read as a whole, by Listing
// for one, its layout has the hashes that this has made, so that the next one
// who opens it needs not do that again.
func (a *Archive) Layout() []byte {
	if !a.intact() {
		return nil
	}
	var sums blockSums
	if known := a.sums.val.Load(); known != nil {
		sums = *known
	}
	if sums == nil && !a.direct {
		return nil
	}
	var b []byte
	switch c := a.random.(type) {
	case *frames:
		b = c.appendTo(a.layoutHead(layoutZstd))
	case *xzBlocks:
		b = c.appendTo(a.layoutHead(layoutXz, uint64(c.check)))
	case *plain:
		b = a.layoutHead(layoutPlain)
	default:
		if a.o.NarSize <= maxWhole { // it is decoded as a whole
			return nil
		}
		b = a.layoutHead(layoutOnePiece)
	}
	if sums == nil {
		return b
	}
	b[0] |= layoutSums
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return b
}

// layoutHead begins a layout.
func (a *Archive) layoutHead(kind byte, numbers ...uint64) []byte {
	b := []byte{kind}
	for _, n := range append(numbers, uint64(a.file.size), uint64(a.o.NarSize)) {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func (t *table) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.off)))
	end := int64(0)
	for i, off := range t.off {
		b = binary.AppendUvarint(b, uint64(off-end))
		b = binary.AppendUvarint(b, uint64(t.packed[i]))
		b = binary.AppendUvarint(b, uint64(t.length(i)))
		end = off + int64(t.packed[i])
	}
	return b
}

// layoutReader takes a layout apart.
type layoutReader struct {
	data []byte
	bad  bool
}

// number returns the next number, which must not be more than most; if it is,
// -1, and bad is set.
func (r *layoutReader) number(most int64) int64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || v > uint64(max(most, 0)) {
		r.data, r.bad = nil, true
		return -1
	}
	r.data = r.data[n:]
	return int64(v)
}

// table returns the blocks that a file has, each of them of limit bytes at most.
// What they hold is verified when they are decoded, so that a layout that is
// wrong leads to errors.
func (r *layoutReader) table(f *file, dec *decoders, narSize, limit int64) table {
	t := newTable(f, dec)
	count := r.number(int64(min(maxCount(narSize), len(r.data)/3)))
	end := int64(0)
	for range count {
		gap := r.number(f.size - end)
		packed := r.number(f.size - end - gap)
		content := r.number(limit)
		if gap < 0 || packed < 0 || content < 1 || packed > maxPacked(content) {
			r.bad = true
			return t
		}
		t.add(end+gap, uint32(packed), content)
		end += gap + packed
	}
	r.bad = r.bad || t.starts[t.count()] != narSize
	return t
}

// sums returns what is left, one for each of count blocks.
func (r *layoutReader) sums(count int) blockSums {
	if len(r.data)%bytesPerSum != 0 || len(r.data)/bytesPerSum != count {
		r.bad = true
		return nil
	}
	sums := make(blockSums, count)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint64(r.data[bytesPerSum*i:])
	}
	r.data = nil
	return sums
}

// known is what a layout tells.
type known struct {
	format format    // "" if that has to be found out
	random container // or nil
	sums   blockSums // or nil
}

// readLayout returns what data, a Layout, tells of f, whose blocks are of limit
// bytes at most.
func readLayout(f *file, dec *decoders, data []byte, narSize, limit int64) (k known, err error) {
	if len(data) == 0 {
		return k, errLayout
	}
	kind, summed := data[0]&^layoutSums, data[0]&layoutSums != 0
	r := layoutReader{data: data[1:]}
	check := xz.Check(0)
	if kind == layoutXz {
		check = xz.Check(max(r.number(15), 0))
	}
	if r.number(maxNarSize) != f.size || r.number(maxNarSize) != narSize {
		return k, errLayout
	}
	var blocks layout = fixed{size: narSize, width: spool.BlockSize}
	switch kind {
	case layoutZstd:
		fs := &frames{table: r.table(f, dec, narSize, limit), checked: true}
		k.format, k.random, blocks = formatZstd, fs, fs
	case layoutXz:
		bs := &xzBlocks{table: r.table(f, dec, narSize, min(limit, maxXzBlock)), check: check}
		k.format, k.random, blocks = formatXz, bs, bs
		r.bad = r.bad || !summed && !check.Verified()
	case layoutPlain:
		k.format, k.random = formatNone, &plain{fixed: fixed{size: narSize, width: spool.BlockSize}, f: f}
		r.bad = r.bad || !summed || f.size != narSize
	case layoutOnePiece:
		r.bad = r.bad || !summed
	default:
		r.bad = true
	}
	if summed && !r.bad {
		k.sums = r.sums(blocks.count())
	}
	if r.bad || len(r.data) > 0 {
		return known{}, errLayout
	}
	return k, nil
}

// enterByLayout sets what detect and enterable would find out, and reports
// whether it could.
func (a *Archive) enterByLayout() bool {
	if a.o.Layout == nil {
		return false
	}
	k, err := readLayout(&a.file, &a.cache.dec, a.o.Layout, a.o.NarSize, a.frameLimit())
	if err != nil {
		return false
	}
	if k.sums != nil {
		a.sums.val.Store(&k.sums)
	}
	a.format, a.random, a.direct = k.format, k.random, k.random != nil
	return a.direct
}
