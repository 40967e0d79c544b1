package narread

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/zseek"
)

// content returns n bytes that compress like files do.
func content(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, 0, n+600)
	for len(b) < n {
		switch r.IntN(3) {
		case 0:
			for range r.IntN(300) {
				b = append(b, byte(r.Uint32()))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300))...)
		case 2:
			b = fmt.Appendf(b, "/nix/store/%032d-package-%d/lib/file\n", r.IntN(1000), r.IntN(50))
		}
	}
	return b[:n]
}

// makeNAR returns a NAR of files of the given sizes, named a0, a1, ...
func makeNAR(t testing.TB, sizes ...int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := nar.NewWriter(&out)
	must(t, w.WriteHeader(nar.Header{Type: nar.Directory}))
	for i, n := range sizes {
		must(t, w.WriteHeader(nar.Header{Depth: 1, Name: fmt.Sprintf("a%02d", i), Type: nar.Regular, Size: int64(n)}))
		_, err := w.Write(content(n, uint64(i)))
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// packer puts a NAR into a container.
type packer struct {
	name        string
	compression string // what the narinfo would say
	pack        func(t testing.TB, nar []byte) []byte
}

// program returns a packer that pipes through a program.
func program(compression string, args ...string) packer {
	name := fmt.Sprint(args)
	return packer{name[1 : len(name)-1], compression, func(t testing.TB, nar []byte) []byte {
		testenv.Need(t, args[0])
		return []byte(testenv.RunInput(t, t.TempDir(), nar, args[0], args[1:]...))
	}}
}

// pieces packs a NAR in pieces, one behind the other.
func pieces(p packer, size int, name string) packer {
	return packer{name, p.compression, func(t testing.TB, nar []byte) []byte {
		var out []byte
		for len(nar) > 0 {
			n := min(size, len(nar))
			out = append(out, p.pack(t, nar[:n])...)
			nar = nar[n:]
		}
		return out
	}}
}

// fromFile is zstd on a file, not a pipe: the frame then says its size.
func zstdFile(args ...string) packer {
	return packer{"zstd file " + fmt.Sprint(args), "zstd", func(t testing.TB, nar []byte) []byte {
		testenv.Need(t, "zstd")
		f := filepath.Join(t.TempDir(), "nar")
		must(t, os.WriteFile(f, nar, 0o600))
		return []byte(testenv.Run(t, filepath.Dir(f), "zstd", append(args, "-q", "-c", f)...))
	}}
}

var skippable = []byte("\x53\x2a\x4d\x18\x05\x00\x00\x00hello")

// with puts skippable frames around and, by cut, inside what p packs.
func withSkippable(p packer) packer {
	return packer{p.name + " skippable", p.compression, func(t testing.TB, nar []byte) []byte {
		half := len(nar) / 2
		out := append(bytes.Clone(skippable), p.pack(t, nar[:half])...)
		out = append(out, skippable...)
		return append(append(out, p.pack(t, nar[half:])...), skippable...)
	}}
}

func packOwn(t testing.TB, nar []byte) []byte {
	var out bytes.Buffer
	w := zseek.NewWriter(&out, zseek.NewPool(2, 1), zseek.WriterOptions{})
	_, err := w.Write(nar)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

var lzmaPacker = program("lzma", "xz", "--format=lzma", "-0")

// lzipPacker makes of the stream of an .lzma file, which ends in a marker, one of
// lzip.
var lzipPacker = packer{"lzip", "lzip", func(t testing.TB, nar []byte) []byte {
	stream := program("", "xz", "--format=lzma", "--lzma1=dict=64KiB").pack(t, nar)[13:]
	out := append([]byte("LZIP\x01\x10"), stream...)
	le := binary.LittleEndian
	out = le.AppendUint32(out, crc32.ChecksumIEEE(nar))
	out = le.AppendUint64(out, uint64(len(nar)))
	return le.AppendUint64(out, uint64(len(out)+8))
}}

func packBrotli(t testing.TB, nar []byte) []byte {
	var out bytes.Buffer
	w := brotli.NewWriterLevel(&out, 3)
	_, err := w.Write(nar)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

// dropTable cuts the seek table off.
func dropTable(file []byte) []byte {
	t, err := zseek.ReadTable(bytes.NewReader(file), int64(len(file)), 1<<20)
	if err != nil {
		panic(err)
	}
	return file[:int64(len(file))-t.Size]
}

var (
	own      = packer{"own", "zstd", packOwn}
	zstdSums = zstdFile("-1")
	zstdBare = zstdFile("-1", "--no-check")

	xzInBlocks = program("xz", "xz", "-0", "--block-size=200000", "-T2")
)

// packers make every kind of container that is read.
func packers() []packer {
	xz := program("xz", "xz", "-1")
	return []packer{
		own,
		{"own without table", "zstd", func(t testing.TB, nar []byte) []byte { return dropTable(packOwn(t, nar)) }},
		{"none", "none", func(_ testing.TB, nar []byte) []byte { return bytes.Clone(nar) }},
		zstdSums, zstdBare,
		pieces(zstdSums, 300_000, "zstd frames"),
		pieces(zstdBare, 300_000, "zstd frames without checksums"),
		pieces(zstdBare, 1<<20, "zstd large frames without checksums"),
		withSkippable(zstdSums), withSkippable(zstdBare),
		withSkippable(own),
		program("zstd", "zstd", "-1"), // a pipe: the size is not known
		program("zstd", "zstd", "-1", "--long=27"),
		pieces(program("zstd", "zstd", "-1"), 400_000, "zstd frames of unknown size"),
		xz, program("xz", "xz", "-1", "--check=none"),
		program("xz", "xz", "-1", "--block-size=100000"),
		program("xz", "xz", "-1", "--check=sha256", "--lzma2=dict=64KiB"),
		program("xz", "xz", "-0", "--check=none", "--block-size=100000", "-T2"),
		program("xz", "xz", "--check=crc32", "--x86", "--lzma2=preset=0", "--block-size=150000"),
		xzInBlocks,
		pieces(xz, 500_000, "xz streams"),
		{"xz streams with padding", "xz", func(t testing.TB, nar []byte) []byte {
			half := len(nar) / 2
			out := append(xz.pack(t, nar[:half]), 0, 0, 0, 0, 0, 0, 0, 0)
			return append(append(out, xz.pack(t, nar[half:])...), 0, 0, 0, 0)
		}},
		program("bzip2", "bzip2", "-1"), pieces(program("", "bzip2"), 500_000, "bzip2 streams, no label"),
		program("gzip", "gzip", "-1"), pieces(program("gzip", "gzip"), 500_000, "gzip members"),
		{"brotli", "br", packBrotli},
		lzmaPacker, lzipPacker, pieces(lzipPacker, 500_000, "lzip members"),
		program("lz4", "lz4", "-1"), pieces(program("lz4", "lz4", "-1", "--content-size"), 500_000, "lz4 frames"),
	}
}

func optionsFor(n []byte, compression string) Options {
	return Options{Name: "x.nar", Compression: compression, NarSize: int64(len(n)), NarHash: sha256.Sum256(n)}
}

func open(t testing.TB, file []byte, o Options) *Archive {
	t.Helper()
	a, err := Open(bytes.NewReader(file), int64(len(file)), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// readAll reads all of a by ReadAt, in steps.
func readAll(a *Archive, step int) ([]byte, error) {
	out := make([]byte, a.Size())
	for off := 0; off < len(out); off += step {
		p := out[off:min(off+step, len(out))]
		n, err := a.ReadAt(p, int64(off))
		if err != nil && !(err == io.EOF && n == len(p)) {
			return out[:off+n], err
		}
		if n != len(p) {
			return nil, fmt.Errorf("ReadAt returns %d of %d bytes without an error", n, len(p))
		}
	}
	return out, nil
}

func wantDamage(t testing.TB, what string, err error) {
	t.Helper()
	var d *DamageError
	if !errors.As(err, &d) {
		t.Errorf("%s: error %v, want a DamageError", what, err)
	} else if d.File != "x.nar" || d.Error() == "" {
		t.Errorf("%s: %+v", what, d)
	}
}

// counting counts what is read of a file.
type counting struct {
	io.ReaderAt
	bytes, calls atomic.Int64
	closed       atomic.Bool
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.bytes.Add(int64(n))
	c.calls.Add(1)
	return n, err
}

func (c *counting) Close() error { c.closed.Store(true); return nil }

// faulty fails with err while fail says so.
type faulty struct {
	io.ReaderAt
	mu   sync.Mutex
	fail func(off int64) bool
	err  error
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	bad := f.fail != nil && f.fail(off)
	f.mu.Unlock()
	if bad {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func (f *faulty) set(fail func(off int64) bool) {
	f.mu.Lock()
	f.fail = fail
	f.mu.Unlock()
}

// noMoreGoroutines waits until there are at most n: one that has done its work
// may need a moment to end.
func noMoreGoroutines(t testing.TB, n int) {
	t.Helper()
	for range 1_000_000 {
		if runtime.NumGoroutine() <= n {
			return
		}
		runtime.Gosched()
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), n, buf[:runtime.Stack(buf, true)])
}
