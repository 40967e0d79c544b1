package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// smallFiles are files of every kind of check, of content that is packed and
// stored, for tests that try every byte.
func smallFiles(t testing.TB) map[string][]byte {
	in := append(content(400, 4), randomBytes(50)...)
	files := map[string][]byte{"x86 and delta": pack(t, machineCode(300), "--x86", "--delta=dist=2", "--lzma2=dict=4KiB")}
	for _, check := range []string{"none", "crc32", "crc64", "sha256"} {
		files[check] = pack(t, in, "--check="+check, "--lzma2=dict=4KiB")
		files[check+" in blocks"] = pack(t, in, "--check="+check, "--block-size=200", "-T2", "--lzma2=dict=4KiB")
	}
	files["streams"] = slices.Concat(files["crc64"], make([]byte, 4), files["crc32 in blocks"])
	files["stored"] = pack(t, randomBytes(300))
	return files
}

// TestFlipped flips bits of every byte. Where there is a check, the outcome is
// an error or the same content. Nothing may panic.
func TestFlipped(t *testing.T) {
	for name, file := range smallFiles(t) {
		want, err := byBlocks(file)
		must(t, err)
		for i := range file {
			for _, flip := range []byte{1 << (i % 8), 0xff} {
				bad := bytes.Clone(file)
				bad[i] ^= flip
				for way, decode := range map[string]func([]byte) ([]byte, error){"by blocks": byBlocks, "in order": inOrder} {
					got, err := decode(bad)
					if err == nil && !bytes.Equal(got, want) && !strings.HasPrefix(name, "none") {
						t.Errorf("%s, byte %d ^ %#x, %s: %d other bytes", name, i, flip, way, len(got))
					}
					// What is not compressed data is verified whatever the check is. This
					// includes the size of the content.
					if err == nil && len(got) != len(want) {
						t.Errorf("%s, byte %d ^ %#x, %s: %d bytes, want %d", name, i, flip, way, len(got), len(want))
					}
				}
			}
		}
	}
}

// TestAgainstXz wants the outcome of the xz program for what is damaged where no
// check covers it.
func TestAgainstXz(t *testing.T) {
	file := pack(t, append(content(300, 4), randomBytes(50)...), "--check=none", "--lzma2=dict=4KiB")
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		want, werr := xzProgram(bad)
		got, err := inOrder(bad)
		if (err == nil) != (werr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("byte %d: %d bytes, %v; xz gives %d bytes, %v", i, len(got), err, len(want), werr)
		}
	}
}

func TestTruncated(t *testing.T) {
	for name, file := range smallFiles(t) {
		whole := map[int]bool{} // where a stream, or the padding behind one, ends
		if name == "streams" {
			first := len(smallFiles(t)["crc64"])
			whole[first], whole[first+4] = true, true
		}
		for n := range file {
			if whole[n] {
				continue
			}
			for way, decode := range ways {
				if out, err := decode(file[:n]); err == nil {
					t.Errorf("%s, %d of %d bytes, %s: no error, %d bytes", name, n, len(file), way, len(out))
				}
			}
		}
	}
}

