package narread

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/narvault/narvault/narread/spool"
	"github.com/narvault/narvault/narread/testenv"
)

// onePiece is a container that must be decoded as a whole. (It is faster than the
// others, which matters with the race detector.)
var onePiece = packer{"gzip", "gzip", func(t testing.TB, n []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	must(t, err)
	_, err = w.Write(n)
	must(t, errors.Join(err, w.Close()))
	return out.Bytes()
}}

// spoolTest is an archive in one piece, and a spool.
type spoolTest struct {
	n, file []byte
	dir     string
	o       Options
	src     *gated
}

func newSpoolTest(t testing.TB) *spoolTest {
	s := &spoolTest{n: makeNAR(t, 900_000, 7, 300_000), dir: t.TempDir()}
	s.file = onePiece.pack(t, s.n)
	s.o = optionsFor(s.n, "gzip")
	s.o.Cache, s.o.Spool, s.o.SpoolDir = NewCache(0), spool.New(s.dir, 1<<30), t.TempDir()
	s.src = &gated{counting: counting{ReaderAt: bytes.NewReader(s.file)}}
	return s
}

// open opens the archive as another process would.
func (s *spoolTest) open(t testing.TB) *Archive {
	t.Helper()
	a, err := Open(s.src, int64(len(s.file)), s.o)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	s.src.bytes.Store(0)
	return a
}

// read reads all, and wants it decoded so many times.
func (s *spoolTest) read(t testing.TB, what string, decoded int) {
	t.Helper()
	a := s.open(t)
	if got, err := readAll(a, 100_001); err != nil || !bytes.Equal(got, s.n) {
		t.Errorf("%s: wrong bytes, error %v", what, err)
	}
	s.decoded(t, what, decoded)
	must(t, a.Close())
}

func (s *spoolTest) decoded(t testing.TB, what string, times int) {
	t.Helper()
	if got, want := s.src.bytes.Load(), int64(times*len(s.file)); got != want {
		t.Errorf("%s: %d bytes of the container were read, want %d", what, got, want)
	}
}

func (s *spoolTest) find(t testing.TB, ext string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "*"+ext))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%d files %s", len(found), ext)
	}
	return found[0]
}

// gated is a source that stops at an offset until it is let go.
type gated struct {
	counting
	mu      sync.Mutex
	at      int64
	reached chan struct{} // nil: no gate
	open    chan struct{}
}

func (g *gated) gate(at int64) (reached <-chan struct{}, open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate := make(chan struct{})
	g.at, g.reached, g.open = at, make(chan struct{}), gate
	return g.reached, sync.OnceFunc(func() { close(gate) })
}

func (g *gated) ReadAt(p []byte, off int64) (int, error) {
	g.mu.Lock()
	var open chan struct{}
	if g.reached != nil && off+int64(len(p)) > g.at {
		close(g.reached)
		open, g.reached = g.open, nil
	}
	g.mu.Unlock()
	if open != nil {
		<-open
	}
	return g.counting.ReadAt(p, off)
}

func TestSpoolIsKept(t *testing.T) {
	s := newSpoolTest(t)
	s.read(t, "first", 1)
	s.read(t, "second", 0)
	must(t, os.Remove(s.find(t, ".nar")))
	s.read(t, "removed", 1)
	must(t, os.Remove(s.find(t, ".sums")))
	s.read(t, "without sums", 1)
	s.o.Compression, s.file = "none", s.n // another container of the same NAR
	s.src = &gated{counting: counting{ReaderAt: bytes.NewReader(s.file)}}
	a := s.open(t)
	if _, err := a.WriteTo(io.Discard); err != nil {
		t.Error(err)
	}
}

// TestSpoolIsShared lets two archives, as of two processes, want the same.
func TestSpoolIsShared(t *testing.T) {
	s := newSpoolTest(t)
	archives := []*Archive{s.open(t), s.open(t), s.open(t)}
	var wg sync.WaitGroup
	for _, a := range archives {
		for range 3 {
			wg.Go(func() {
				if got, err := readAll(a, 300_000); err != nil || !bytes.Equal(got, s.n) {
					t.Errorf("wrong bytes, error %v", err)
				}
			})
		}
	}
	wg.Wait()
	s.decoded(t, "three", 1)
}

