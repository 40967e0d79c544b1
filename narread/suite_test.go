package narread

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/narvault/narvault/narread/testenv"
)

// TestContainers reads every container in every way: what comes out must be
// the NAR.
func TestContainers(t *testing.T) {
	n := makeNAR(t, 0, 1, 5000, 500_000, 3, blockSize, 23_456)
	for i, p := range packers() {
		t.Run(p.name, func(t *testing.T) {
			file := p.pack(t, n)
			for j, cache := range []int64{0, 900_000, 64 << 20} {
				if (i+j)%testenv.Thin(3) == 0 {
					readEveryWay(t, n, file, p.compression, cache)
				}
			}
		})
	}
}

func readEveryWay(t *testing.T, n, file []byte, compression string, cache int64) {
	t.Helper()
	before := runtime.NumGoroutine()
	o := optionsFor(n, compression)
	o.Cache, o.SpoolDir = NewCache(cache), t.TempDir()
	o.Warn = func(err error) { t.Errorf("warning: %v", err) }
	src := &counting{ReaderAt: bytes.NewReader(file)}
	a, err := Open(src, int64(len(file)), o)
	must(t, err)
	for _, step := range []int{10007, 131072, blockSize, blockSize + 1, len(n)} {
		if got, err := readAll(a, step); err != nil || !bytes.Equal(got, n) {
			t.Fatalf("cache %d, step %d: wrong bytes, error %v", cache, step, err)
		}
	}
	if cache > 0 { // it reads byte by byte
		if err := iotest.TestReader(io.NewSectionReader(a, 0, 20000), n[:20000]); err != nil {
			t.Error(err)
		}
	}
	readConcurrently(t, a, n)
	var out bytes.Buffer
	if c, err := a.WriteTo(&out); err != nil || c != int64(len(n)) || !bytes.Equal(out.Bytes(), n) {
		t.Errorf("WriteTo = %d, %v", c, err)
	}
	l, err := a.Listing()
	if err != nil {
		t.Errorf("Listing: %v", err)
	} else if i, ok := l.Find("a01"); !ok || !bytes.Equal(n[l.Entry(i).Offset:][:l.Entry(i).Size], content(int(l.Entry(i).Size), 1)) {
		t.Errorf("Listing does not lead to the content of a01")
	}
	if left, _ := os.ReadDir(o.SpoolDir); len(left) > 0 {
		t.Errorf("spool file still has a name: %v", left)
	}
	must(t, a.Close())
	if !src.closed.Load() {
		t.Error("source not closed")
	}
	if len(o.Cache.entries) != 0 || o.Cache.used != 0 || o.Cache.lru.Len() != 0 {
		t.Errorf("cache keeps %d entries, %d bytes", len(o.Cache.entries), o.Cache.used)
	}
	noMoreGoroutines(t, before)
}

