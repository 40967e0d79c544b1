package xz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestFilesOfXz decodes what the xz program makes with all kinds of options.
func TestFilesOfXz(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-0"}, {"-9e"}, {"-1", "--check=none"}, {"-1", "--check=crc32"}, {"-1", "--check=sha256"},
		{"-1", "--block-size=100000"}, {"-1", "--block-size=5000", "--check=sha256"}, {"-1", "-T4", "--block-size=300KiB"},
		{"--lzma2=dict=4KiB"}, {"--lzma2=dict=64MiB,nice=273"}, {"--lzma2=lc=0,lp=4,pb=0"}, {"--lzma2=lc=4,lp=0,pb=4"},
		{"--lzma2=lc=2,lp=2,pb=1,mode=fast,mf=hc3"}, {"--lzma2=preset=0,nice=5,depth=1"},
	} {
		for _, n := range []int{0, 1, 4095, 200_000} {
			in := content(n, uint64(n))
			wantContent(t, fmt.Sprint(args, n), pack(t, in, args...), in)
		}
	}
}

// TestFarMatches has matches at the greatest distance that the dictionary
// allows, and a window that moves on many times.
func TestFarMatches(t *testing.T) {
	piece := content(1<<20, 7)
	in := bytes.Repeat(piece, 4)
	for _, dict := range []string{"1MiB", "2MiB"} {
		wantContent(t, dict, pack(t, in, "--lzma2=preset=0,dict="+dict), in)
	}
	noise := bytes.Repeat(randomBytes(64<<10), 20) // stored once, then one match after another
	wantContent(t, "noise", pack(t, noise, "--lzma2=preset=0,dict=64KiB"), noise)
}

func TestStreams(t *testing.T) {
	in := content(200_000, 1)
	part := func(n int, args ...string) []byte { return pack(t, in[n*50_000:][:50_000], args...) }
	zeros := make([]byte, 64<<10)
	one := part(0, "-1", "--block-size=20000")
	two, three, four := part(1, "--check=sha256"), part(2, "--check=none"), part(3, "--check=crc32")
	empty := pack(t, nil)
	for name, file := range map[string][]byte{
		"joined":       slices.Concat(one, two, three, four),
		"padded":       slices.Concat(one, zeros[:4], two, zeros[:12], three, zeros, four, zeros[:8]),
		"empty ones":   slices.Concat(empty, one, empty, zeros[:4], empty, two, three, four, empty),
		"many of them": slices.Concat(bytes.Repeat(empty, 500), one, two, bytes.Repeat(empty, 500), three, four),
	} {
		wantContent(t, name, file, in)
	}
	for name, file := range map[string][]byte{
		"padding of 3":     slices.Concat(one, zeros[:3], two),
		"padding of 5":     slices.Concat(one, two, zeros[:5]),
		"padding in front": slices.Concat(zeros[:4], one),
		"nothing":          nil,
		"padding only":     zeros[:8],
		"garbage":          append(bytes.Clone(one), "garb"...),
		"zero and garbage": append(bytes.Clone(one), 0, 0, 0, 0, 0, 0, 0, 1),
	} {
		wantError(t, name, file)
	}
}

// wantError wants an error of the format from every way, and returns it.
func wantError(t testing.TB, what string, file []byte) (err error) {
	t.Helper()
	for way, decode := range ways {
		var out []byte
		if out, err = decode(file); err == nil {
			t.Errorf("%s, %s: no error, %d bytes", what, way, len(out))
		}
	}
	return err
}

// TestOffsets wants errors to say where.
func TestOffsets(t *testing.T) {
	in := content(300_000, 2)
	file := pack(t, in, "-1", "--block-size=100000")
	blocks, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 10)
	must(t, err)
	for i, b := range blocks {
		bad := bytes.Clone(file)
		bad[b.Offset+5] ^= 1 // in the header of the block
		var e *Error
		if _, err := inOrder(bad); !errors.As(err, &e) || e.Offset != b.Offset {
			t.Errorf("header of block %d at %d: %v", i, b.Offset, err)
		}
		bad = bytes.Clone(file)
		bad[b.Offset+b.Unpadded-1] ^= 1 // in its check
		if _, err := inOrder(bad); !errors.As(err, &e) || e.Offset != b.Offset+b.Stored() || !errors.Is(err, errCheck) {
			t.Errorf("check of block %d at %d: %v", i, b.Offset, err)
		}
	}
}

