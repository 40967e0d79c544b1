package narread

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/narvault/narvault/narread/xz"
)

// decoders are what decoding needs and archives share: the state of decoders,
// and buffers.
type decoders struct {
	buffers buffers
	once    sync.Once
	zstd    *zstd.Decoder
	err     error
	xz      sync.Pool // of *xz.Decoder
	decoded atomic.Int64
}

// Decoded returns how many bytes of blocks were decoded since the Cache was made,
// for whoever reports on it. Of containers that cannot be entered in the middle
// it knows nothing.
func (c *Cache) Decoded() int64 { return c.dec.decoded.Load() }

// frame decodes one zstd frame, which must give exactly len(dst) bytes. As many
// run at a time as there are CPUs.
func (d *decoders) frame(src, dst []byte) error {
	d.once.Do(func() {
		d.zstd, d.err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecodeAllCapLimit(true))
	})
	if d.err != nil {
		return d.err
	}
	var out []byte
	err := guard(func() (err error) {
		out, err = d.zstd.DecodeAll(src, dst[:0])
		return err
	})
	switch {
	case err != nil:
		return err
	case len(out) != len(dst) || len(out) > 0 && &out[0] != &dst[0]:
		return fmt.Errorf("decodes to %d bytes, not to %d", len(out), len(dst))
	}
	d.decoded.Add(int64(len(out)))
	return nil
}

// xzBlock decodes one block of an .xz file.
func (d *decoders) xzBlock(b xz.Block, dst, src []byte) error {
	x, ok := d.xz.Get().(*xz.Decoder)
	if !ok {
		x = new(xz.Decoder)
	}
	defer d.xz.Put(x)
	err := guard(func() error { return x.Block(b, dst, src) })
	if err == nil {
		d.decoded.Add(int64(len(dst)))
	}
	return err
}

// buffers recycles memory for blocks, in classes: powers of two from 4 KiB to
// 256 KiB, then multiples of 256 KiB.
type buffers struct {
	pools [8 + maxFrame/blockSize + 8]sync.Pool
}

// buffer is lent by buffers. b has the length asked for.
type buffer struct {
	b     []byte
	class int
}

// overAlloc is room behind a block that lets the zstd decoder copy in words.
const overAlloc = 64

// class returns the class of buffers for n bytes, and their size.
func bufferClass(n int) (class, size int) {
	if n <= blockSize {
		c := max(bits.Len(uint(max(n, 1)-1)), 12)
		return c - 12, 1 << c
	}
	c := (n + blockSize - 1) / blockSize
	return 5 + c, c * blockSize
}

func (bs *buffers) get(n int) *buffer {
	class, size := bufferClass(n)
	if class < len(bs.pools) {
		if b, ok := bs.pools[class].Get().(*buffer); ok {
			b.b = b.b[:n]
			return b
		}
	}
	return &buffer{b: make([]byte, n, size+overAlloc), class: class}
}

func (bs *buffers) put(b *buffer) {
	if b.class < len(bs.pools) {
		bs.pools[b.class].Put(b)
	}
}