// readConcurrently compares random reads on several goroutines.
func readConcurrently(t *testing.T, a *Archive, n []byte) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			buf := make([]byte, 300_000)
			for range 12 {
				off := r.IntN(len(n))
				p := buf[:r.IntN(len(buf))]
				c, err := a.ReadAt(p, int64(off))
				if want := min(len(p), len(n)-off); c != want || !bytes.Equal(p[:c], n[off:off+c]) {
					t.Errorf("ReadAt(%d, %d) = %d, %v: wrong", len(p), off, c, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestEdges reads lengths and offsets round the edges of blocks, of NARs that
// end round them too.
func TestEdges(t *testing.T) {
	edges := []int{0, 1, blockSize - 1, blockSize, blockSize + 1, 2*blockSize - 1, 2 * blockSize, 3*blockSize + 5}
	for _, fill := range []int{1, blockSize - 400, 3 * blockSize} {
		base := len(makeNAR(t, fill))
		for _, pad := range []int{0, 8} { // NARs are multiples of 8
			n := makeNAR(t, fill+pad+(blockSize-base%blockSize)%blockSize)
			for _, compression := range []string{"none", "zstd"} {
				file := n
				if compression == "zstd" {
					file = packOwn(t, n)
				}
				a := open(t, file, optionsFor(n, compression))
				checkEdges(t, a, n, edges)
			}
		}
	}
}

func checkEdges(t *testing.T, a *Archive, n []byte, edges []int) {
	t.Helper()
	r := bytes.NewReader(n)
	for _, off := range append(edges, len(n)-1, len(n), len(n)+1) {
		for _, size := range edges {
			got, want := make([]byte, size), make([]byte, size)
			gn, gerr := a.ReadAt(got, int64(off))
			wn, werr := r.ReadAt(want, int64(off))
			if off+size == len(n) && wn == size {
				gerr, werr = nil, nil // either is allowed
			}
			if gn != wn || gerr != werr || !bytes.Equal(got, want) {
				t.Errorf("size %d: ReadAt(%d, %d) = %d, %v, want %d, %v", len(n), size, off, gn, gerr, wn, werr)
			}
		}
	}
	if _, err := a.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("negative offset: %v", err)
	}
}

// TestKinds makes sure that containers are read the way they should be.
func TestKinds(t *testing.T) {
	small, large := makeNAR(t, 900_000), makeNAR(t, 5<<20, 5<<20)
	kind := func(n []byte, p packer, cache int64) string {
		o := optionsFor(n, p.compression)
		o.Cache = NewCache(cache)
		a := open(t, p.pack(t, n), o)
		b, err := a.blocks()
		must(t, err)
		return fmt.Sprintf("%T direct=%v n=%d", b.container, a.direct, b.count())
	}
	for _, tt := range []struct {
		n     []byte
		p     packer
		cache int64
		want  string
	}{
		{small, own, 0, "*narread.frames direct=true n=4"},
		{small, packer{"", "zstd", func(t testing.TB, n []byte) []byte { return dropTable(packOwn(t, n)) }}, 0, "*narread.frames direct=true n=4"},
		{small, packers()[2], 1 << 20, "*narread.plain direct=false n=4"},
		{small, pieces(zstdBare, 200_000, ""), 8 << 20, "*narread.whole direct=false n=1"},
		{small, pieces(zstdBare, 200_000, ""), 1 << 20, "*narread.frames direct=false n=5"},
		{large, pieces(zstdBare, 3<<20, ""), 64 << 20, "*narread.frames direct=false n=4"},
		{large, pieces(zstdSums, 3<<20, ""), 64 << 20, "*narread.frames direct=true n=4"},
		{large, pieces(zstdSums, 3<<20, ""), 4 << 20, "*narread.spooled direct=false n=41"},
		{large, zstdBare, 64 << 20, "*narread.frames direct=false n=1"},
		{large, program("zstd", "zstd", "-1"), 64 << 20, "*narread.spooled direct=false n=41"},
		{small, program("xz", "xz", "-1"), 64 << 20, "*narread.xzBlocks direct=true n=1"},
		{small, xzInBlocks, 0, "*narread.xzBlocks direct=true n=5"},
		{small, program("xz", "xz", "-1", "--check=none"), 64 << 20, "*narread.whole direct=false n=1"},
		{large, program("xz", "xz", "-0", "--check=none", "--block-size=3MiB"), 64 << 20, "*narread.xzBlocks direct=false n=4"},
		{large, program("xz", "xz", "-0", "--check=crc32", "--block-size=8MiB"), 64 << 20, "*narread.xzBlocks direct=true n=2"},
		{large, program("xz", "xz", "-0", "--block-size=9MiB"), 64 << 20, "*narread.spooled direct=false n=41"},
		{large, program("xz", "xz", "-0"), 64 << 20, "*narread.spooled direct=false n=41"},
		{small, program("xz", "xz", "-1"), 0, "*narread.spooled direct=false n=4"},
	} {
		if got := kind(tt.n, tt.p, tt.cache); got != tt.want {
			t.Errorf("%s, cache %d: %s, want %s", tt.p.name, tt.cache, got, tt.want)
		}
	}
}

// TestOneProcessor reads with one processor, where nothing may wait for
// another goroutine to get its turn.
func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	n := makeNAR(t, 5000, 2_000_000)
	for _, p := range []packer{own, pieces(zstdBare, 300_000, ""), {"brotli", "br", packBrotli}} {
		readEveryWay(t, n, p.pack(t, n), p.compression, 1<<20)
	}
}

// TestReadsOnlyItsBlocks reads one small file of a large NAR, and counts.
func TestReadsOnlyItsBlocks(t *testing.T) {
	sizes := make([]int, 40)
	for i := range sizes {
		sizes[i] = 300_000 + i
	}
	n := makeNAR(t, sizes...)
	file := packOwn(t, n)
	src := &counting{ReaderAt: bytes.NewReader(file)}
	o := optionsFor(n, "zstd")
	o.Cache = NewCache(32 << 20)
	a, err := Open(src, int64(len(file)), o)
	must(t, err)
	if got, limit := src.bytes.Load(), int64(8+9+9+41*12+100); got > limit {
		t.Errorf("Open reads %d bytes, want at most %d", got, limit)
	}
	b, err := a.blocks()
	must(t, err)
	fs := b.container.(*frames)
	src.bytes.Store(0)
	off := fs.start(20) - 100 // from block 19 into block 20
	got := make([]byte, 4096)
	_, err = a.ReadAt(got, off)
	must(t, err)
	if !bytes.Equal(got, n[off:off+4096]) {
		t.Error("wrong bytes")
	}
	if got, want := src.bytes.Load(), int64(fs.packed[19])+int64(fs.packed[20]); got != want {
		t.Errorf("read %d bytes of the file, want those of two blocks, %d", got, want)
	}
	a.ReadAt(got, off)
	// Magic number, footer, table, three frame headers, two blocks.
	if got := src.calls.Load(); got != 8 {
		t.Errorf("%d reads", got)
	}
	must(t, a.Close())
}

func TestWrongLabel(t *testing.T) {
	n := makeNAR(t, 3000)
	for _, tt := range []struct{ label, really string }{
		{"zstd", "xz"}, {"xz", "zstd"}, {"", "xz"}, {"none", "gzip"}, {"xz", "none"}, {"br", "zstd"},
		{"br", "bzip2"}, {"bogus", "gzip"}, {"lzma", "lz4"}, {"gzip", "bzip2"}, {"xz", "lzma"}, {"xz", "lzip"}, {"lzma", "xz"},
	} {
		var file []byte
		for _, p := range packers() {
			if p.compression == tt.really {
				file = p.pack(t, n)
			}
		}
		var warned []error
		o := optionsFor(n, tt.label)
		o.Warn = func(err error) { warned = append(warned, err) }
		got, err := readAll(open(t, file, o), 4096)
		if err != nil || !bytes.Equal(got, n) {
			t.Errorf("%s labelled %q: %v", tt.really, tt.label, err)
		}
		if len(warned) != 1 || !errors.Is(warned[0], errLabel) || !strings.Contains(warned[0].Error(), "it is "+tt.really) {
			t.Errorf("%s labelled %q: warnings %v", tt.really, tt.label, warned)
		}
		must(t, func() error { o.Warn = nil; _, err := Open(bytes.NewReader(file), int64(len(file)), o); return err }())
	}
}

func TestUnsupported(t *testing.T) {
	n := makeNAR(t, 30)
	for _, tt := range []struct{ label, head string }{{"compress", "\x1f\x9d\x90"}, {"lrzip", "LRZI\x00\x06"}, {"lzop", "\x89LZO\x00"}, {"bogus", "bogus"}} {
		_, err := Open(strings.NewReader(tt.head), int64(len(tt.head)), optionsFor(n, tt.label))
		if !errors.Is(err, errors.ErrUnsupported) || isDamage(err) {
			t.Errorf("%q: %v", tt.label, err)
		}
	}
	for _, o := range []Options{{NarSize: 100}, {NarHash: optionsFor(n, "").NarHash}, {NarSize: -1, NarHash: optionsFor(n, "").NarHash}} {
		if _, err := Open(bytes.NewReader(n), int64(len(n)), o); err == nil {
			t.Errorf("opened with %+v", o)
		}
	}
}