// TestMediumErrors wants errors of reading as they are.
func TestMediumErrors(t *testing.T) {
	file := pack(t, content(300_000, 2), "-1", "--block-size=100000")
	for n := 0; n < len(file); n += 20_011 {
		r := NewReader(io.MultiReader(bytes.NewReader(file[:n]), errorReader{}), testWindow)
		if _, err := io.ReadAll(r); err != errMedium {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, err := ReadIndex(errorReader{}, 5000, 10); err != errMedium {
		t.Error(err)
	}
}

var errMedium = errors.New("medium")

type errorReader struct{}

func (errorReader) Read([]byte) (int, error)          { return 0, errMedium }
func (errorReader) ReadAt([]byte, int64) (int, error) { return 0, errMedium }

// TestSizesInHeaders has blocks that say their sizes themselves, as
// multi-threaded encoders write them, and lie.
func TestSizesInHeaders(t *testing.T) {
	data := stored(1, "hello") + "\x00"
	block := func(flags byte, sizes ...byte) []byte {
		return append(header(flags, append(sizes, idLZMA2, 1, 16)...), data...)
	}
	size := []uint64{5}
	for _, tt := range []struct {
		block []byte
		ok    bool
	}{
		{block(0x00), true},
		{block(0x40, 9), true}, {block(0x80, 5), true}, {block(0xc0, 9, 5), true},
		{block(0x40, 8), false}, {block(0x40, 10), false}, {block(0x40, 0), false},
		{block(0x80, 4), false}, {block(0x80, 6), false}, {block(0xc0, 5, 9), false}, {block(0xc0, 0x89, 0, 5), false},
	} {
		file := fileOf(CheckNone, size, tt.block)
		if tt.ok {
			wantContent(t, fmt.Sprintf("%x", tt.block), file, []byte("hello"))
		} else {
			wantError(t, fmt.Sprintf("%x", tt.block), file)
		}
	}
}

// TestReservedChecks decodes blocks with checks that are yet to be defined.
func TestReservedChecks(t *testing.T) {
	for c, n := range []int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64} {
		if Check(c).Size() != n {
			t.Errorf("check %d has %d bytes, want %d", c, Check(c).Size(), n)
		}
		if Check(c).Verified() {
			continue
		}
		// The padding comes before the check.
		block := append(append(lzma2Header(), stored(1, "hello!!!!!")...), 0)
		unpadded := len(block) + n
		block = append(pad(block), make([]byte, n)...)
		index := indexOf(1, uint64(unpadded), 10)
		file := slices.Concat(streamHeader(Check(c)), block, index, streamFooter(uint32(len(index)), Check(c)))
		wantContent(t, fmt.Sprint(c), file, []byte("hello!!!!!"))
	}
}

func TestUnsupported(t *testing.T) {
	data := stored(1, "hello") + "\x00"
	for name, head := range map[string][]byte{
		"unknown filter":       header(1, 0x7f, 0, idLZMA2, 1, 16),
		"RISC-V":               header(1, 0x0b, 0, idLZMA2, 1, 16),
		"LZMA2 not at the end": header(1, idLZMA2, 1, 16, idLZMA2, 1, 16),
		"delta at the end":     header(1, idLZMA2, 1, 16, idDelta, 1, 0),
		"unaligned start":      header(1, idARM, 4, 1, 0, 0, 0, idLZMA2, 1, 16),
		"properties of BCJ":    header(1, idX86, 1, 0, idLZMA2, 1, 16),
		"properties of delta":  header(1, idDelta, 0, idLZMA2, 1, 16),
		"dictionary of 2^41":   header(0, idLZMA2, 1, 60),
		"properties of LZMA2":  header(0, idLZMA2, 2, 16, 16),
		"reserved block flags": header(4, idLZMA2, 1, 16),
		"id of many bytes":     header(1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, idLZMA2, 1, 16),
	} {
		err := wantError(t, name, fileOf(CheckNone, []uint64{5}, append(head, data...)))
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := fileOf(CheckNone, []uint64{5}, append(lzma2Header(), data...))
	flags := slices.Concat(file[:6], withCRC([]byte{1, 0}), file[12:])
	if err := wantError(t, "stream flags", flags); !strings.Contains(err.Error(), "stream flags") {
		t.Error(err)
	}
}

// TestLargeDictionary needs no memory for what a header says, and refuses to
// keep more history than the caller allows.
func TestLargeDictionary(t *testing.T) {
	for bits := byte(0); bits <= 40; bits++ {
		file := fileOf(CheckNone, []uint64{5}, append(append(header(0, idLZMA2, 1, bits), stored(1, "hello")...), 0))
		got, err := byBlocks(file)
		if err != nil || string(got) != "hello" {
			t.Errorf("%d: %v", bits, err)
		}
		got, err = inOrder(file)
		if bits <= 30 && (err != nil || string(got) != "hello") || bits > 30 && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("dictionary %d: %v", bits, err)
		}
	}
}

// TestWalkBlocks finds blocks without the index, if they say how large they are.
func TestWalkBlocks(t *testing.T) {
	in := content(30_000, 2)
	file := pack(t, in, "-0", "--block-size=4000", "-T2")
	want, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 100)
	must(t, err)
	last := want[len(want)-1]
	for _, size := range []int64{last.Offset + last.Stored(), last.Offset + last.Stored() + 5, int64(len(file))} {
		got, err := WalkBlocks(bytes.NewReader(file[:size]), size, 100)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d of %d bytes: %d blocks, %v", size, len(file), len(got), err)
		}
	}
	for size := range file[:want[2].Offset] {
		got, err := WalkBlocks(bytes.NewReader(file[:size]), int64(size), 100)
		if err != nil || !slices.Equal(got, want[:len(got)]) || len(got) == 2 && int64(size) < want[2].Offset {
			t.Errorf("%d bytes: %d blocks, %v", size, len(got), err)
		}
	}
	if got, err := WalkBlocks(bytes.NewReader(file), int64(len(file)), 3); err != nil || len(got) != 3 {
		t.Errorf("limit of 3: %d blocks, %v", len(got), err)
	}
	bare := pack(t, in, "-0", "-T1")
	if got, err := WalkBlocks(bytes.NewReader(bare), int64(len(bare)), 100); err != nil || len(got) != 0 {
		t.Errorf("sizes not stated: %d blocks, %v", len(got), err)
	}
	if _, err := WalkBlocks(errorReader{}, 5000, 10); err != errMedium {
		t.Error(err)
	}
}
