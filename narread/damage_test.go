package narread

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/zseek"

	"github.com/narvault/narvault/narread/testenv"
)

// tryRead opens a file and reads it in pieces, each with its own outcome, and
// as a whole. It returns the first error. Bytes that came without one must be
// those of n; what a WriteTo wrote before it failed is not promised.
func tryRead(t testing.TB, what string, n, file []byte, o Options) error {
	t.Helper()
	a, err := Open(bytes.NewReader(file), int64(len(file)), o)
	if err != nil {
		return err
	}
	defer a.Close()
	var first error
	buf := make([]byte, 1000)
	for off := 0; off < len(n) && int64(off) < o.NarSize; off += len(buf) {
		c, err := a.ReadAt(buf, int64(off))
		if c > len(n)-off || !bytes.Equal(buf[:c], n[off:off+c]) {
			t.Errorf("%s: wrong bytes at %d", what, off)
		}
		if err != nil && err != io.EOF && first == nil {
			first = err
		}
	}
	var out bytes.Buffer
	_, err = a.WriteTo(&out)
	if err == nil && !bytes.Equal(out.Bytes(), n) {
		t.Errorf("%s: WriteTo gives wrong bytes", what)
	}
	if int64(out.Len()) > o.NarSize {
		t.Errorf("%s: WriteTo gives %d bytes, NarSize is %d", what, out.Len(), o.NarSize)
	}
	if first == nil {
		first = err
	}
	return first
}

// smallPackers are packers for tests that try every byte of a container.
func smallPackers() []packer {
	half := func(p packer, name string) packer { return pieces(p, 500, name) }
	return []packer{
		own,
		half(packer{"", "zstd", func(t testing.TB, n []byte) []byte { return dropTable(packOwn(t, n)) }}, "own frames"),
		smallTable,
		{"none", "none", func(_ testing.TB, n []byte) []byte { return bytes.Clone(n) }},
		half(zstdBare, "zstd frames without checksums"),
		zstdBare, program("zstd", "zstd", "-1"), program("zstd", "zstd", "-1", "--no-check"), withSkippable(zstdSums),
		program("xz", "xz", "--lzma2=dict=4KiB"), program("xz", "xz", "--check=none", "--lzma2=dict=4KiB"),
		half(program("xz", "xz", "--lzma2=dict=4KiB"), "xz streams"),
		program("bzip2", "bzip2", "-1"), program("gzip", "gzip", "-n"), {"brotli", "br", packBrotli}, program("lz4", "lz4"), lzmaPacker, lzipPacker,
		program("lz4", "lz4", "--content-size", "-B4", "-BX"),
	}
}

// smallTable has frames of 500 bytes and a seek table.
var smallTable = packer{"small frames with table", "zstd", func(t testing.TB, n []byte) []byte {
	var file []byte
	var es []zseek.Entry
	for len(n) > 0 {
		c := min(500, len(n))
		f := dropTable(packOwn(t, n[:c]))
		es = append(es, zseek.Entry{Compressed: uint32(len(f)), Decompressed: uint32(c)})
		file, n = append(file, f...), n[c:]
	}
	file, err := zseek.AppendTable(file, es)
	must(t, err)
	return file
}}

