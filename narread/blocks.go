package narread

import (
	"sort"

	"github.com/cespare/xxhash/v2"
)

// blockSize is the unit in which containers without blocks of their own are
// verified and kept.
const blockSize = 256 << 10

// layout says how a NAR is cut into blocks.
type layout interface {
	count() int
	start(i int) int64 // offset in the NAR; start(count()) is the NAR's size
	find(off int64) int
}

// container is a NAR in blocks that can be decoded one by one, by many at a
// time. What decode gives need not have been verified.
type container interface {
	layout
	decode(i int, dst []byte) error // all of block i
}

// blocks is a container whose every block is verified when it is read. How it
// came to be (a seek table, a first pass, a spool) makes no difference to
// readers; a later kind may let decode wait for what is still being made.
type blocks struct {
	container
	sums  []uint64 // XXH64 of each block; nil when decode verifies by itself
	fail  func(i int, err error) error
	close func() error
}

func (b *blocks) length(i int) int { return int(b.start(i+1) - b.start(i)) }

// read fills dst with block i, verified.
func (b *blocks) read(i int, dst []byte) error {
	if err := b.decode(i, dst); err != nil {
		return err
	}
	if b.sums != nil && xxhash.Sum64(dst) != b.sums[i] {
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

func (p *plain) decode(i int, dst []byte) error { return p.f.read(dst, p.start(i)) }

// whole is a NAR that is small enough to be decoded at once.
type whole struct {
	fixed
	pass func(emit func([]byte) error) error // verifies the NarHash
}

func (w *whole) decode(_ int, dst []byte) error {
	n := 0
	return w.pass(func(p []byte) error {
		n += copy(dst[n:], p)
		return nil
	})
}
