package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/narvault/narvault/narread/testenv"
)

const testWindow = 128 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content returns n bytes that make an encoder use all that LZMA has: literals,
// literals beside matches, near and far matches, repeated ones, runs, and
// pieces that do not compress and are stored.
func content(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, 0, n+1<<17)
	for len(b) < n {
		switch r.IntN(20) {
		case 0:
			for range r.IntN(100_000) {
				b = append(b, byte(r.Uint32()))
			}
		case 1, 2:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(2000))...)
		case 3, 4, 5:
			for range r.IntN(30) { // records
				b = binary.LittleEndian.AppendUint32(b, uint32(len(b)))
				b = append(b, 1, 2, byte(r.Uint32()), 0)
			}
		case 6, 7, 8, 9, 10, 11, 12:
			if len(b) > 0 { // from before, with a change
				from := r.IntN(len(b))
				b = append(b, b[from:min(len(b), from+r.IntN(300))]...)
				b[len(b)-1] ^= byte(r.IntN(3))
			}
		default:
			b = fmt.Appendf(b, "/nix/store/%032x-package-%d/lib/file\n", r.Uint64(), r.IntN(50))
		}
	}
	return b[:n]
}

// pack runs the xz program.
func pack(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	testenv.Need(t, "xz")
	return []byte(testenv.RunInput(t, t.TempDir(), in, "xz", args...))
}

// byBlocks decodes a file block by block.
func byBlocks(file []byte) ([]byte, error) {
	blocks, err := ReadIndex(bytes.NewReader(file), int64(len(file)), 1<<20)
	if err != nil {
		return nil, err
	}
	var d Decoder
	var out []byte
	for _, b := range blocks {
		if b.Size > 64<<20 {
			return nil, errors.New("more than a test makes")
		}
		dst := make([]byte, b.Size)
		if err := d.Block(b, dst, file[b.Offset:b.Offset+b.Stored()]); err != nil {
			return nil, err
		}
		out = append(out, dst...)
	}
	return out, nil
}

// inOrder decodes a file as a stream.
func inOrder(file []byte) ([]byte, error) {
	return io.ReadAll(NewReader(bytes.NewReader(file), testWindow))
}

// ways are all ways to decode a file.
var ways = map[string]func([]byte) ([]byte, error){
	"by blocks": byBlocks,
	"in order":  inOrder,
	"byte by byte": func(file []byte) ([]byte, error) {
		return io.ReadAll(iotest.OneByteReader(NewReader(iotest.OneByteReader(bytes.NewReader(file)), testWindow)))
	},
}

func wantContent(t testing.TB, what string, file, want []byte) {
	t.Helper()
	for way, decode := range ways {
		if way == "byte by byte" && len(want) > 100_000 {
			continue
		}
		got, err := decode(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, %s: %d bytes, error %v, want %d bytes", what, way, len(got), err, len(want))
		}
	}
}

// Parts of files, made by hand.

func withCRC(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func streamHeader(c Check) []byte {
	b := []byte{0, byte(c)}
	return append(bytes.Clone(streamMagic[:]), withCRC(b)...)
}

func streamFooter(indexSize uint32, c Check) []byte {
	b := binary.LittleEndian.AppendUint32(nil, indexSize/4-1)
	b = append(b, 0, byte(c))
	return append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)), append(b, "YZ"...)...)
}

// indexOf returns an index of the given numbers.
func indexOf(count uint64, numbers ...uint64) []byte {
	b := binary.AppendUvarint([]byte{0}, count)
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return withCRC(pad(b))
}

func pad(b []byte) []byte { return append(b, make([]byte, padding(int64(len(b))))...) }

// header returns a block header of flags and fields.
func header(flags byte, fields ...byte) []byte {
	b := append([]byte{0, flags}, fields...)
	b = pad(b)
	b[0] = byte(len(b) / 4)
	return withCRC(b)
}

// fileOf returns a file of one stream without a check, whose blocks consist of
// a header and data each, and have the given sizes.
func fileOf(c Check, sizes []uint64, blocks ...[]byte) []byte {
	out := streamHeader(c)
	var numbers []uint64
	for i, b := range blocks {
		numbers = append(numbers, uint64(len(b)), sizes[i])
		out = append(out, pad(bytes.Clone(b))...)
	}
	index := indexOf(uint64(len(blocks)), numbers...)
	return append(append(out, index...), streamFooter(uint32(len(index)), c)...)
}

// lzma2Header is the header of a block with a dictionary of 1 MiB.
func lzma2Header() []byte { return header(0, idLZMA2, 1, 16) }

// stored returns a chunk.
func stored(control byte, s string) string {
	return string([]byte{control, byte((len(s) - 1) >> 8), byte(len(s) - 1)}) + s
}

func randomBytes(n int) []byte {
	r := rand.New(rand.NewPCG(8, 8))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
