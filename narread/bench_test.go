package narread

import (
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// benchNAR returns a NAR of 32 MiB, or the one that $NARVAULT_BENCH_NAR names:
// figures are worth what the content is worth.
func benchNAR(b *testing.B) []byte {
	if name := os.Getenv("NARVAULT_BENCH_NAR"); name != "" {
		n, err := os.ReadFile(name)
		must(b, err)
		return n
	}
	return makeNAR(b, 16<<20, 16<<20)
}

func benchOpen(b *testing.B, cache int64) *Archive {
	n := benchNAR(b)
	o := optionsFor(n, "zstd")
	o.Cache = NewCache(cache)
	return open(b, packOwn(b, n), o)
}

func benchRandom(b *testing.B, cache int64) {
	a := benchOpen(b, cache)
	buf := make([]byte, 4096)
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		if _, err := a.ReadAt(buf, r.Int64N(a.Size()-4096)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandom4KHit(b *testing.B)  { benchRandom(b, 1<<30) }
func BenchmarkRandom4KMiss(b *testing.B) { benchRandom(b, 0) }

func BenchmarkSequential128K(b *testing.B) {
	a := benchOpen(b, 32<<20)
	b.SetBytes(a.Size())
	for b.Loop() {
		if _, err := readAll(a, 128<<10); err != nil {
			b.Fatal(err)
		}
		a.cache.forget(a)
	}
}

func BenchmarkWriteTo(b *testing.B) {
	a := benchOpen(b, 0)
	b.SetBytes(a.Size())
	for b.Loop() {
		if _, err := a.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	n := benchNAR(b)
	file := packOwn(b, n)
	o := optionsFor(n, "zstd")
	o.Cache = NewCache(0)
	for b.Loop() {
		open(b, file, o)
	}
}
