package narread

import (
	"bytes"
	"slices"
	"testing"
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
	for i := range layout {
		check("cut", layout[:i])
		for _, flip := range []byte{1, 0x10, 0x80, 0xff} {
			wrong := bytes.Clone(layout)
			wrong[i] ^= flip
			check("flipped", wrong)
		}
	}
}

// FuzzLayout: no panic; blocks lie in the file and make up the NAR.
func FuzzLayout(f *testing.F) {
	n, packed, layout := layoutOf(f, packOwn)
	f.Add(layout)
	_, _, layout = layoutOf(f, xzInBlocks.pack)
	f.Add(layout)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := layoutBlocks(&file{size: int64(len(packed))}, nil, data, int64(len(n)), maxFrame)
		if err != nil {
			return
		}
		fs := c.places()
		for i, off := range fs.off {
			if off < 0 || off+int64(fs.packed[i]) > int64(len(packed)) || fs.starts[i+1] <= fs.starts[i] {
				t.Fatalf("block %d", i)
			}
		}
		if fs.starts[fs.count()] != int64(len(n)) {
			t.Errorf("content of %d bytes", fs.starts[fs.count()])
		}
	})
}
