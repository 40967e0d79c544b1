package narread

import (
	"cmp"
	"sort"

	"github.com/cespare/xxhash/v2"

	"github.com/narvault/narvault/narread/spool"
)

// blockSize is the unit in which containers without blocks of their own are
// verified and kept.
const blockSize = spool.BlockSize

// layout says how a NAR is cut into blocks.
type layout interface {
	count() int
	start(i int) int64 // offset in the NAR; start(count()) is the NAR's size
	find(off int64) int
}

// container is a NAR in blocks that can be decoded one by one, by many at a
// time.
type container interface {
	layout
	// decode gives all of block i to dst, and reports whether a checksum of the
	// container's own covered it. If not, what it gives need not be right.
	decode(i int, dst []byte) (verified bool, err error)
}

// gapped is a container of which a part is missing.
type gapped interface {
	// missing returns why block i cannot be had, without a buffer for it: it stands
	// for all that is missing, and may be larger than memory. For i = count() it
	// returns what is wrong behind the last block.
	missing(i int) error
}

// blocks is a container whose every block is verified when it is read. How it
// came to be (a seek table, a first pass, a spool) makes no difference to
// readers.
type blocks struct {
	container
	sums  func() (blockSums, error) // for blocks that the container does not verify
	all   bool                      // sums are compared of the others, too
	fail  func(i int, err error) error
	close func() error // or nil
}

// blockSums are the XXH64 of the blocks of a NAR, made while its NarHash was
// verified.
type blockSums []uint64

func (b *blocks) length(i int) int { return int(b.start(i+1) - b.start(i)) }

// missing returns why block i cannot be had, nil if it can.
func missing(c container, i int) error {
	if g, ok := c.(gapped); ok {
		return g.missing(i)
	}
	return nil
}

// await returns when block i can be decoded, or never will be.
func (b *blocks) await(i int) error {
	if s, ok := b.container.(*spooled); ok {
		return s.await(i)
	}
	return missing(b.container, i)
}

// available reports whether block i can be decoded now.
func (b *blocks) available(i int) bool {
	if s, ok := b.container.(*spooled); ok {
		return s.available(i)
	}
	return missing(b.container, i) == nil
}

// whole reports whether the whole NAR was verified and is in the spool.
func (b *blocks) whole() bool {
	s, ok := b.container.(*spooled)
	return ok && s.whole() != nil
}

// read fills dst with block i, verified.
func (b *blocks) read(i int, dst []byte) error {
	verified, err := b.decode(i, dst)
	if s, ok := b.container.(*spooled); ok && err != nil {
		return cmp.Or(s.failure(), b.fail(i, err))
	}
	if err != nil || verified && !b.all {
		return err
	}
	sums, err := b.sums()
	if err != nil {
		return err
	}
	if xxhash.Sum64(dst) != sums[i] {
		return b.fail(i, errChanged)
	}
	return nil
}

// fixed is a layout of blocks of one width; the last one may be shorter.
type fixed struct{ size, width int64 }

func (l fixed) count() int         { return int((l.size-1)/l.width) + 1 }
func (l fixed) start(i int) int64  { return min(int64(i)*l.width, l.size) }
func (l fixed) find(off int64) int { return int(off / l.width) }

// starts is a layout of blocks that begin anywhere: the offset of each, and the
// size of the NAR last.
type starts []int64

func (l starts) count() int        { return len(l) - 1 }
func (l starts) start(i int) int64 { return l[i] }
func (l starts) find(off int64) int {
	return sort.Search(len(l)-1, func(i int) bool { return l[i+1] > off })
}

// plain is a NAR without container.
type plain struct {
	fixed
	f *file
}

func (p *plain) decode(i int, dst []byte) (bool, error) { return false, p.f.read(dst, p.start(i)) }

// whole is a NAR that is small enough to be decoded at once.
type whole struct {
	fixed
	pass func(emit func([]byte) error) error // verifies the NarHash
}

func (w *whole) decode(_ int, dst []byte) (bool, error) {
	n := 0
	err := w.pass(func(p []byte) error {
		n += copy(dst[n:], p)
		return nil
	})
	return err == nil, err
}
