// Package packing compresses a file in independent pieces: on all cores, in
// order, in bounded memory, and to the same bytes whatever the number of cores.
// What a piece is packed to, and what stands round the pieces, its callers say:
// zseek for zstd, xzpack for xz and bzip2.
package packing

import "runtime"

// Encode appends src, compressed, to dst. It is called by many goroutines at a
// time. Equal input must give equal output.
type Encode func(dst, src []byte) ([]byte, error)

// Pool bounds what any number of Writers use together: as many pieces are
// compressed at a time as it has workers, and 2*workers+4 pieces exist at a
// time, being filled, compressed or written. A piece is its input and as much of
// output.
//
// Writers take turns: who waits longest for a piece gets the next. A Writer that
// is alone gets all workers. A Pool has no goroutines of its own and needs no
// closing. It is safe for concurrent use.
type Pool struct {
	workers int
	size    int
	encode  Encode
	free    chan *piece   // a channel serves those who wait for it in order
	slots   chan struct{} // one for each piece that is being compressed
}

// piece is the work of one piece: buffers that the pool owns and lends.
type piece struct {
	in, out []byte
	err     error
	done    bool // compressed; guarded by the writer's mu
}

// NewPool makes a pool of that many workers (0 or less: GOMAXPROCS) for pieces
// of size bytes of input; the last one of a file holds what is left.
func NewPool(workers, size int, encode Encode) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: workers, size: size, encode: encode, slots: make(chan struct{}, workers)}
	p.free = make(chan *piece, 2*workers+4)
	for range cap(p.free) {
		p.free <- new(piece)
	}
	return p
}

// Workers returns how many pieces the pool compresses at a time.
func (p *Pool) Workers() int { return p.workers }

// InUse returns how many pieces Writers hold: none, when all have ended.
func (p *Pool) InUse() int { return cap(p.free) - len(p.free) }

// get waits for a piece.
func (p *Pool) get() *piece {
	f := <-p.free
	if f.in == nil {
		f.in = make([]byte, 0, p.size)
	}
	return f
}

// put gives a piece back.
func (p *Pool) put(f *piece) {
	f.in, f.out, f.err, f.done = f.in[:0], f.out[:0], nil, false
	p.free <- f
}

func (p *Pool) compress(f *piece) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	f.out, f.err = p.encode(f.out[:0], f.in)
}
