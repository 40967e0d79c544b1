package index

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

const benchPaths = 100_000

// benchCache makes a cache of as many narinfos as a large backup has, with
// references, and without archives.
func benchCache(b *testing.B) *bincache.Cache {
	b.Helper()
	dir := b.TempDir()
	must(b, os.WriteFile(filepath.Join(dir, bincache.InfoFile), nil, 0o644))
	rnd := rand.New(rand.NewPCG(1, 2))
	paths := make([]storepath.Path, benchPaths)
	for i := range paths {
		paths[i] = storepath.Path(fmt.Sprintf("%s-%s-%d.%d", randomHash(rnd), word(rnd), rnd.IntN(10), rnd.IntN(40)))
	}
	for _, p := range paths {
		info := &narinfo.NarInfo{
			StoreDir: "/nix/store", StorePath: p, Compression: "zstd",
			FileSize: rnd.Int64N(1 << 24), NarSize: 112, NarHash: randomSum(rnd),
			Deriver: storepath.Path(randomHash(rnd) + string(p[storepath.HashLen:]) + ".drv"),
		}
		sum := narinfo.Hash(randomSum(rnd))
		info.FileHash, info.URL = sum.String(), "nar/"+sum.Nix32()+".nar.zst"
		for range rnd.IntN(10) {
			info.References = append(info.References, paths[rnd.IntN(len(paths))])
		}
		must(b, os.WriteFile(filepath.Join(dir, p.Hash()+bincache.NarInfoExt), info.Bytes(), 0o644))
	}
	c, err := bincache.Open(dir, bincache.Options{})
	must(b, err)
	b.Cleanup(func() { c.Close() })
	return c
}

func randomSum(rnd *rand.Rand) (sum [32]byte) {
	for i := range sum {
		sum[i] = byte(rnd.Uint32())
	}
	return sum
}

// word returns one of 2,000 names, most of which are rare.
func word(rnd *rand.Rand) string {
	n := int(2000 * rnd.Float64() * rnd.Float64())
	r := rand.New(rand.NewPCG(7, uint64(n)))
	b := make([]byte, 3+r.IntN(14))
	for i := range b {
		b[i] = "eeettaaooinnsrhldcumfpgwybvkxjqz-"[r.IntN(33)]
	}
	return string(append([]byte{'p'}, b...))
}

// tinyListing is what a NAR of one empty file has.
func tinyListing(context.Context, *narinfo.NarInfo) (*nar.Listing, error) {
	var l nar.Builder
	if err := l.Add(nar.Header{Type: nar.Regular}); err != nil {
		return nil, err
	}
	return l.Listing()
}

// BenchmarkBuild is the first build of 100,000 store paths, and a second one
// that reuses all but one.
func BenchmarkBuild(b *testing.B) {
	c := benchCache(b)
	var first, second time.Duration
	var size int64
	for b.Loop() {
		dir := b.TempDir()
		start := time.Now()
		s, err := Build(b.Context(), dir, c, BuildOptions{Listing: tinyListing})
		must(b, err)
		first += time.Since(start)
		size = s.Size
		lost := filepath.Join(c.Dir(), string(hashes(b, c)[0])+bincache.NarInfoExt)
		must(b, os.Rename(lost, lost+".x"))
		start = time.Now()
		_, err = Build(b.Context(), dir, c, BuildOptions{Listing: tinyListing})
		must(b, err)
		second += time.Since(start)
		must(b, os.Rename(lost+".x", lost))
	}
	b.ReportMetric(first.Seconds()/float64(b.N), "s/first")
	b.ReportMetric(second.Seconds()/float64(b.N), "s/second")
	b.ReportMetric(float64(size)/benchPaths, "bytes/path")
}

func hashes(b *testing.B, c *bincache.Cache) []string {
	b.Helper()
	hs, err := c.Hashes()
	must(b, err)
	return hs
}