// TestDamagedSpool damages the spool file in every way before it is opened, and
// while it is open: it is never served, and made anew.
func TestDamagedSpool(t *testing.T) {
	s := newSpoolTest(t)
	s.read(t, "first", 1)
	for what, damage := range map[string]func(f *os.File) error{
		"first bit":   func(f *os.File) error { return flip(f, 0) },
		"a bit":       func(f *os.File) error { return flip(f, int64(len(s.n)/2)) },
		"last bit":    func(f *os.File) error { return flip(f, int64(len(s.n)-1)) },
		"a page lost": func(f *os.File) error { _, err := f.WriteAt(make([]byte, 4096), 1<<20); return err },
		"cut off":     func(f *os.File) error { return f.Truncate(int64(len(s.n) - 1)) },
		"empty":       func(f *os.File) error { return f.Truncate(0) },
		"longer":      func(f *os.File) error { return f.Truncate(int64(len(s.n) + 1)) },
	} {
		harm := func() {
			t.Helper()
			f, err := os.OpenFile(s.find(t, ".nar"), os.O_RDWR, 0)
			must(t, err)
			must(t, errors.Join(damage(f), f.Close()))
		}
		harm()
		s.read(t, what, 1)
		s.read(t, what+", again", 0)

		a := s.open(t)
		_, err := a.ReadAt(make([]byte, 10), 0)
		must(t, err)
		harm()
		if got, err := readAll(a, 100_000); err != nil || !bytes.Equal(got, s.n) {
			t.Errorf("%s, while open: wrong bytes, error %v", what, err)
		}
		must(t, a.Close())
		s.read(t, what+", after it was open", map[bool]int{true: 1}[what == "longer"]) // not seen before
		harm()
		var out bytes.Buffer
		a = s.open(t)
		if _, err := a.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), s.n) {
			t.Errorf("%s, WriteTo: %d bytes, error %v", what, out.Len(), err)
		}
		must(t, a.Close())
		s.read(t, what+", after WriteTo", 1)
	}
}

func flip(f *os.File, off int64) error {
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return err
	}
	b[0] ^= 4
	_, err := f.WriteAt(b[:], off)
	return err
}

// TestNothingBeforeTheEnd wants no byte before the NarHash was verified.
func TestNothingBeforeTheEnd(t *testing.T) {
	s := newSpoolTest(t)
	a := s.open(t)
	reached, open := s.src.gate(int64(len(s.file)) - 1)
	defer open()
	done := make(chan error, 1)
	go func() {
		_, err := a.ReadAt(make([]byte, 1), 0)
		done <- err
	}()
	<-reached
	select {
	case err := <-done:
		t.Errorf("read before the end, error %v", err)
	default:
	}
	open()
	must(t, <-done)
	s.decoded(t, "for one who waited", 1)
}

// TestOnlyUntilTheOwnOffset decodes a second time what sums are known of: then
// nobody waits for more than he needs.
func TestOnlyUntilTheOwnOffset(t *testing.T) {
	s := newSpoolTest(t)
	s.read(t, "first", 1)
	must(t, os.Remove(s.find(t, ".nar")))
	a := s.open(t)
	reached, open := s.src.gate(int64(len(s.file)) - 1)
	defer open()
	buf := make([]byte, 100_000)
	if _, err := a.ReadAt(buf, 300_000); err != nil || !bytes.Equal(buf, s.n[300_000:400_000]) {
		t.Errorf("%v", err)
	}
	<-reached
	open()
	if got, err := readAll(a, 100_000); err != nil || !bytes.Equal(got, s.n) {
		t.Errorf("%v", err)
	}
	s.decoded(t, "second", 1)
}

