package narread

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/cespare/xxhash/v2"
	"github.com/narvault/narvault/narread/narinfo"
)

// maxAhead bounds what a pass decodes ahead of where it is.
const maxAhead = 64 << 20

// pass gives the whole NAR to emit, block by block in order, and verifies its
// size and NarHash. A mismatch shows after the last block. emit must not keep
// what it gets.
func (a *Archive) pass(c container, serial bool, emit func([]byte) error) error {
	hash := sha256.New()
	err := a.inOrder(c, serial, func(p []byte) error {
		if a.closing.Load() {
			return fmt.Errorf("read %s: %w", a.file.name, os.ErrClosed)
		}
		hash.Write(p)
		return emit(p)
	})
	if err != nil {
		return err
	}
	var got narinfo.Hash
	if hash.Sum(got[:0]); got != a.o.NarHash {
		return a.file.damage(-1, -1, fmt.Errorf("NarHash is %v, should be %v", got, a.o.NarHash))
	}
	return nil
}

// decoding is a block that inOrder has begun.
type decoding struct {
	buf  *buffer
	err  error
	done chan struct{}
}

// inOrder decodes all blocks of c and gives them to emit in order, while the
// next ones are being decoded: on all CPUs, or, if serial, one at a time. No
// goroutine is left when it returns.
func (a *Archive) inOrder(c container, serial bool, emit func([]byte) error) error {
	n, depth := c.count(), a.depth(c)
	ring := make([]*decoding, 0, depth)
	next := 0
	begin := func() {
		var before chan struct{}
		if serial && len(ring) > 0 {
			before = ring[len(ring)-1].done
		}
		ring = append(ring, a.begin(c, next, before))
		next++
	}
	defer func() {
		for _, d := range ring {
			<-d.done
			a.cache.dec.buffers.put(d.buf)
		}
	}()
	for i := range n {
		if err := missing(c, i); err != nil {
			return err
		}
		for next < n && len(ring) < depth && missing(c, next) == nil {
			begin()
		}
		d := ring[0]
		<-d.done
		if d.err != nil {
			return d.err
		}
		if err := emit(d.buf.b); err != nil {
			return err
		}
		a.cache.dec.buffers.put(d.buf)
		ring = append(ring[:0], ring[1:]...)
	}
	return missing(c, n)
}

// begin decodes block i on a goroutine, once before is closed.
func (a *Archive) begin(c container, i int, before chan struct{}) *decoding {
	n := int(c.start(i+1) - c.start(i))
	d := &decoding{buf: a.cache.dec.buffers.get(n), done: make(chan struct{})}
	go func() {
		defer close(d.done)
		if before != nil {
			<-before
		}
		_, d.err = c.decode(i, d.buf.b)
	}()
	return d
}

// depth returns how many blocks inOrder holds at a time.
func (a *Archive) depth(c container) int {
	largest := int64(blockSize)
	if p, ok := c.(packed); ok {
		largest = p.places().largest
	}
	return int(min(max(maxAhead/largest, 2), int64(runtime.GOMAXPROCS(0)+1)))
}

// wholePass runs a pass through the container as it lies in the file.
func (a *Archive) wholePass(emit func([]byte) error) error {
	if a.random != nil {
		return a.pass(a.random, false, emit)
	}
	s := newStream(&a.file, a.format, a.o.NarSize)
	defer s.close()
	return a.pass(s, true, emit)
}

// boundedPass is wholePass among others on the same cache: there are never more
// at a time than CPUs. emit must not wait for readers of archives.
func (a *Archive) boundedPass(emit func([]byte) error) error {
	if a.cache.passes.Acquire(a.ctx, 1) != nil {
		return fmt.Errorf("read %s: %w", a.file.name, os.ErrClosed)
	}
	defer a.cache.passes.Release(1)
	return a.wholePass(emit)
}

// sum returns the hashes of a.random's blocks, by a pass at the first call.
func (a *Archive) sum() (blockSums, error) {
	sums, err := a.sums.get(func() (*blockSums, error) {
		var sums blockSums
		err := a.boundedPass(func(p []byte) error {
			sums = append(sums, xxhash.Sum64(p))
			return nil
		})
		return &sums, err
	})
	if err != nil {
		return nil, err
	}
	return *sums, nil
}

// randomBlocks are the blocks of a.random.
func (a *Archive) randomBlocks() *blocks {
	fail := func(i int, err error) error {
		off := a.random.start(i)
		if p, ok := a.random.(packed); ok {
			off = p.places().off[i]
		}
		return a.file.damage(i, off, err)
	}
	return &blocks{container: a.random, sums: a.sum, all: !a.direct, fail: fail}
}

// WriteTo writes the whole NAR to w, decoding ahead on all CPUs, and verifies
// its NarHash: when WriteTo returns nil, w got what the narinfo promises. When
// it returns an error, w may have got any part of it. The block cache is left
// alone. It implements io.WriterTo.
func (a *Archive) WriteTo(w io.Writer) (int64, error) {
	if err := a.enter(); err != nil {
		return 0, err
	}
	defer a.leave()
	var n int64
	emit := func(p []byte) error {
		c, err := w.Write(p)
		n += int64(c)
		if err == nil && c < len(p) {
			err = io.ErrShortWrite
		}
		return err
	}
	err := a.writeSpooled(emit)
	var bad *spoolError
	if err == errNotSpooled || errors.As(err, &bad) {
		a.respool(err)
		err = a.wholePass(skipping(n, emit))
	}
	return n, err
}

var errNotSpooled = errors.New("not in the spool")

// writeSpooled gives the whole NAR to emit if it need not be decoded again.
func (a *Archive) writeSpooled(emit func([]byte) error) error {
	b, done := a.spooledWhole()
	if b == nil {
		return errNotSpooled
	}
	defer done()
	return a.pass(verified{b}, false, emit)
}

// skipping is emit without the first n bytes.
func skipping(n int64, emit func([]byte) error) func([]byte) error {
	return func(p []byte) error {
		skip := min(n, int64(len(p)))
		n -= skip
		if p = p[skip:]; len(p) == 0 {
			return nil
		}
		return emit(p)
	}
}

// verified is a container whose decode verifies.
type verified struct{ *blocks }

func (v verified) decode(i int, dst []byte) (bool, error) { return true, v.read(i, dst) }