// BenchmarkOpen opens an index of 100,000 store paths.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	_, err := Build(b.Context(), dir, benchCache(b), BuildOptions{Listing: tinyListing})
	must(b, err)
	var names, all float64
	for b.Loop() {
		before := heap()
		ix, err := Open(dir, Options{})
		must(b, err)
		b.StopTimer()
		names = heap() - before
		if len(ix.Paths()) != benchPaths {
			b.Fatal("paths")
		}
		all = heap() - before
		must(b, ix.Close())
		b.StartTimer()
	}
	b.ReportMetric(names/1e6, "MB-open")
	b.ReportMetric(all/1e6, "MB-paths")
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkRecord reads records at random, listings included.
func BenchmarkRecord(b *testing.B) {
	dir := b.TempDir()
	_, err := Build(b.Context(), dir, benchCache(b), BuildOptions{Listing: tinyListing})
	must(b, err)
	ix, err := Open(dir, Options{})
	must(b, err)
	defer ix.Close()
	paths := ix.Paths()
	rnd := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		r, err := ix.Record(paths[rnd.IntN(len(paths))].Path)
		must(b, err)
		_, err = r.Listing()
		must(b, err)
	}
}

// BenchmarkSize is the size of an index whose store paths have some 10, or some
// 50, entries with names as packages have them.
func BenchmarkSize(b *testing.B) {
	b.Run("small", func(b *testing.B) { benchmarkSize(b, smallPackage) })
	b.Run("large", func(b *testing.B) { benchmarkSize(b, largePackage) })
}

// A packageShape is what the packages of a benchmark have.
type packageShape struct {
	dirs  []string
	files int // in each directory, at most
}

var (
	smallPackage = packageShape{[]string{"bin", "share"}, 8}
	largePackage = packageShape{[]string{"bin", "include", "lib", "nix-support", "share"}, 20}
)

func benchmarkSize(b *testing.B, shape packageShape) {
	f := newFakeCache(b, 0)
	var refs []storepath.Path
	for range 2000 {
		p := storepath.Path(fmt.Sprintf("%s-%s-1.%d", randomHash(f.rnd), word(f.rnd), f.rnd.IntN(40)))
		sum := narinfo.Hash(randomSum(f.rnd))
		info := &narinfo.NarInfo{
			StoreDir: "/nix/store", StorePath: p, Compression: "zstd", FileSize: f.rnd.Int64N(1 << 24), NarHash: randomSum(f.rnd),
			FileHash: sum.String(), URL: "nar/" + sum.Nix32() + ".nar.zst", References: refs,
			Deriver: storepath.Path(randomHash(f.rnd) + string(p[storepath.HashLen:]) + ".drv"),
		}
		info.NarSize = shape.listing(b, p).NarSize()
		f.write(p, info.Bytes())
		if refs = append(refs, p); len(refs) > 8 {
			refs = refs[4:]
		}
	}
	listing := func(_ context.Context, info *narinfo.NarInfo) (*nar.Listing, error) {
		return shape.listing(b, info.StorePath), nil
	}
	var s *Stats
	for b.Loop() {
		s = f.build(b.TempDir(), BuildOptions{Listing: listing})
	}
	b.ReportMetric(float64(s.Size)/float64(s.Entries), "bytes/entry")
	b.ReportMetric(float64(s.Entries)/float64(s.Paths), "entries/path")
}

// listing makes up what a package has, always the same for a path.
func (s packageShape) listing(b *testing.B, p storepath.Path) *nar.Listing {
	b.Helper()
	rnd := rand.New(rand.NewPCG(uint64(p[0])<<8|uint64(p[1]), uint64(p[2])<<8|uint64(p[3])))
	var l nar.Builder
	must(b, l.Add(nar.Header{Type: nar.Directory}))
	for _, dir := range s.dirs {
		must(b, l.Add(nar.Header{Depth: 1, Name: dir, Type: nar.Directory}))
		names := map[string]bool{}
		for range rnd.IntN(s.files) {
			names[word(rnd)+[]string{"", ".so", ".h", ".txt", ".mo"}[rnd.IntN(5)]] = true
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			h := nar.Header{Depth: 2, Name: name, Type: nar.Regular, Size: int64(rnd.ExpFloat64() * 9000), Executable: dir == "bin"}
			if rnd.IntN(15) == 0 {
				h = nar.Header{Depth: 2, Name: name, Type: nar.Symlink, Target: "../lib/" + name}
			}
			must(b, l.Add(h))
		}
	}
	listing, err := l.Listing()
	must(b, err)
	return listing
}
