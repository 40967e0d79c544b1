package narread

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// waiting returns how many hold or wait for a block.
func (c *Cache) waiting(key blockKey) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		return e.refs
	}
	return 0
}

// TestSingleFlight lets 100 readers want one block before it is there: it is
// decoded once, also when the cache keeps nothing.
func TestSingleFlight(t *testing.T) {
	for _, max := range []int64{0, 1 << 20} {
		c := NewCache(max)
		key := blockKey{nil, 7}
		var loads atomic.Int64
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				e, err := c.get(key, 5, func(dst []byte) error {
					loads.Add(1)
					<-release
					copy(dst, "block")
					return nil
				})
				if err != nil || string(e.buf.b) != "block" {
					t.Error(err)
					return
				}
				c.release(e)
			})
		}
		for c.waiting(key) < 100 {
			runtime.Gosched()
		}
		close(release)
		wg.Wait()
		if loads.Load() != 1 {
			t.Errorf("cache of %d: %d loads", max, loads.Load())
		}
		if kept := c.waiting(key) == 0 && c.has(key); kept != (max > 0) {
			t.Errorf("cache of %d: kept = %v", max, kept)
		}
	}
}

// TestFailedLoad fails for all who wait, and for nobody else.
func TestFailedLoad(t *testing.T) {
	c := NewCache(1 << 20)
	key := blockKey{nil, 1}
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := c.get(key, 5, func([]byte) error { <-release; return syscall.EIO }); err != syscall.EIO {
				t.Error(err)
			}
		})
	}
	for c.waiting(key) < 10 {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	func() {
		defer func() { recover() }()
		c.get(key, 5, func([]byte) error { panic("bug") })
	}()
	e, err := c.get(key, 5, func(dst []byte) error { copy(dst, "block"); return nil })
	if err != nil || string(e.buf.b) != "block" {
		t.Fatal(err)
	}
	c.release(e)
}

// TestEviction keeps within the bound, and puts out what was used least
// recently.
func TestEviction(t *testing.T) {
	const size = 4096 + overAlloc
	c := NewCache(3 * size)
	var loads []int
	get := func(i int) *entry {
		e, err := c.get(blockKey{nil, i}, 4000, func(dst []byte) error {
			loads = append(loads, i)
			dst[0] = byte(i)
			return nil
		})
		must(t, err)
		if e.buf.b[0] != byte(i) {
			t.Errorf("block %d holds %d", i, e.buf.b[0])
		}
		if c.used > c.max {
			t.Errorf("%d of %d bytes used", c.used, c.max)
		}
		return e
	}
	held := get(0)
	for _, i := range []int{1, 2, 1, 3, 4, 1, 5, 0} {
		c.release(get(i))
	}
	if got, want := fmt.Sprint(loads), "[0 1 2 3 4 5]"; got != want {
		t.Errorf("loads %v, want %v: 0 was held and can be shared though evicted", got, want)
	}
	if held.buf.b[0] != 0 {
		t.Error("a block that is held was recycled")
	}
	c.release(held)
	c.release(get(0))
	if len(loads) != 7 {
		t.Error("an evicted block is still there after its last release")
	}
	if _, err := c.get(blockKey{nil, 99}, 1<<20, func([]byte) error { return nil }); err != nil || c.used > c.max {
		t.Errorf("a block larger than the cache: %v, %d bytes used", err, c.used)
	}
}

// TestBuffersAreRecycled takes many blocks through a cache of few.
func TestBuffersAreRecycled(t *testing.T) {
	c := NewCache(4 * blockSize)
	const blocks = 200
	before := allocated()
	for i := range blocks {
		e, err := c.get(blockKey{nil, i}, blockSize, func([]byte) error { return nil })
		must(t, err)
		c.release(e)
	}
	if n := allocated() - before; n > blocks*blockSize/2 { // the race detector drops some of them
		t.Errorf("%d bytes allocated for %d blocks", n, blocks)
	}
}

// TestWorkIsBounded looks at what may be begun while a block is decoded, and while
// a container is: 64 MiB of blocks, and as many containers as there are processors.
func TestWorkIsBounded(t *testing.T) {
	c := NewCache(0)
	const size = 1 << 20
	e, err := c.get(blockKey{nil, 1}, size, func([]byte) error {
		if c.decoding.TryAcquire(maxDecoding - size + 1) {
			t.Error("more blocks may be decoded than the bound allows")
		}
		return nil
	})
	must(t, err)
	c.release(e)
	n := makeNAR(t, 1000)
	o := optionsFor(n, "gzip")
	o.Cache = c
	must(t, open(t, onePiece.pack(t, n), o).boundedPass(func([]byte) error {
		if c.passes.TryAcquire(int64(runtime.GOMAXPROCS(0))) {
			t.Error("more containers may be decoded than there are processors")
		}
		return nil
	}))
	if !c.decoding.TryAcquire(maxDecoding) || !c.passes.TryAcquire(int64(runtime.GOMAXPROCS(0))) {
		t.Error("something is held for ever")
	}
}

