package narread

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// FuzzZstd opens arbitrary bytes as zstd. Nothing may panic, and what can be
// read must be what a decoder that reads in order gives.
func FuzzZstd(f *testing.F) {
	n := makeNAR(f, 300)
	for _, file := range [][]byte{
		packOwn(f, n), dropTable(packOwn(f, n)), smallTable.pack(f, makeNAR(f, 3000)), skippable,
		append(dropTable(packOwn(f, n[:100])), packOwn(f, n[100:])...),
		[]byte("\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello"),
	} {
		f.Add(file, int64(len(n)))
	}
	d, err := zstd.NewReader(nil)
	must(f, err)
	defer d.Close()
	cache := NewCache(16 << 20) // large enough for what is read here: no temporary files
	f.Fuzz(func(t *testing.T, file []byte, narSize int64) {
		o := Options{Name: "x.nar", Compression: "zstd", NarSize: narSize, Cache: cache}
		o.NarHash[0] = 1 // wrong: what is served was verified by a frame's checksum
		a, err := Open(bytes.NewReader(file), int64(len(file)), o)
		if err != nil {
			return
		}
		defer a.Close()
		if narSize > 1<<20 {
			return
		}
		if _, err := a.WriteTo(io.Discard); err == nil {
			t.Error("WriteTo accepts a wrong NarHash")
		}
		a.Listing()
		got, err := readAll(a, 777)
		if err != nil {
			return
		}
		if want, err := d.DecodeAll(file, nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, a decoder gives %d, %v", len(got), len(want), err)
		}
	})
}

// FuzzContainers opens arbitrary bytes as anything that is decoded as a whole.
// Nothing may panic, and nothing is served, as the NarHash is wrong.
func FuzzContainers(f *testing.F) {
	n := makeNAR(f, 300)
	for _, p := range []packer{
		onePiece, program("bzip2", "bzip2", "-1"), {"", "br", packBrotli}, program("lz4", "lz4"), lzmaPacker, lzipPacker,
		program("zstd", "zstd", "-1"), program("xz", "xz", "--check=none"),
	} {
		f.Add(p.pack(f, n), p.compression, int64(len(n)))
	}
	cache := NewCache(16 << 20)
	f.Fuzz(func(t *testing.T, file []byte, compression string, narSize int64) {
		o := Options{Name: "x.nar", Compression: compression, NarSize: narSize, Cache: cache}
		o.NarHash[0] = 1
		a, err := Open(bytes.NewReader(file), int64(len(file)), o)
		if err != nil || narSize > 1<<20 {
			return
		}
		defer a.Close()
		if _, err := a.ReadAt(make([]byte, 10), 0); err == nil && !a.RandomAccess() {
			t.Error("something is served that nothing has verified")
		}
		if _, err := a.WriteTo(io.Discard); err == nil {
			t.Error("WriteTo accepts a wrong NarHash")
		}
	})
}
