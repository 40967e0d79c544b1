package narread

import (
	"bytes"
	"slices"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

// layoutOf returns a NAR, a container for it, and its layout.
func layoutOf(t testing.TB, pack func(testing.TB, []byte) []byte) (n, file, layout []byte) {
	t.Helper()
	n = makeNAR(t, 700_000, 5, 0, 300_000)
	file = pack(t, n)
	a := open(t, file, optionsFor(n, "zstd"))
	return n, file, a.Layout()
}

func skippableInFront(t testing.TB, n []byte) []byte {
	return append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"), packOwn(t, n)...)
}

func TestLayout(t *testing.T) {
	for name, pack := range map[string]func(testing.TB, []byte) []byte{
		"own":                packOwn,
		"without seek table": func(t testing.TB, n []byte) []byte { return dropTable(packOwn(t, n)) },
		"with a gap":         skippableInFront,
		"xz":                 xzInBlocks.pack,
		"xz streams":         pieces(program("xz", "xz", "-0", "--check=crc32"), 300_000, "").pack,
	} {
		t.Run(name, func(t *testing.T) {
			n, file, layout := layoutOf(t, pack)
			if layout == nil {
				t.Fatal("no layout")
			}
			src := &counting{ReaderAt: bytes.NewReader(file)}
			o := optionsFor(n, "zstd")
			o.Layout = layout
			a, err := Open(src, int64(len(file)), o)
			must(t, err)
			defer a.Close()
			if reads := src.calls.Load(); reads != 0 {
				t.Errorf("%d reads to open it", reads)
			}
			got, err := readAll(a, 100_000)
			must(t, err)
			if !bytes.Equal(got, n) || !bytes.Equal(a.Layout(), layout) {
				t.Error("another NAR or layout")
			}
			var out bytes.Buffer
			_, err = a.WriteTo(&out)
			must(t, err)
		})
	}
}

// A layout made with a small cache, for which frames were too large, serves with
// a larger one, which takes them as they are, and the other way round.
func TestLayoutOfAnotherCache(t *testing.T) {
	n := makeNAR(t, maxWhole+1)
	for _, p := range []packer{pieces(zstdBare, 300_000, ""), pieces(zstdSums, 300_000, "")} {
		file := p.pack(t, n)
		for _, sizes := range [][2]int64{{0, 64 << 20}, {64 << 20, 0}} {
			o := optionsFor(n, p.compression)
			o.Cache, o.Once = NewCache(sizes[0]), true
			a := open(t, file, o)
			_, err := a.Listing()
			must(t, err)
			o.Layout, o.Cache, o.Once, o.SpoolDir = a.Layout(), NewCache(sizes[1]), false, t.TempDir()
			if got, err := readAll(open(t, file, o), 1<<20); err != nil || !bytes.Equal(got, n) {
				t.Errorf("caches of %v: wrong bytes, error %v", sizes, err)
			}
		}
	}
}

func TestNoLayout(t *testing.T) {
	n := makeNAR(t, 700_000)
	if open(t, n, optionsFor(n, "none")).Layout() != nil {
		t.Error("a plain NAR has a layout")
	}
}

// A layout that is of another file, damaged or made up gives the content, or
// errors.
func TestWrongLayout(t *testing.T) {
	for _, pack := range []func(testing.TB, []byte) []byte{packOwn, xzInBlocks.pack} {
		tryWrongLayouts(t, pack)
	}
}

func tryWrongLayouts(t *testing.T, pack func(testing.TB, []byte) []byte) {
	n, file, layout := layoutOf(t, pack)
	check := func(what string, wrong []byte) {
		t.Helper()
		o := optionsFor(n, "zstd")
		o.Layout = wrong
		a, err := Open(bytes.NewReader(file), int64(len(file)), o)
		must(t, err)
		defer a.Close()
		got, err := readAll(a, 1<<20)
		if err == nil && !bytes.Equal(got, n) {
			t.Errorf("%s: another NAR", what)
		}
		if err != nil {
			wantDamage(t, what, err)
		}
	}
	check("empty", []byte{})
	check("longer", append(slices.Clone(layout), 0))
	for i := 0; i < len(layout); i += testenv.Thin(7) {
		check("cut", layout[:i])
		for _, flip := range []byte{1, 0x10, 0x80, 0xff} {
			wrong := bytes.Clone(layout)
			wrong[i] ^= flip
			check("flipped", wrong)
		}
	}
}

// FuzzLayout: no panic; blocks lie in the file and make up the NAR, and there
// is a sum for each block.
func FuzzLayout(f *testing.F) {
	n, own, layout := layoutOf(f, packOwn)
	f.Add(layout, int64(len(own)))
	_, inBlocks, layout := layoutOf(f, xzInBlocks.pack)
	f.Add(layout, int64(len(inBlocks)))
	for _, p := range []packer{packers()[2], pieces(zstdBare, 300_000, ""), onePiece} {
		file := p.pack(f, n)
		a := open(f, file, Options{Name: "x.nar", Compression: p.compression, NarSize: int64(len(n)), NarHash: optionsFor(n, "").NarHash, Once: true})
		_, err := a.Listing()
		must(f, err)
		f.Add(a.Layout(), int64(len(file)))
	}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		k, err := readLayout(&file{size: size}, nil, data, int64(len(n)), maxFrame)
		if err != nil {
			return
		}
		blocks := fixed{int64(len(n)), blockSize}.count()
		if p, ok := k.random.(packed); ok {
			checkTable(t, p.places(), size, int64(len(n)))
			blocks = p.count()
		}
		if k.sums != nil && len(k.sums) != blocks {
			t.Errorf("%d sums of %d blocks", len(k.sums), blocks)
		}
	})
}

