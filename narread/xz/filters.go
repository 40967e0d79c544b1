package xz

import (
	"encoding/binary"
	"io"
)

// filter undoes a filter that the encoder has put before the compressor.
type filter interface {
	// undo works on b, which follows what it has done before, and returns how many
	// bytes of it are done. The others, less than 16, it wants to see again with
	// what follows them, unless nothing does.
	undo(b []byte) int
}

// The filters of the format, less LZMA2.
const (
	idDelta    = 3
	idX86      = 4
	idPowerPC  = 5
	idIA64     = 6
	idARM      = 7
	idARMThumb = 8
	idSPARC    = 9
	idARM64    = 10
)

func newFilter(id int64, props []byte) (filter, error) {
	if id == idDelta {
		if len(props) != 1 {
			return nil, unsupported("delta properties %#x", props)
		}
		return &delta{distance: int(props[0]) + 1}, nil
	}
	start := uint32(0)
	switch len(props) {
	case 0:
	case 4:
		start = binary.LittleEndian.Uint32(props)
	default:
		return nil, unsupported("filter %#x with properties %#x", id, props)
	}
	return newBCJ(id, start)
}

// delta undoes the difference to the byte at a distance.
type delta struct {
	distance int // 1 to 256
	at       byte
	history  [256]byte
}

func (d *delta) undo(b []byte) int {
	for i := range b {
		d.at--
		b[i] += d.history[d.at+byte(d.distance)]
		d.history[d.at] = b[i]
	}
	return len(b)
}

// filterReader undoes a filter on what it reads.
type filterReader struct {
	r          io.Reader
	f          filter
	buf        []byte
	from, done int // buf[from:done] is to be given out, what follows is not undone
	err        error
}

const filterBuffer = 64 << 10

func newFilterReader(r io.Reader, f filter) *filterReader {
	return &filterReader{r: r, f: f, buf: make([]byte, 0, filterBuffer)}
}

func (r *filterReader) Read(p []byte) (int, error) {
	for r.from == r.done {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.buf[r.from:r.done])
	r.from += n
	return n, nil
}

// fill reads more. At the end the filter leaves alone what it wanted to see
// again.
func (r *filterReader) fill() {
	r.buf = append(r.buf[:0], r.buf[r.done:]...)
	r.from, r.done = 0, 0
	n, err := io.ReadFull(r.r, r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.done = r.f.undo(r.buf)
	switch err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		r.done, r.err = len(r.buf), io.EOF
	default:
		r.err = err
	}
}
