package zseek

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/narvault/narvault/narread/testenv"
)

// mixed returns n bytes that compress like files do: text, runs and noise.
func mixed(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+4096)
	for len(b) < n {
		switch r.IntN(4) {
		case 0:
			for range r.IntN(400) {
				b = append(b, byte(r.Uint32()))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300))...)
		case 2:
			b = fmt.Appendf(b, "/nix/store/%032d-package-%d/lib/file\n", r.IntN(1000), r.IntN(50))
		case 3:
			if len(b) > 1000 {
				at := r.IntN(len(b) - 500)
				b = append(b, b[at:at+r.IntN(500)]...)
			}
		}
	}
	return b[:n]
}

func compress(t testing.TB, p *Pool, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, p, WriterOptions{})
	if n, err := w.Write(in); n != len(in) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var sizes = []int{0, 1, 255, 256, 1024, 70000, FrameSize - 1, FrameSize, FrameSize + 1, 2 * FrameSize, 5*FrameSize + 12345}

func TestFormat(t *testing.T) {
	p := NewPool(2, 3)
	for _, n := range sizes {
		in := mixed(n, 1)
		out := compress(t, p, in)
		tab, err := ReadTable(bytes.NewReader(out), int64(len(out)), 1000)
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if got, want := len(tab.Entries), (n+FrameSize-1)/FrameSize; got != want {
			t.Errorf("%d: %d frames, want %d", n, got, want)
		}
		if tab.Content() != int64(n) {
			t.Errorf("%d: content %d", n, tab.Content())
		}
		checkFrames(t, out, in, tab)
	}
}

// checkFrames decodes every frame by itself.
func checkFrames(t *testing.T, file, in []byte, tab *Table) {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i, e := range tab.Entries {
		frame, want := file[:e.Compressed], in[:e.Decompressed]
		file, in = file[e.Compressed:], in[e.Decompressed:]
		var h zstd.Header
		if err := h.Decode(frame); err != nil {
			t.Fatal(err)
		}
		if !h.HasCheckSum || !h.HasFCS || !h.SingleSegment || h.DictionaryID != 0 || h.FrameContentSize != uint64(e.Decompressed) {
			t.Errorf("frame %d: header %+v", i, h)
		}
		if got, want := binary.LittleEndian.Uint32(frame[len(frame)-4:]), uint32(xxhash.Sum64(want)); got != want {
			t.Errorf("frame %d: checksum %x, want %x", i, got, want)
		}
		got, err := d.DecodeAll(frame, nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame %d: decodes to %d bytes, %v", i, len(got), err)
		}
	}
}

func TestZstdProgramReadsIt(t *testing.T) {
	testenv.Need(t, "zstd")
	for i, level := range []int{1, 3, 7, 19} {
		if i%testenv.Thin(2) != 0 {
			continue
		}
		p := NewPool(2, level)
		for _, n := range sizes {
			in := mixed(n, 2)
			out := compress(t, p, in)
			testenv.RunInput(t, t.TempDir(), out, "zstd", "-t", "-q")
			if got := testenv.RunInput(t, t.TempDir(), out, "zstd", "-dc"); got != string(in) {
				t.Errorf("level %d, %d bytes: zstd -dc gives something else", level, n)
			}
		}
	}
}

// TestDeterministic compresses one input on pools of different sizes, alone and
// beside others, after other work, and in pieces of all sizes.
func TestDeterministic(t *testing.T) {
	for i, l := range []struct{ level, frames int }{{1, 7}, {3, 7}, {6, 4}, {10, 2}} {
		if i%testenv.Thin(3) != 0 {
			continue
		}
		level, frames := l.level, l.frames
		in := mixed(frames*FrameSize+999, 3)
		want := compress(t, NewPool(1, level), in)
		for _, workers := range []int{1, 2, 5} {
			p := NewPool(workers, level)
			for seed := range uint64(3) {
				compress(t, p, mixed(3*FrameSize/2, seed)) // leaves its traces in the encoders' tables
			}
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					if i%2 == 1 {
						compress(t, p, mixed(2*FrameSize, uint64(i)))
					}
					if got := compressPieces(p, in, 1+i*77777); !bytes.Equal(got, want) {
						t.Errorf("level %d, %d workers: other bytes", level, workers)
					}
				})
			}
			wg.Wait()
		}
	}
}

func compressPieces(p *Pool, in []byte, piece int) []byte {
	if piece < 100 {
		in, piece = in[:len(in):len(in)], 4096
	}
	var out bytes.Buffer
	w := NewWriter(&out, p, WriterOptions{InFlight: 1 + piece%3})
	defer w.Abort()
	for len(in) > 0 {
		n := min(piece, len(in))
		if _, err := w.Write(in[:n]); err != nil {
			return nil
		}
		in = in[n:]
	}
	if w.Close() != nil {
		return nil
	}
	return out.Bytes()
}

// TestManyWriters checks that writers without number share the pool's frames,
// and that all of them come back.
func TestManyWriters(t *testing.T) {
	p := NewPool(2, 1)
	want := compress(t, p, mixed(3*FrameSize, 9))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := compressPieces(p, mixed(3*FrameSize, 9), 100000); !bytes.Equal(got, want) {
				t.Error("other bytes")
			}
		})
	}
	wg.Wait()
	if n := p.InUse(); n != 0 {
		t.Errorf("%d frames did not come back", n)
	}
}

// failing fails after n writes.
type failing struct{ n int }

