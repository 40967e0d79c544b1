package nar

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// encoded returns the binary form.
func encoded(t testing.TB, l *Listing) []byte {
	t.Helper()
	b, err := l.AppendBinary([]byte("before"))
	must(t, err)
	rest, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Fatal("AppendBinary does not append")
	}
	return rest
}

// checkCodec checks that l comes back as it was.
func checkCodec(t testing.TB, l *Listing) {
	t.Helper()
	got, err := DecodeListing(encoded(t, l))
	must(t, err)
	sameListing(t, "decoded", got, l)
	checkListing(t, got)
	if fmt.Sprint(got.Deviation()) != fmt.Sprint(l.Deviation()) {
		t.Errorf("deviation %v, want %v", got.Deviation(), l.Deviation())
	}
}

func TestCodec(t *testing.T) {
	for name, nar := range map[string][]byte{
		"sample":    sample(),
		"file":      magic(file("x")),
		"program":   magic(program("")),
		"link":      magic(link("/a/b")),
		"empty":     magic(directory()),
		"unsorted":  magic(directory(in("b", file("1")), in("a", file("2")))),
		"reversed":  magic(directory(in("c", file("1")), in("b", directory(in("y", file("")), in("x", file("")))), in("a", link("x")))),
		"deep":      magic(nested(200)...),
		"deepest":   magic(nested(MaxDepth)...),
		"long name": magic(directory(in(strings.Repeat("n", MaxName), file("x")), in(strings.Repeat("n", MaxName-1)+"o", file("y")))),
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := tolerantListing(nar)
			must(t, l.err)
			checkCodec(t, l.Listing)
		})
	}
}

func TestCodecOfRandomTrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		l, _ := tolerantListing(magic(randomNode(rnd, 6)...))
		must(t, l.err)
		checkCodec(t, l.Listing)
	}
}

// Where the offsets follow from the names, they are not stored.
func TestCodecLeavesOutOffsets(t *testing.T) {
	for want, nar := range map[byte][]byte{
		0:                           sample(),
		flagDeviation:               magic(nested(70)...),
		flagDeviation | flagOffsets: magic(directory(in("b", file("1")), in("a", file("22222222")))),
	} {
		l, _ := tolerantListing(nar)
		must(t, l.err)
		if got := encoded(t, l.Listing)[0]; got != want {
			t.Errorf("flags %d, want %d", got, want)
		}
	}
}

// Every change of one byte, and every cut, gives an error or a listing in which
// everything holds.
func TestDecodeDamaged(t *testing.T) {
	for _, nar := range [][]byte{sample(), magic(directory(in("b", file("1")), in("a", file("22222222")), in("c", link("a"))))} {
		l, _ := tolerantListing(nar)
		must(t, l.err)
		good := encoded(t, l.Listing)
		for i := range good {
			if _, err := DecodeListing(good[:i]); err == nil {
				t.Errorf("cut after %d bytes: no error", i)
			}
			bad := bytes.Clone(good)
			for v := range 256 {
				bad[i] = byte(v)
				checkDecoded(t, bad)
			}
		}
		if _, err := DecodeListing(append(good, 0)); err == nil {
			t.Error("more bytes: no error")
		}
	}
}

// checkDecoded decodes data, which may be anything.
func checkDecoded(t testing.TB, data []byte) {
	t.Helper()
	l, err := DecodeListing(data)
	if err != nil {
		return
	}
	checkListing(t, l)
	for i := range l.Len() {
		e := l.Entry(i)
		h := Header{Depth: min(i, 1), Name: e.Name, Type: e.Type, Executable: e.Executable, Size: e.Size, Target: e.Target}
		if p := h.problem(); p != "" {
			t.Fatalf("entry %d: %s", i, p)
		}
		if e.Type == Regular && (e.Offset < 96 || e.Size > l.NarSize()-e.Offset) {
			t.Fatalf("entry %d is not in the NAR of %d bytes: %+v", i, l.NarSize(), e)
		}
	}
	checkCodec(t, l)
}

func TestDecodeBoundsMemory(t *testing.T) {
	// As many entries as it says, each with a name of 255 bytes that costs 4.
	const n = 100_000
	data := []byte{0, 0xa0, 0x8d, 0x06} // 100,000
	data = append(data, byte(Directory))
	data = append(data, bytes.Repeat([]byte{byte(Symlink)}, n-1)...)
	data = append(data, 0x9f, 0x8d, 0x06)
	data = append(data, bytes.Repeat([]byte{250}, n-1)...)
	data = append(data, bytes.Repeat([]byte{5}, n-1)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, err := DecodeListing(data); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / 10; got > 100*uint64(len(data)) {
		t.Errorf("%d bytes for an input of %d", got, len(data))
	}
}

// FuzzDecodeListing: no panic; what is decoded holds together and survives.
func FuzzDecodeListing(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, nar := range [][]byte{sample(), magic(randomNode(rnd, 4)...), magic(directory(in("b", file("1")), in("a", file("22222222"))))} {
		l, _ := tolerantListing(nar)
		must(f, l.err)
		f.Add(encoded(f, l.Listing))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkDecoded(t, data) })
}

func BenchmarkDecodeListing(b *testing.B) {
	nar := manyFiles()
	l, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
	must(b, err)
	data := encoded(b, l)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeListing(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(l.Len()), "ns/entry")
	b.ReportMetric(float64(len(data))/float64(l.Len()), "bytes/entry")
}

func BenchmarkAppendBinary(b *testing.B) {
	nar := manyFiles()
	l, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
	must(b, err)
	for b.Loop() {
		if _, err := l.AppendBinary(nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(l.Len()), "ns/entry")
}