// TestSharedCache reads several archives through one small cache at once: their
// blocks must not mix when buffers are recycled.
func TestSharedCache(t *testing.T) {
	c := NewCache(2 << 20)
	var wg sync.WaitGroup
	for i := range 6 {
		n := makeNAR(t, 100_000*i+7, 600_000)
		file := packOwn(t, n)
		wg.Go(func() {
			o := optionsFor(n, "zstd")
			o.Cache = c
			a, err := Open(bytes.NewReader(file), int64(len(file)), o)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			r := rand.New(rand.NewPCG(uint64(i), 2))
			buf := make([]byte, 5000)
			for range 300 {
				off := r.IntN(len(n))
				k, _ := a.ReadAt(buf, int64(off))
				if !bytes.Equal(buf[:k], n[off:off+k]) {
					t.Error("wrong bytes")
				}
			}
		})
	}
	wg.Wait()
	if len(c.entries) != 0 || c.used != 0 {
		t.Errorf("%d entries and %d bytes left", len(c.entries), c.used)
	}
}

// TestDecodedOnce opens what cannot be entered in the middle, and lets many
// readers want it at once.
func TestDecodedOnce(t *testing.T) {
	n := makeNAR(t, 900_000)
	file := program("zstd", "zstd", "-1").pack(t, n)
	for _, max := range []int64{0, 8 << 20} {
		src := &counting{ReaderAt: bytes.NewReader(file)}
		o := optionsFor(n, "zstd")
		o.Cache, o.SpoolDir = NewCache(max), t.TempDir()
		a, err := Open(src, int64(len(file)), o)
		must(t, err)
		src.bytes.Store(0)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if i%3 == 0 {
					if _, err := a.Listing(); err != nil {
						t.Error(err)
					}
				}
				buf := make([]byte, 1000)
				off := i * 20_000
				if _, err := a.ReadAt(buf, int64(off)); err != nil || !bytes.Equal(buf, n[off:off+1000]) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := src.bytes.Load(); got != int64(len(file)) {
			t.Errorf("cache of %d: %d bytes of the file read, want each once, %d", max, got, len(file))
		}
		must(t, a.Close())
	}
}

// TestClose closes while others read: they get their bytes or os.ErrClosed.
func TestClose(t *testing.T) {
	n := makeNAR(t, 3_000_000)
	before := runtime.NumGoroutine()
	for _, p := range []packer{own, {"br", "br", packBrotli}, {"none", "none", func(_ testing.TB, n []byte) []byte { return n }}} {
		file := p.pack(t, n)
		src := &counting{ReaderAt: bytes.NewReader(file)}
		o := optionsFor(n, p.compression)
		o.Cache, o.SpoolDir = NewCache(100_000), t.TempDir()
		a, err := Open(src, int64(len(file)), o)
		must(t, err)
		started := make(chan struct{}, 1000)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					got, err := readAll(a, 100_000)
					if !bytes.Equal(got, n[:len(got)]) {
						t.Error("wrong bytes")
					}
					if src.closed.Load() && err == nil {
						continue // it was finished in time
					}
					if errors.Is(err, os.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
			wg.Go(func() {
				_, err := a.WriteTo(signalWriter{started})
				if err != nil && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
			})
		}
		<-started
		must(t, a.Close())
		wg.Wait()
		if _, err := a.Listing(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Listing after Close: %v", err)
		}
		if _, err := a.WriteTo(io.Discard); !errors.Is(err, os.ErrClosed) {
			t.Errorf("WriteTo after Close: %v", err)
		}
		if err := a.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		if len(o.Cache.entries) != 0 {
			t.Errorf("%s: %d entries left", p.name, len(o.Cache.entries))
		}
	}
	noMoreGoroutines(t, before)
}

type signalWriter struct{ c chan struct{} }

func (w signalWriter) Write(p []byte) (int, error) {
	select {
	case w.c <- struct{}{}:
	default:
	}
	return len(p), nil
}

// TestWriteToStops stops at the writer's error, and leaves nothing running.
func TestWriteToStops(t *testing.T) {
	n := makeNAR(t, 700_000)
	before := runtime.NumGoroutine()
	for _, p := range packers() {
		a := open(t, p.pack(t, n), optionsFor(n, p.compression))
		for after := range min(2, (len(n)+int(a.firstBlock())-1)/int(a.firstBlock())) {
			w := &stopWriter{after}
			c, err := a.WriteTo(w)
			if !errors.Is(err, errStop) || c != int64(after)*a.firstBlock() {
				t.Errorf("%s: WriteTo = %d, %v", p.name, c, err)
			}
		}
		a.Close()
	}
	noMoreGoroutines(t, before)
}

// firstBlock returns the size of the blocks in which WriteTo writes.
func (a *Archive) firstBlock() int64 {
	if p, ok := a.random.(packed); ok {
		return p.start(1)
	}
	return blockSize
}

type stopWriter struct{ n int }

var errStop = errors.New("stop")

func (w *stopWriter) Write(p []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, errStop
	}
	return len(p), nil
}

// TestSpoolFails cannot write its temporary file: an error that may pass.
func TestSpoolFails(t *testing.T) {
	n := makeNAR(t, 700_000)
	dir := t.TempDir() + "/not there yet"
	o := optionsFor(n, "br")
	o.Cache, o.SpoolDir = NewCache(0), dir
	a := open(t, packBrotli(t, n), o)
	if _, err := a.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrNotExist) || isDamage(err) {
		t.Errorf("%v", err)
	}
	if _, err := a.Listing(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	must(t, os.Mkdir(dir, 0o700))
	if got, err := readAll(a, 1000); err != nil || !bytes.Equal(got, n) {
		t.Error(err)
	}
}
