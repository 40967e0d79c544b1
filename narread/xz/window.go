package xz

import "io"

// chunkReader decodes the chunks of a block from a stream. Its window is what
// has been decoded, and the dictionary for what will be.
type chunkReader struct {
	lzma2
	in     *input
	packed int64 // bytes of the block so far
	ended  bool

	buf  []byte
	pos  int // what is decoded ends here
	from int // what has not been read yet begins here
	base int // where the dictionary began; negative when that has moved out of buf
}

func (r *chunkReader) beginBlock(dict uint32) {
	r.begin(dict)
	r.packed, r.ended = 0, false
	r.pos, r.from, r.base = 0, 0, 0
}

// Read returns io.EOF behind the last chunk.
func (r *chunkReader) Read(p []byte) (int, error) {
	for r.from == r.pos {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.chunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.from:r.pos])
	r.from += n
	return n, nil
}

// chunk decodes the next one. All before it has been read.
func (r *chunkReader) chunk() error {
	h, err := r.header()
	if err != nil || r.ended {
		return err
	}
	if h.resetsDict() {
		r.pos, r.from, r.base = 0, 0, 0
	}
	r.makeRoom(h.size)
	if err := r.in.full(r.data[:h.packed]); err != nil {
		return err
	}
	r.packed += int64(h.packed)
	if err := r.content(h, r.buf[:r.pos+h.size], r.pos, r.base, r.data[:]); err != nil {
		return err
	}
	r.pos += h.size
	return nil
}

func (r *chunkReader) header() (h chunkHeader, err error) {
	var b [maxChunkHeader]byte
	if b[0], err = r.in.byte(); err != nil {
		return h, err
	}
	n := chunkHeaderSize(b[0])
	r.packed += int64(n)
	if n == 1 {
		r.ended = true
		return h, nil
	}
	if err := r.in.full(b[1:n]); err != nil {
		return h, err
	}
	return r.lzma2.header(b[:n])
}

// maxAge is how far pos-base may grow. What the decoder wants of it is no more
// than its value modulo 16, and whether it is as large as the dictionary.
const maxAge = 2 * maxDict

// makeRoom makes room for n bytes behind pos: what the dictionary no longer
// needs goes, or buf grows, up to a size at which little is moved.
func (r *chunkReader) makeRoom(n int) {
	if r.pos+n <= len(r.buf) {
		return
	}
	keep := min(r.pos, int(r.dict))
	old := r.buf[r.pos-keep : r.pos]
	if limit := int(r.dict + r.dict/4 + maxChunk); len(r.buf) < limit {
		r.buf = make([]byte, min(limit, max(2*len(r.buf), keep+n)))
	}
	copy(r.buf, old)
	r.base -= r.pos - keep
	r.pos, r.from = keep, keep
	if r.pos-r.base > maxAge {
		r.base += maxDict
	}
}
