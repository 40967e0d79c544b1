package narread

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// readable returns which of the NAR's pieces of width bytes can be read. What is
// read must be right, what is not must be damage.
func readable(t testing.TB, a *Archive, n []byte, width int) (out []bool) {
	t.Helper()
	buf := make([]byte, width)
	for off := 0; off < len(n); off += width {
		want := n[off:min(off+width, len(n))]
		c, err := a.ReadAt(buf[:len(want)], int64(off))
		if !bytes.Equal(buf[:c], want[:c]) {
			t.Errorf("wrong bytes at %d", off)
		}
		if err != nil && err != io.EOF {
			wantDamage(t, fmt.Sprint("at ", off), err)
		}
		out = append(out, c == len(want))
	}
	return out
}

func onlyMissing(t testing.TB, what string, got []bool, from, to int) {
	t.Helper()
	for i, ok := range got {
		if ok == (i >= from && i < to) {
			t.Errorf("%s: piece %d of %d: readable is %v", what, i, len(got), ok)
		}
	}
}

// TestOneFrameIsOneBlock damages the header and a checksum of one frame, the
// first, the last or one between: all others can be read.
func TestOneFrameIsOneBlock(t *testing.T) {
	n := makeNAR(t, 2000)[:2300]
	file := smallTable.pack(t, n)
	a := open(t, file, optionsFor(n, "zstd"))
	fs := a.random.(*frames)
	layout := a.Layout()
	for _, i := range []int{0, 2, fs.count() - 1} {
		for b := range 8 * 10 { // magic number, descriptor, content size, block header
			bad := bytes.Clone(file)
			bad[int(fs.off[i])+b/8] ^= 1 << (b % 8)
			what := fmt.Sprintf("frame %d, bit %d", i, b)
			for _, layout := range [][]byte{nil, layout} {
				o := optionsFor(n, "zstd")
				if o.Layout = layout; b == 36 || i == 0 && b < 32 && layout == nil {
					continue // a bit that says nothing, or it does not look like zstd any more
				}
				onlyMissing(t, what, readable(t, open(t, bad, o), n, 500), i, i+1)
			}
		}
	}
}

// TestMixedFrames reads frames with and without checksums in one file.
func TestMixedFrames(t *testing.T) {
	n := makeNAR(t, 20_000)
	for _, bare := range [][]int{{0}, {1}, {3}, {0, 1}, {2, 3}, {0, 2, 3}} {
		var file []byte
		for i := range 4 {
			p := zstdSums
			for _, b := range bare {
				if i == b {
					p = zstdBare
				}
			}
			file = append(file, p.pack(t, n[i*5000:min((i+1)*5000, len(n))])...)
		}
		file = append(file, dropTable(packOwn(t, n[20_000:]))...)
		o := optionsFor(n, "zstd")
		o.Cache = NewCache(0)
		if got, err := readAll(open(t, file, o), 777); err != nil || !bytes.Equal(got, n) {
			t.Errorf("%v: %v", bare, err)
		}
		o.NarHash[3]++ // then only what has a checksum can be had
		readable(t, open(t, file, o), n, 5000)
	}
}

// TestTruncatedFrames cuts files of frames off: what is there can be read, the
// rest is damage, and so is the whole.
func TestTruncatedFrames(t *testing.T) {
	n := makeNAR(t, 2000)[:2300]
	withTable := smallTable.pack(t, n)
	full := open(t, withTable, optionsFor(n, "zstd")).random.(*frames)
	for size := int(full.off[1]) + int(full.packed[1]); size < len(withTable); size++ {
		there := 0
		for there < full.count() && int(full.off[there])+int(full.packed[there]) <= size {
			there++
		}
		var warned error
		o := optionsFor(n, "zstd")
		o.Warn = func(err error) { warned = err }
		a := open(t, withTable[:size], o)
		onlyMissing(t, fmt.Sprint(size), readable(t, a, n, 500), there, full.count())
		_, err := a.WriteTo(io.Discard)
		if tableGone := size == int(full.off[4])+int(full.packed[4]); (err == nil) != tableGone || a.RandomAccess() != tableGone {
			t.Errorf("%d bytes: WriteTo: %v, RandomAccess %v", size, err, a.RandomAccess())
		}
		if (warned == nil) != (err == nil) {
			t.Errorf("%d bytes: warned of %v", size, warned)
		}
		if err != nil {
			wantDamage(t, "WriteTo", err)
			if a.Layout() != nil {
				t.Errorf("%d bytes: there is a layout", size)
			}
		}
	}
}