var errDisk = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestDestinationFails(t *testing.T) {
	p := NewPool(2, 1)
	in := mixed(9*FrameSize, 4)
	for after := range 9 {
		w := NewWriter(&failing{after}, p, WriterOptions{})
		_, werr := w.Write(in)
		if err := w.Close(); !errors.Is(err, errDisk) {
			t.Errorf("after %d: Close = %v, Write = %v", after, err, werr)
		}
		if err := w.Close(); !errors.Is(err, errDisk) {
			t.Errorf("after %d: second Close = %v", after, err)
		}
	}
	if n := p.InUse(); n != 0 {
		t.Errorf("%d frames did not come back", n)
	}
}

func TestShortWrite(t *testing.T) {
	w := NewWriter(writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil }), NewPool(1, 1), WriterOptions{})
	w.Write([]byte("x"))
	if err := w.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAbort(t *testing.T) {
	before := runtime.NumGoroutine()
	p := NewPool(2, 1)
	for n := range 6 {
		var out bytes.Buffer
		w := NewWriter(&out, p, WriterOptions{})
		w.Write(mixed(n*FrameSize+n*1000, 5))
		w.Abort()
		written := out.Len()
		w.Abort()
		if _, err := w.Write([]byte{1}); err != ErrClosed {
			t.Errorf("Write after Abort = %v", err)
		}
		if err := w.Close(); err != ErrClosed {
			t.Errorf("Close after Abort = %v", err)
		}
		if out.Len() != written {
			t.Error("wrote after Abort")
		}
	}
	if n := p.InUse(); n != 0 {
		t.Errorf("%d frames did not come back", n)
	}
	noMoreGoroutines(t, before)
}

// noMoreGoroutines waits until there are at most n: one that has done its work
// may need a moment to end.
func noMoreGoroutines(t *testing.T, n int) {
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

// TestSlowDestination checks that one writer whose destination stands still
// does not stop the others.
func TestSlowDestination(t *testing.T) {
	p := NewPool(1, 1)
	release := make(chan struct{})
	slow := NewWriter(writerFunc(func(b []byte) (int, error) { <-release; return len(b), nil }), p, WriterOptions{})
	done := make(chan error)
	go func() {
		slow.Write(mixed(20*FrameSize, 6))
		done <- slow.Close()
	}()
	compress(t, p, mixed(20*FrameSize, 7))
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReadTableRefuses(t *testing.T) {
	good := compress(t, NewPool(1, 1), mixed(3*FrameSize, 8))
	le := binary.LittleEndian
	table := len(good) - (headerLen + 3*8 + footerLen)
	foot := len(good) - footerLen
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return b }
	for name, tt := range map[string]struct {
		file []byte
		want error
	}{
		"empty":           {nil, ErrNoTable},
		"no magic":        {good[:len(good)-1], ErrNoTable},
		"garbage behind":  {append(bytes.Clone(good), 0), ErrNoTable},
		"garbage before":  {append([]byte{0}, good...), ErrBadTable},
		"reserved bits":   {edit(func(b []byte) { b[foot+4] = 4 }), ErrBadTable},
		"with checksums":  {edit(func(b []byte) { b[foot+4] = checksumFlag }), ErrBadTable},
		"other count":     {edit(func(b []byte) { le.PutUint32(b[foot:], 2) }), ErrBadTable},
		"huge count":      {edit(func(b []byte) { le.PutUint32(b[foot:], 1<<31) }), ErrBadTable},
		"beyond the file": {edit(func(b []byte) { le.PutUint32(b[foot:], 1<<20) }), ErrBadTable},
		"header magic":    {edit(func(b []byte) { b[table]++ }), ErrBadTable},
		"header size":     {edit(func(b []byte) { b[table+4]++ }), ErrBadTable},
		"frame size":      {edit(func(b []byte) { b[table+8]++ }), ErrBadTable},
	} {
		if _, err := ReadTable(bytes.NewReader(tt.file), int64(len(tt.file)), 1<<24); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := ReadTable(bytes.NewReader(good), int64(len(good)), 2); !errors.Is(err, ErrBadTable) {
		t.Errorf("more frames than allowed: %v", err)
	}
	if _, err := ReadTable(strings.NewReader("x"), int64(len(good)), 9); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short file: %v", err)
	}
}

// TestReadTableChecksums reads a table with checksums, which others write.
func TestReadTableChecksums(t *testing.T) {
	le := binary.LittleEndian
	b := []byte("frame")
	b = le.AppendUint32(b, tableMagic)
	b = le.AppendUint32(b, 12+footerLen)
	for _, v := range []uint32{5, 77, 0xdecade, 1} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint32(append(b, checksumFlag), footerMagic)
	tab, err := ReadTable(bytes.NewReader(b), int64(len(b)), 1)
	if err != nil || !tab.Checksums || len(tab.Entries) != 1 || tab.Entries[0] != (Entry{5, 77, 0xdecade}) {
		t.Errorf("%+v, %v", tab, err)
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add(compress(f, NewPool(1, 1), mixed(100, 1)))
	empty, _ := AppendTable(nil, nil)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		tab, err := ReadTable(bytes.NewReader(b), int64(len(b)), 1<<16)
		if err != nil {
			return
		}
		sum := tab.Size
		for _, e := range tab.Entries {
			sum += int64(e.Compressed)
		}
		if sum != int64(len(b)) {
			t.Errorf("accepted a table of %d bytes for a file of %d", sum, len(b))
		}
		if again, err := AppendTable(nil, tab.Entries); !tab.Checksums && (err != nil || !bytes.Equal(again[:headerLen+8*len(tab.Entries)], b[len(b)-len(again):len(b)-footerLen])) {
			t.Error("does not print as it was read")
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	in := mixed(32*FrameSize, 1)
	for _, level := range []int{1, 3, 6, 10} {
		b.Run(fmt.Sprint("level=", level), func(b *testing.B) {
			p := NewPool(0, level)
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				compress(b, p, in)
			}
		})
	}
}