// TestFlips changes every byte in turn: what is read is an error, or right.
func TestFlips(t *testing.T) {
	n := makeNAR(t, 800)
	for _, p := range smallPackers() {
		t.Run(p.name, func(t *testing.T) {
			file := p.pack(t, n)
			o := optionsFor(n, p.compression)
			o.SpoolDir = t.TempDir()
			flips := []byte{1, 0x80}
			if p.compression == "zstd" {
				flips = append(flips, 4, 0x20, 0x40) // flags: checksum, single segment, content size
			}
			for i := 0; i < len(file); i += testenv.Thin(7) {
				for _, x := range flips {
					o.Cache = NewCache(int64(x&^1) << 18) // none for one of them: through a spool file
					bad := bytes.Clone(file)
					bad[i] ^= x
					what := fmt.Sprintf("byte %d of %d, ^%#x", i, len(file), x)
					if err := tryRead(t, what, n, bad, o); err != nil && !isDamage(err) && !errors.Is(err, errors.ErrUnsupported) {
						t.Errorf("%s: %v is no DamageError", what, err)
					}
				}
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	n := makeNAR(t, 800)
	for _, p := range smallPackers() {
		t.Run(p.name, func(t *testing.T) {
			file := p.pack(t, n)
			for i := 0; i < len(file); i += testenv.Thin(7) {
				err := tryRead(t, fmt.Sprint(i), n, file[:i], optionsFor(n, p.compression))
				switch {
				case err == nil && !wholeFrames(file[i:]):
					t.Errorf("%d of %d bytes are read without an error", i, len(file))
				case err != nil && !isDamage(err):
					t.Errorf("%d: %v is no DamageError", i, err)
				}
			}
		})
	}
}

// wholeFrames reports whether what was cut off is not missed: a skippable frame
// at the end, or the seek table. Cut where it begins, the file is as good.
func wholeFrames(cut []byte) bool {
	return bytes.Equal(cut, skippable) || bytes.HasPrefix(cut, []byte("\x5e\x2a\x4d\x18"))
}

func TestGarbageBehind(t *testing.T) {
	n := makeNAR(t, 2500)
	for _, p := range smallPackers() {
		file := p.pack(t, n)
		for _, garbage := range []string{"x", "garbage that is longer", string(n), string(file)} {
			bad := append(bytes.Clone(file), garbage...)
			wantDamage(t, fmt.Sprintf("%s with %d more bytes", p.name, len(garbage)), tryRead(t, p.name, n, bad, optionsFor(n, p.compression)))
		}
	}
}

func TestLyingNarinfo(t *testing.T) {
	n := makeNAR(t, 2500)
	for _, p := range append(smallPackers(), packers()...) {
		file := p.pack(t, n)
		for _, size := range []int64{1, 100, int64(len(n)) - 1, int64(len(n)) + 1, 1 << 20, 1 << 40, 1<<63 - 1} {
			o := optionsFor(n, p.compression)
			o.NarSize, o.SpoolDir = size, t.TempDir()
			wantDamage(t, fmt.Sprintf("%s, NarSize %d", p.name, size), tryRead(t, p.name, n, file, o))
		}
		o := optionsFor(n, p.compression)
		o.NarHash[5]++
		a, err := Open(bytes.NewReader(file), int64(len(file)), o)
		must(t, err)
		_, err = a.WriteTo(io.Discard)
		wantDamage(t, p.name+", NarHash", err)
		if !a.direct {
			_, err := a.ReadAt(make([]byte, 1), 0)
			wantDamage(t, p.name+", NarHash", err)
		}
		a.Close()
	}
}

// TestBombs decodes what is small and says or unpacks to much, in little memory.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 64<<20)
	bomb := func(what string, file []byte, o Options) {
		t.Helper()
		before := allocated()
		wantDamage(t, what, tryRead(t, what, zeros[:o.NarSize], file, o))
		if n := allocated() - before; n > 24<<20 {
			t.Errorf("%s: %d bytes allocated", what, n)
		}
	}
	n := makeNAR(t, 100)
	for _, p := range []packer{program("xz", "xz", "-0"), program("zstd", "zstd"), program("gzip", "gzip"), program("bzip2", "bzip2"), zstdSums, {"", "br", packBrotli}} {
		o := optionsFor(n, p.compression)
		wantDamage(t, "empty file", tryRead(t, p.name, nil, nil, o))
		bomb(p.name, p.pack(t, zeros), o)
	}
	for name, file := range map[string]string{
		"zstd window of 2 GiB":       "\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00",
		"zstd content of 2^62":       "\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x00\x00\x40\x01\x00\x00",
		"zstd dictionary":            "\x28\xb5\x2f\xfd\x21\x05\x70\x01\x00\x00",
		"xz dictionary of 4 GiB":     "\xfd7zXZ\x00\x00\x00\xff\x12\xd9\x41\x02\x00\x21\x01\x28\x00\x00\x00",
		"zstd skippable of 4 GiB":    "\x50\x2a\x4d\x18\xff\xff\xff\xff",
		"nothing but skippable":      string(skippable),
		"zstd frame of a huge block": "\x28\xb5\x2f\xfd\x20\x10\xff\xff\xff",
	} {
		bomb(name, []byte(file), optionsFor(n, labelFor(file)))
	}
}

// allocated returns how many bytes were allocated until now.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func labelFor(file string) string {
	if file[0] == 0xfd {
		return "xz"
	}
	return "zstd"
}

// TestLongWindow reads what needs the largest window that is allowed, and
// refuses more.
func TestLongWindow(t *testing.T) {
	n := makeNAR(t, 9<<20)
	o := optionsFor(n, "zstd")
	if err := tryRead(t, "27", n, program("zstd", "zstd", "-1", "--long=27").pack(t, n), o); err != nil {
		t.Error(err)
	}
	wantDamage(t, "--long=28", tryRead(t, "28", n, program("zstd", "zstd", "-1", "--long=28").pack(t, n), o))
}

func TestDamagedTable(t *testing.T) {
	n := makeNAR(t, 600_000)
	file := packOwn(t, n)
	bad := bytes.Clone(file)
	bad[len(bad)-9-24+1]++ // the size of the first frame
	var warned []error
	o := optionsFor(n, "zstd")
	o.Warn = func(err error) { warned = append(warned, err) }
	got, err := readAll(open(t, bad, o), 100_000)
	if err != nil || !bytes.Equal(got, n) {
		t.Error(err)
	}
	if len(warned) != 1 || !errors.Is(warned[0], zseek.ErrBadTable) {
		t.Errorf("warnings %v", warned)
	}
	// Two sizes that are wrong and yet add up are met when the frames are read.
	le := bytes.Clone(file)
	le[len(le)-9-24]++
	le[len(le)-9-16]--
	wantDamage(t, "table that adds up", tryRead(t, "", n, le, optionsFor(n, "zstd")))
}

// TestWhere wants the block and the offset of damage.
func TestWhere(t *testing.T) {
	n := makeNAR(t, 4*blockSize)
	file := packOwn(t, n)
	a := open(t, file, optionsFor(n, "zstd"))
	fs := a.random.(*frames)
	file[fs.off[2]+100] ^= 1
	_, err := readAll(a, 1000)
	var d *DamageError
	if !errors.As(err, &d) || d.Block != 2 || d.Offset != fs.off[2] || d.File != "x.nar" {
		t.Errorf("%v", err)
	}
	if want := fmt.Sprintf("read block 2 of x.nar at offset %d: ", fs.off[2]); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q, want %q...", err, want)
	}
	if _, err := a.ReadAt(make([]byte, 10), 3*blockSize); err != nil {
		t.Errorf("the block behind the damaged one: %v", err)
	}
	file[fs.off[2]+100] ^= 1 // a cable that was loose
	if got, err := readAll(a, 1000); err != nil || !bytes.Equal(got, n) {
		t.Errorf("after repair: %v", err)
	}
}

// TestWhereOthers wants the offset of damage in containers of other kinds: where
// the block begins, or where decoding stopped.
func TestWhereOthers(t *testing.T) {
	n := makeNAR(t, 2*blockSize)
	for _, p := range []packer{
		xzInBlocks, program("xz", "xz", "-0"), program("bzip2", "bzip2", "-1"), program("gzip", "gzip", "-1"),
		program("zstd", "zstd", "-1"), program("lz4", "lz4", "-1"), lzipPacker,
	} {
		file := p.pack(t, n)
		file[len(file)/2] ^= 0x10
		_, err := readAll(open(t, file, optionsFor(n, p.compression)), 100_000)
		var d *DamageError
		if !errors.As(err, &d) || d.Offset <= 0 || d.Offset > int64(len(file)) || d.File != "x.nar" {
			t.Errorf("%s, byte %d of %d: %v", p.name, len(file)/2, len(file), err)
		}
	}
}

// TestChangedAfterPass changes what was verified as a whole.
func TestChangedAfterPass(t *testing.T) {
	n := makeNAR(t, 4*blockSize)
	for _, p := range []packer{packers()[2], pieces(zstdBare, 200_000, "frames")} {
		file := p.pack(t, n)
		o := optionsFor(n, p.compression)
		o.Cache = NewCache(0)
		a := open(t, file, o)
		_, err := a.ReadAt(make([]byte, 1), 0)
		must(t, err)
		file[len(file)-5000] ^= 1
		wantDamage(t, p.name, func() error { _, err := readAll(a, 1000); return err }())
	}
}

// TestMediumError pulls the medium once, for every container: the error is
// what the medium said, no damage, and the next try succeeds.
func TestMediumError(t *testing.T) {
	n := makeNAR(t, 700_000)
	for _, p := range packers() {
		file := p.pack(t, n)
		src := &faulty{ReaderAt: bytes.NewReader(file), err: syscall.EIO}
		o := optionsFor(n, p.compression)
		for off := range []int64{0, 1, 2} {
			src.set(func(int64) bool { off--; return off < 0 })
			a, err := Open(src, int64(len(file)), o)
			if err == nil {
				src.set(func(int64) bool { return true })
				_, err = a.ReadAt(make([]byte, 1), 5)
				_, lerr := a.Listing()
				_, werr := a.WriteTo(io.Discard)
				for _, err := range []error{lerr, werr} {
					if !errors.Is(err, syscall.EIO) || isDamage(err) {
						t.Errorf("%s: %v", p.name, err)
					}
				}
				src.set(nil)
				if got, err := readAll(a, 100_000); err != nil || !bytes.Equal(got, n) {
					t.Errorf("%s: after the medium is back: %v", p.name, err)
				}
				if _, err := a.Listing(); err != nil {
					t.Errorf("%s: Listing after the medium is back: %v", p.name, err)
				}
				a.Close()
			}
			if !errors.Is(err, syscall.EIO) || isDamage(err) {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
}

// TestDamageIsRemembered asks a second time, and wants no second decoding.
func TestDamageIsRemembered(t *testing.T) {
	n := makeNAR(t, 700_000)
	for _, p := range []packer{packers()[2], program("xz", "xz", "-0")} {
		file := p.pack(t, n)
		file[len(file)/2] ^= 1
		src := &counting{ReaderAt: bytes.NewReader(file)}
		o := optionsFor(n, p.compression)
		o.Cache = NewCache(0)
		a, err := Open(src, int64(len(file)), o)
		must(t, err)
		_, err = a.Listing()
		wantDamage(t, p.name, err)
		before := src.calls.Load()
		_, err = a.Listing()
		wantDamage(t, p.name, err)
		_, err = a.ReadAt(make([]byte, 1), 0)
		wantDamage(t, p.name, err)
		if src.calls.Load() != before {
			t.Errorf("%s: %d more reads", p.name, src.calls.Load()-before)
		}
		a.Close()
	}
}

// TestNoNAR verifies something that is no NAR, or a NAR and more.
func TestNoNAR(t *testing.T) {
	n := append(makeNAR(t, 100), "more, and covered by NarHash"...)
	for _, n := range [][]byte{n, []byte("just some text that somebody has signed")} {
		a := open(t, packOwn(t, n), optionsFor(n, "zstd"))
		if got, err := readAll(a, 7); err != nil || !bytes.Equal(got, n) {
			t.Errorf("%v", err)
		}
		_, err := a.Listing()
		wantDamage(t, "Listing", err)
	}
}

// TestManyDictionaries wants a new dictionary of 128 MiB for every 37 bytes.
func TestManyDictionaries(t *testing.T) {
	n := makeNAR(t, 300)
	var file []byte
	for i := range 20 {
		member := lzipPacker.pack(t, n[i:i+1])
		member[5] = 27 // the size of the dictionary, as a power of two
		file = append(file, member...)
	}
	file = append(file, lzipPacker.pack(t, n[20:])...)
	wantDamage(t, "20 members", tryRead(t, "lzip", n, file, optionsFor(n, "lzip")))
}