// TestLyingIndex has indexes that do not match the blocks.
func TestLyingIndex(t *testing.T) {
	one := append(append(lzma2Header(), stored(1, "hello")...), 0)
	two := append(append(lzma2Header(), stored(1, "world!")...), 0)
	n1, n2 := uint64(len(one)), uint64(len(two))
	build := func(index []byte, backward int) []byte {
		return slices.Concat(streamHeader(0), pad(bytes.Clone(one)), pad(bytes.Clone(two)), index, streamFooter(uint32(len(index)+backward), 0))
	}
	wantContent(t, "right", build(indexOf(2, n1, 5, n2, 6), 0), []byte("helloworld!"))
	long := []byte{0, 0x82, 0x00, byte(n1), 5, byte(n2), 6}
	for name, file := range map[string][]byte{
		"size":               build(indexOf(2, n1, 6, n2, 5), 0),
		"unpadded size":      build(indexOf(2, n1+1, 5, n2-1, 6), 0),
		"order":              build(indexOf(2, n2, 6, n1, 5), 0),
		"one too few":        build(indexOf(1, n1, 5), 0),
		"one too many":       build(indexOf(3, n1, 5, n2, 6, n1, 5), 0),
		"count above":        build(indexOf(3, n1, 5, n2, 6), 0),
		"count below":        build(indexOf(1, n1, 5, n2, 6), 0),
		"count of 2^62":      build(indexOf(1<<62, n1, 5, n2, 6), 0),
		"size of 2^62":       build(indexOf(2, n1, 1<<62, n2, 6), 0),
		"block of 2^62":      build(indexOf(2, 1<<62, 5, n2, 6), 0),
		"sizes of 2^63":      build(indexOf(2, 1<<63, 1<<63, n2, 6), 0),
		"block of nothing":   build(indexOf(2, 0, 5, n2, 6), 0),
		"number of two ways": build(withCRC(pad(long)), 0),
		"backward size":      build(indexOf(2, n1, 5, n2, 6), 4),
		"backward size less": build(indexOf(2, n1, 5, n2, 6), -4),
		"backward size 16 G": append(build(nil, 0)[:80], streamFooter(0, 0)...),
		"padding not zero":   build(withCRC([]byte{0, 2, byte(n1), 5, byte(n2), 6, 0, 1}), 0),
		"padding too long":   build(withCRC(append([]byte{0, 2, byte(n1), 5, byte(n2), 6}, make([]byte, 6)...)), 0),
		"check of footer":    append(build(indexOf(2, n1, 5, n2, 6), 0)[:len(build(indexOf(2, n1, 5, n2, 6), 0))-12], streamFooter(12, 1)...),
	} {
		wantError(t, name, file)
	}
}

// TestBadChunks has LZMA2 that is not well-formed.
func TestBadChunks(t *testing.T) {
	packed := chunkOf(t, content(500, 3))
	for name, tt := range map[string]struct {
		data string
		want string // "" when it is an error
	}{
		"stored":                    {stored(1, "hello") + "\x00", "hello"},
		"two stored":                {stored(1, "hel") + stored(2, "lo") + "\x00", "hello"},
		"packed":                    {packed + "\x00", string(content(500, 3))},
		"no reset first":            {stored(2, "hello") + "\x00", ""},
		"no end":                    {stored(1, "hello"), ""},
		"control 3":                 {stored(3, "hello") + "\x00", ""},
		"control 7f":                {stored(1, "hello") + stored(0x7f, "x") + "\x00", ""},
		"packed without properties": {stored(1, "hello") + "\xa0" + packed[1:5] + packed[6:] + "\x00", ""},
		"packed without state":      {stored(1, "hello") + "\x80" + packed[1:5] + packed[6:] + "\x00", ""},
		"properties after stored":   {stored(1, "sixteen bytes..\x00") + "\xc0" + packed[1:] + "\x00", "sixteen bytes..\x00" + string(content(500, 3))},
		"no dictionary reset":       {"\xc0" + packed[1:] + "\x00", ""},
		"lc 4, lp 4":                {packed[:5] + string(rune(4*9+4)) + packed[6:] + "\x00", ""},
		"pb 5":                      {packed[:5] + "\xe1" + packed[6:] + "\x00", ""},
		"cut off":                   {packed[:40], ""},
		"begins with 1":             {packed[:6] + "\x01" + packed[7:] + "\x00", ""},
	} {
		file := fileOf(CheckNone, []uint64{uint64(max(len(tt.want), 5))}, append(lzma2Header(), tt.data...))
		if tt.want != "" {
			wantContent(t, name, file, []byte(tt.want))
		} else {
			wantError(t, name, file)
		}
	}
}

