package narread

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/spool"
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
	var took []time.Duration
	for b.Loop() {
		off := r.Int64N(a.Size() - 4096)
		start := time.Now()
		if _, err := a.ReadAt(buf, off); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	reportPercentiles(b, took)
}

func reportPercentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
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

// BenchmarkFirstTouch reads one byte of what has to be decoded as a whole, into
// the spool; BenchmarkSecondTouch reads it when it is there, as another process.
func BenchmarkFirstTouch(b *testing.B) {
	n := benchNAR(b)
	file := program("xz", "xz", "-1").pack(b, n)
	b.SetBytes(int64(len(n)))
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		o := optionsFor(n, "xz")
		o.Cache, o.Spool = NewCache(0), spool.New(b.TempDir(), 1<<40)
		b.StartTimer()
		start := time.Now()
		touch(b, file, o)
		took = append(took, time.Since(start))
	}
	reportPercentiles(b, took)
}

func BenchmarkSecondTouch(b *testing.B) {
	n := benchNAR(b)
	file := program("xz", "xz", "-1").pack(b, n)
	o := optionsFor(n, "xz")
	o.Cache, o.Spool = NewCache(0), spool.New(b.TempDir(), 1<<40)
	touch(b, file, o)
	for b.Loop() {
		touch(b, file, o)
	}
}

func touch(b *testing.B, file []byte, o Options) {
	a, err := Open(bytes.NewReader(file), int64(len(file)), o)
	must(b, err)
	_, err = a.ReadAt(make([]byte, 1), a.Size()/2)
	must(b, errors.Join(err, a.Close()))
}