// TestMissingIsNotAllocated claims a NAR that is larger than memory.
func TestMissingIsNotAllocated(t *testing.T) {
	n := makeNAR(t, 2000)
	o := optionsFor(n, "zstd")
	o.NarSize = maxNarSize
	a := open(t, dropTable(smallTable.pack(t, n)), o)
	if got := readable(t, a, n[:2000], 500); len(got) != 4 || !got[3] {
		t.Errorf("readable: %v", got)
	}
	_, err := a.ReadAt(make([]byte, 10), 1<<50)
	wantDamage(t, "far behind the end", err)
	_, err = a.WriteTo(io.Discard)
	wantDamage(t, "WriteTo", err)
}

// TestLyingSizes cuts a file off of which a frame before says that it is larger
// or smaller than it is: the frames behind that one would be served at offsets
// where they do not belong.
func TestLyingSizes(t *testing.T) {
	n := makeNAR(t, 2000)[:2300]
	for _, frameSize := range []int{300, 500} {
		file := pieces(packer{"", "zstd", func(t testing.TB, n []byte) []byte { return dropTable(packOwn(t, n)) }}, frameSize, "").pack(t, n)
		fs := open(t, file, optionsFor(n, "zstd")).random.(*frames)
		for _, x := range []byte{1, 0x7f, 0x40} {
			bad := bytes.Clone(file[:len(file)-20])
			bad[fs.off[2]+5] ^= x // content size
			onlyMissing(t, fmt.Sprint(frameSize, x), readable(t, open(t, bad, optionsFor(n, "zstd")), n, frameSize), 2, fs.count())
		}
	}
	n = makeNAR(t, 6*blockSize)
	file := dropTable(packOwn(t, n))
	fs := open(t, file, optionsFor(n, "zstd")).random.(*frames)
	bad := bytes.Clone(file[:fs.off[5]])
	onlyMissing(t, "own, cut off", readable(t, open(t, bad, optionsFor(n, "zstd")), n, blockSize), 5, 7)
	bad[fs.off[2]+5] ^= 1
	onlyMissing(t, "own, cut off, a wrong size", readable(t, open(t, bad, optionsFor(n, "zstd")), n, blockSize), 2, 7)
}

// TestTruncatedXzBlocks cuts files of xz blocks that state their sizes off, and
// damages what is behind them.
func TestTruncatedXzBlocks(t *testing.T) {
	n := makeNAR(t, 2000)[:2300]
	file := program("xz", "xz", "-0", "--block-size=500", "-T2").pack(t, n)
	full := open(t, file, optionsFor(n, "xz")).random.(*xzBlocks)
	end := func(i int) int { return int(full.off[i]) + (int(full.packed[i])+3)&^3 }
	for size := end(0); size < len(file); size++ {
		there := 0
		for there < full.count() && end(there) <= size {
			there++
		}
		var warned error
		o := optionsFor(n, "xz")
		o.Warn = func(err error) { warned = err }
		a := open(t, file[:size], o)
		onlyMissing(t, fmt.Sprint(size), readable(t, a, n, 500), there, full.count())
		_, err := a.WriteTo(io.Discard)
		wantDamage(t, "WriteTo", err)
		if a.RandomAccess() || a.Layout() != nil || warned == nil {
			t.Errorf("%d bytes: RandomAccess %v, warned of %v", size, a.RandomAccess(), warned)
		}
	}
	for i := end(full.count() - 1); i < len(file); i++ {
		bad := bytes.Clone(file)
		bad[i] ^= 0x10
		a := open(t, bad, optionsFor(n, "xz"))
		onlyMissing(t, fmt.Sprint("byte ", i), readable(t, a, n, 500), 0, 0)
		_, err := a.WriteTo(io.Discard)
		wantDamage(t, "WriteTo", err)
	}
}