func checkTable(t *testing.T, fs *table, size, narSize int64) {
	t.Helper()
	for i, off := range fs.off {
		if off < 0 || off+int64(fs.packed[i]) > size || fs.starts[i+1] <= fs.starts[i] {
			t.Fatalf("block %d", i)
		}
	}
	if fs.starts[fs.count()] != narSize {
		t.Errorf("content of %d bytes", fs.starts[fs.count()])
	}
}

// TestLayoutOfSums opens containers without checksums by a layout that has
// hashes: nothing is read but the blocks that are wanted, and damage is damage
// of one block.
func TestLayoutOfSums(t *testing.T) {
	n := makeNAR(t, 8_500_000)
	for _, p := range []packer{packers()[2], pieces(zstdBare, 200_000, "zstd without checksums"), onePiece} {
		t.Run(p.name, func(t *testing.T) {
			file := p.pack(t, n)
			o := optionsFor(n, p.compression)
			o.Once, o.SpoolDir = true, t.TempDir()
			a := open(t, file, o)
			if a.Layout() != nil {
				t.Error("a layout before anything is known")
			}
			l, err := a.Listing()
			must(t, err)
			if i, ok := l.Find("a00"); !ok || l.Entry(i).Size != 8_500_000 {
				t.Error("another listing")
			}
			o.Layout, o.Once = a.Layout(), false
			src := &counting{ReaderAt: bytes.NewReader(file)}
			b, err := Open(src, int64(len(file)), o)
			must(t, err)
			defer b.Close()
			if inPieces := p.compression != "gzip"; b.RandomAccess() != inPieces || inPieces && src.calls.Load() > 0 {
				t.Errorf("RandomAccess %v, %d reads", b.RandomAccess(), src.calls.Load())
			}
			got, err := readAll(b, 100_000)
			if err != nil || !bytes.Equal(got, n) {
				t.Errorf("wrong bytes, error %v", err)
			}
			file[len(file)/2] ^= 1
			damaged := readable(t, open(t, file, o), n, 100_000)
			if bad := bytes.Count(asBytes(damaged), []byte{0}); bad == 0 || p.compression != "gzip" && bad > 7 {
				t.Errorf("%d of %d pieces cannot be read", bad, len(damaged))
			}
			o.Layout[len(o.Layout)-3] ^= 1 // a sum of the last block
			readable(t, open(t, file, o), n, 100_000)
		})
	}
}

// TestOnce lists without keeping anything.
func TestOnce(t *testing.T) {
	n := makeNAR(t, 300_000, 3)
	for _, p := range packers() {
		o := optionsFor(n, p.compression)
		o.Once, o.SpoolDir, o.Cache = true, "/nowhere", NewCache(0)
		l, err := open(t, p.pack(t, n), o).Listing()
		if err != nil || l.Len() != 3 {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	n = append(n, "more"...)
	o := optionsFor(n, "gzip")
	o.Once = true
	_, err := open(t, onePiece.pack(t, n), o).Listing()
	wantDamage(t, "more than a NAR", err)
}