// chunkOf returns the only chunk that the xz program makes of in.
func chunkOf(t testing.TB, in []byte) string {
	file := pack(t, in, "--check=none", "--lzma2=dict=1MiB")
	n := blockHeaderSize(file[12])
	data := file[12+n:]
	return string(data[:6+int(binary.BigEndian.Uint16(data[3:]))+1])
}

// TestMemory opens what claims much. The memory for it is bounded by the
// caller, not by the file.
func TestMemory(t *testing.T) {
	empty := pad(append(lzma2Header(), 0))
	many := bytes.Repeat(empty, 50_000)
	var numbers []uint64
	for range 50_000 {
		numbers = append(numbers, uint64(len(lzma2Header())+1), 0)
	}
	index := indexOf(50_000, numbers...)
	blocks := slices.Concat(streamHeader(0), many, index, streamFooter(uint32(len(index)), 0))
	streams := bytes.Repeat(pack(t, nil), 20_000)
	before := allocated()
	if _, err := ReadIndex(bytes.NewReader(blocks), int64(len(blocks)), 1000); err != ErrTooMany {
		t.Error(err)
	}
	if _, err := ReadIndex(bytes.NewReader(streams), int64(len(streams)), 1000); err != ErrTooMany {
		t.Error(err)
	}
	huge := indexOf(1<<30, 21, 0)
	lies := slices.Concat(streamHeader(0), empty, huge, streamFooter(uint32(len(huge)), 0))
	if _, err := ReadIndex(bytes.NewReader(lies), int64(len(lies)), 1<<31-1); err == nil {
		t.Error("2^30 blocks in an index of one")
	}
	dict := fileOf(CheckNone, []uint64{5}, append(append(header(0, idLZMA2, 1, 30), stored(1, "hello")...), 0))
	if out, err := inOrder(dict); string(out) != "hello" {
		t.Error(err)
	}
	if n := allocated() - before; n > 4<<20 {
		t.Errorf("%d bytes allocated", n)
	}
	if out, err := inOrder(blocks); err != nil || len(out) != 0 {
		t.Error(err)
	}
	if out, err := inOrder(streams); err != nil || len(out) != 0 {
		t.Error(err)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestBomb decodes what unpacks to much, in the memory of its window.
func TestBomb(t *testing.T) {
	file := pack(t, make([]byte, 32<<20), "-0", "--check=crc32")
	before := allocated()
	n, err := io.Copy(io.Discard, NewReader(bytes.NewReader(file), testWindow))
	if err != nil || n != 32<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if got := allocated() - before; got > 8<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

// TestWrongBlock gives Decoder what the index did not say.
func TestWrongBlock(t *testing.T) {
	in := content(3000, 9)
	file := pack(t, in)
	blocks, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 1)
	must(t, err)
	right := blocks[0]
	src := file[right.Offset:][:right.Stored()]
	var d Decoder
	for i, change := range []func(*Block){
		func(b *Block) { b.Size-- }, func(b *Block) { b.Size++ }, func(b *Block) { b.Size = 0 },
		func(b *Block) { b.Unpadded-- }, func(b *Block) { b.Unpadded++ }, func(b *Block) { b.Unpadded = 8 },
		func(b *Block) { b.Unpadded = 0 }, func(b *Block) { b.Check = CheckSHA256 }, func(b *Block) { b.Check = CheckNone },
		func(b *Block) { b.Check = CheckCRC32 },
	} {
		b := right
		change(&b)
		for _, src := range [][]byte{src, src[:min(len(src), int(b.Stored()))]} {
			if err := d.Block(b, make([]byte, b.Size), src); err == nil {
				t.Errorf("change %d: no error", i)
			}
		}
	}
	dst := make([]byte, right.Size)
	if err := d.Block(right, dst, src); err != nil || !bytes.Equal(dst, in) {
		t.Errorf("afterwards: %v", err)
	}
	if err := d.Block(right, dst, src[:0]); !errors.Is(err, errMismatch) {
		t.Error(err)
	}
	if fmt.Sprint(right.Stored()%4) != "0" {
		t.Error("not padded")
	}
}