// TestDamageBehindKnownBlocks damages a container whose sums are known: what
// comes before the damage can be had.
func TestDamageBehindKnownBlocks(t *testing.T) {
	s := newSpoolTest(t)
	s.read(t, "first", 1)
	must(t, os.Remove(s.find(t, ".nar")))
	s.file[len(s.file)/2] ^= 0x10
	got := readable(t, s.open(t), s.n, blockSize)
	if there := bytes.Count(asBytes(got), []byte{1}); there < 2 || there > len(got)-2 || got[len(got)-1] {
		t.Errorf("readable: %v", got)
	}
	must(t, os.Remove(s.find(t, ".sums")))
	onlyMissing(t, "without sums", readable(t, s.open(t), s.n, blockSize), 0, len(got))
	if left, _ := filepath.Glob(s.dir + "/*"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func asBytes(b []bool) (out []byte) {
	for _, ok := range b {
		out = append(out, map[bool]byte{true: 1}[ok])
	}
	return out
}

// TestSpoolAfterAnError goes on once the medium is back.
func TestSpoolAfterAnError(t *testing.T) {
	s := newSpoolTest(t)
	src := &faulty{ReaderAt: bytes.NewReader(s.file), err: syscall.EIO}
	a, err := Open(src, int64(len(s.file)), s.o)
	must(t, err)
	defer a.Close()
	for range 2 { // without and with sums
		src.set(func(off int64) bool { return off > int64(len(s.file)/2) })
		if _, err := readAll(a, 100_000); !errors.Is(err, syscall.EIO) || isDamage(err) {
			t.Errorf("%v", err)
		}
		src.set(nil)
		if got, err := readAll(a, 100_000); err != nil || !bytes.Equal(got, s.n) {
			t.Errorf("the medium is back: %v", err)
		}
		must(t, a.Close())
		must(t, os.Remove(s.find(t, ".nar")))
		a, err = Open(src, int64(len(s.file)), s.o)
		must(t, err)
	}
}

// TestSpoolFallsBack has no room, or no right, to keep a NAR.
func TestSpoolFallsBack(t *testing.T) {
	s := newSpoolTest(t)
	s.o.Spool = spool.New(s.dir, 1<<20)
	s.read(t, "too large", 1)
	must(t, os.RemoveAll(s.dir))
	must(t, os.WriteFile(s.dir, nil, 0o600))
	s.o.Spool = spool.New(s.dir, 1<<30)
	s.read(t, "no directory", 1)
	t.Setenv("TMPDIR", s.dir)
	_, err := s.open(t).ReadAt(make([]byte, 1), 0)
	if err == nil || !strings.Contains(err.Error(), "TMPDIR") || isDamage(err) {
		t.Errorf("nowhere: %v", err)
	}
}

// TestDiskFillsUp fills the disk of a temporary file beside the spool while a NAR
// is decoded to it: it is decoded to where there is room.
func TestDiskFillsUp(t *testing.T) {
	s := newSpoolTest(t)
	dir := testenv.Tmpfs(t, "size=4m")
	s.o.Spool = spool.New(filepath.Join(dir, "spool"), 1<<20)
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o700))
	a := s.open(t)
	reached, open := s.src.gate(int64(len(s.file) / 2))
	done := make(chan error, 1)
	go func() {
		got, err := readAll(a, 100_001)
		if err == nil && !bytes.Equal(got, s.n) {
			err = errChanged
		}
		done <- err
	}()
	<-reached
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the disk is not full: %v", err)
	}
	open()
	must(t, <-done)
	if n := s.src.bytes.Load(); n <= int64(len(s.file)) {
		t.Errorf("%d bytes of the container were read: it was not decoded again", n)
	}
}

// TestSpoolOnFullDisk has no room for a NAR where the spool is, whether its sums
// are known or not: it is decoded to where there is room.
func TestSpoolOnFullDisk(t *testing.T) {
	s := newSpoolTest(t)
	dir := testenv.Tmpfs(t, "size=4m")
	s.dir = filepath.Join(dir, "spool")
	s.o.Spool = spool.New(s.dir, 1<<30)
	s.read(t, "with room", 1)
	must(t, os.Remove(s.find(t, ".nar")))
	must(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 3500<<10), 0o600))
	s.read(t, "sums are known", 1)
	must(t, os.Remove(s.find(t, ".sums")))
	s.read(t, "sums are not known", 1)
}

// TestBadWhileDecoding damages a spool file while it is written: who reads it gets
// what another one has, once the first decoder has given up, which leaves the
// second one's file alone.
func TestBadWhileDecoding(t *testing.T) {
	s := newSpoolTest(t)
	s.read(t, "first", 1)
	must(t, os.Remove(s.find(t, ".nar")))
	a := s.open(t)
	atEnd, end := s.src.gate(int64(len(s.file)) - 1)
	_, err := a.ReadAt(make([]byte, 1), 0)
	must(t, err)
	<-atEnd
	part, err := os.OpenFile(s.find(t, ".part"), os.O_RDWR, 0)
	must(t, err)
	must(t, errors.Join(flip(part, 300_000), part.Close()))
	inMiddle, middle := s.src.gate(int64(len(s.file) / 2))
	buf, done := make([]byte, 100), make(chan error, 1)
	go func() {
		_, err := a.ReadAt(buf, 300_000)
		done <- err
	}()
	end()
	<-inMiddle
	middle()
	if err := <-done; err != nil || !bytes.Equal(buf, s.n[300_000:300_100]) {
		t.Errorf("wrong bytes, error %v", err)
	}
	if got, err := readAll(a, 100_000); err != nil || !bytes.Equal(got, s.n) {
		t.Errorf("the rest: %v", err)
	}
	must(t, a.Close())
	s.decoded(t, "the bad one and the good one", 2)
	s.read(t, "kept", 0)
}

// TestCloseWhileDecoding ends the pass, and leaves nothing in the spool.
func TestCloseWhileDecoding(t *testing.T) {
	s := newSpoolTest(t)
	a := s.open(t)
	reached, open := s.src.gate(int64(len(s.file) / 2))
	done := make(chan error, 1)
	go func() {
		_, err := a.ReadAt(make([]byte, 1), 0)
		done <- err
	}()
	<-reached
	go open()
	must(t, a.Close())
	if err := <-done; err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if left, _ := filepath.Glob(s.dir + "/*.part"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}
