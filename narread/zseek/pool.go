package zseek

import (
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// FrameSize is how many bytes of input a frame holds; the last one of a file
// holds what is left. It is part of the format that backups are written in:
// changing it changes the bytes, and so the name, of every new NAR file.
const FrameSize = 256 << 10

// Pool bounds what any number of Writers use together: as many frames are
// compressed at a time as it has workers, and 2*workers+4 frames exist at a
// time, being filled, compressed or written. One such frame is 256 KiB of
// input and up to as much of output; to that come an encoder's tables for each
// worker, by the peak memory of a process about 1, 2, 5 and 36 MiB at the four
// steps below.
//
// Writers take turns: who waits longest for a frame gets the next. A Writer that
// is alone gets all workers. A Pool has no goroutines of its own and needs no
// closing. It is safe for concurrent use.
type Pool struct {
	workers int
	enc     *zstd.Encoder
	free    chan *frame // a channel serves those who wait for it in order
}

// frame is the work of one frame: buffers that the pool owns and lends.
type frame struct {
	in, out []byte
	done    bool // compressed; guarded by the writer's mu
}

// NewPool makes a pool of that many workers (0 or less: GOMAXPROCS) that
// compresses at a zstd level number. The encoder knows four steps. Measured on
// 169 MB of NARs of distribution packages, on a machine that was busy with other
// work, hence the ranges of speed; the ratios are exact:
//
//	level      step      MB per CPU second   input/output
//	up to 2    fastest   154 to 276          2.495
//	3 to 5     default    75 to 173          2.628
//	6 to 9     better     54 to 149          2.653
//	10 on      best       12 to 18           2.831
//
// Level 3 is the one to use: 6 to 9 gain 1 % and were as fast in one run and
// half as fast in others, 10 on gains 7 % at about a tenth of the speed.
//
// Identical input at the same step gives identical bytes, whatever the number
// of workers and whatever else the pool did before; another version of the
// encoder may give other bytes.
func NewPool(workers, level int) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: workers, enc: newEncoder(workers, level)}
	p.free = make(chan *frame, 2*workers+4)
	for range cap(p.free) {
		p.free <- new(frame)
	}
	return p
}

// newEncoder returns an encoder of which at most workers EncodeAll run at a time.
func newEncoder(workers, level int) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(workers),
		// Before the window: then the fastest level keeps its blocks of 64 KiB, which
		// are 0.8 % smaller, at a speed that could not be told apart.
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		// No match reaches further than the frame.
		zstd.WithWindowSize(FrameSize),
		// Without it frames of less than 256 bytes carry no content size.
		zstd.WithSingleSegment(true),
		// 0.4 % smaller at level 3; what it costs is within the noise.
		zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderCRC(true),
	)
	if err != nil {
		panic("zseek: encoder options: " + err.Error()) // constant options: a bug here, not a condition
	}
	return enc
}

// Workers returns how many frames the pool compresses at a time.
func (p *Pool) Workers() int { return p.workers }

// get waits for a frame.
func (p *Pool) get() *frame {
	f := <-p.free
	if f.in == nil {
		f.in = make([]byte, 0, FrameSize)
	}
	return f
}

// put gives a frame back.
func (p *Pool) put(f *frame) {
	f.in, f.out, f.done = f.in[:0], f.out[:0], false
	p.free <- f
}

func (p *Pool) compress(f *frame) { f.out = p.enc.EncodeAll(f.in, f.out[:0]) }
