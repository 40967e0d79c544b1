package narread

import (
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestDecodedIsCounted(t *testing.T) {
	c := NewCache(1 << 20)
	w, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	packed := w.EncodeAll([]byte("0123456789"), nil)
	dst := c.dec.buffers.get(10)
	if err := c.dec.frame(packed, dst.b); err != nil || c.Decoded() != 10 {
		t.Errorf("%d bytes after a block of 10: %v", c.Decoded(), err)
	}
	packed[len(packed)-1] ^= 1
	if err := c.dec.frame(packed, dst.b); err == nil || c.Decoded() != 10 {
		t.Errorf("%d bytes after damage: %v", c.Decoded(), err)
	}
}
