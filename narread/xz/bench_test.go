package xz

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/ulikunitz/xz"
)

// benchContent returns some MiB, or the file that $NARVAULT_BENCH_NAR names:
// figures are worth what the content is worth.
func benchContent(b *testing.B) []byte {
	if name := os.Getenv("NARVAULT_BENCH_NAR"); name != "" {
		in, err := os.ReadFile(name)
		must(b, err)
		return in
	}
	return content(8<<20, 1)
}

func BenchmarkBlocks(b *testing.B) {
	in := benchContent(b)
	file := pack(b, in, "-6", "--block-size=1MiB", "-T0")
	blocks, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 1<<20)
	must(b, err)
	dst := make([]byte, 1<<20)
	var d Decoder
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		for _, k := range blocks {
			must(b, d.Block(k, dst[:k.Size], file[k.Offset:k.Offset+k.Stored()]))
		}
	}
}

func benchReader(b *testing.B, open func(io.Reader) (io.Reader, error)) {
	in := benchContent(b)
	file := pack(b, in, "-6")
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r, err := open(bytes.NewReader(file))
		must(b, err)
		_, err = io.Copy(io.Discard, r)
		must(b, err)
	}
}

func BenchmarkReader(b *testing.B) {
	benchReader(b, func(r io.Reader) (io.Reader, error) { return NewReader(r, testWindow), nil })
}

func BenchmarkUlikunitz(b *testing.B) {
	benchReader(b, func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) })
}

func BenchmarkIndex(b *testing.B) {
	file := pack(b, content(8<<20, 1), "-0", "--block-size=8KiB", "-T0")
	for b.Loop() {
		_, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 1<<20)
		must(b, err)
	}
}
