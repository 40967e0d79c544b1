package zseek

import (
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/narvault/narvault/narread/packing"
)

// FrameSize is how many bytes of input a frame holds; the last one of a file
// holds what is left. It is part of the format that backups are written in:
// changing it changes the bytes, and so the name, of every new NAR file.
const FrameSize = 256 << 10

// Pool bounds what any number of Writers use together, as packing.Pool says. One
// frame is 256 KiB of input and up to as much of output; to that come an
// encoder's tables for each worker, by the peak memory of a process about 1, 2, 5
// and 36 MiB at the four steps below.
type Pool struct{ *packing.Pool }

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
	enc := newEncoder(workers, level)
	return &Pool{packing.NewPool(workers, FrameSize, func(dst, src []byte) ([]byte, error) {
		return enc.EncodeAll(src, dst), nil
	})}
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

// Writer writes a file of frames and, when it is closed, the seek table.
type Writer = packing.Writer

// WriterOptions are the options of a Writer.
type WriterOptions = packing.WriterOptions

// ErrClosed is returned by Write after Close or Abort.
var ErrClosed = packing.ErrClosed

// NewWriter returns a Writer that writes to w, compressing on p. Closing it
// does not close w.
func NewWriter(w io.Writer, p *Pool, o WriterOptions) *Writer {
	return packing.NewWriter(w, p.Pool, new(seekTable), o)
}

// seekTable collects the entries of the table at the end of a file.
type seekTable struct{ entries []Entry }

func (t *seekTable) Begin() []byte { return nil }

func (t *seekTable) Add(packed []byte, size int) {
	t.entries = append(t.entries, Entry{Compressed: uint32(len(packed)), Decompressed: uint32(size)})
}

func (t *seekTable) End() ([]byte, error) { return AppendTable(nil, t.entries) }
