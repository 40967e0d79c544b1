// Package zpack compresses byte strings that are held in memory as a whole,
// such as the records of package index. For NARs there is package zseek.
package zpack

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A Codec packs and unpacks. It is safe for concurrent use: as many calls run
// at a time as there are CPUs, the others wait. It has no goroutines of its own
// and needs no closing.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// window is how far back a match may lie: a listing of 100,000 entries, of
// which there are few, has 2 MB.
const window = 1 << 20

// New returns a Codec.
func New() (*Codec, error) {
	workers := runtime.GOMAXPROCS(0)
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(workers), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(workers), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return &Codec{enc, dec}, nil
}

// magic begins every zstd frame. It is left out: of what is packed by the
// hundred bytes it would be some percent.
var magic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// Pack appends src, compressed, to dst. It adds no checksum: the caller has
// one. Equal input gives equal output.
func (c *Codec) Pack(dst, src []byte) []byte {
	start := len(dst)
	dst = c.enc.EncodeAll(src, dst)
	if len(dst) == start {
		return dst // of nothing there is no frame
	}
	return slices.Delete(dst, start, start+len(magic))
}

var errSize = errors.New("is not of the size it should have")

// Unpack returns what Pack compressed, which had size bytes; anything else is
// an error. It allocates size bytes: the caller must have bounded them. Packed
// may come from anywhere.
func (c *Codec) Unpack(packed []byte, size int) ([]byte, error) {
	return c.UnpackTo(nil, packed, size)
}

// UnpackTo is Unpack into the memory of dst, if that has room for it.
func (c *Codec) UnpackTo(dst, packed []byte, size int) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil { // of a foreign decoder
			out, err = nil, fmt.Errorf("unpack: decoder panicked: %v", r)
		}
	}()
	if size < 0 {
		return nil, fmt.Errorf("unpack: %w", errSize)
	}
	if cap(dst) < size {
		dst = make([]byte, 0, size)
	}
	frame := packed
	if len(packed) > 0 {
		frame = slices.Concat(magic, packed)
	}
	// The capacity is what the decoder takes for the limit.
	out, err = c.dec.DecodeAll(frame, dst[:0:size])
	if err != nil {
		return nil, fmt.Errorf("unpack: %v", err)
	}
	if len(out) != size {
		return nil, fmt.Errorf("unpack: %w", errSize)
	}
	return out, nil
}
