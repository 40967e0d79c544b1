package narread

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// A request of the tests of sequences: n bytes at off, of blocks of 100 bytes.
type request struct{ off, n int64 }

// inSteps returns requests of n bytes each, in order.
func inSteps(from, to, n int64) (out []request) {
	for off := from; off < to; off += n {
		out = append(out, request{off, min(n, to-off)})
	}
	return out
}

func TestSequences(t *testing.T) {
	const count = 40
	for _, tt := range []struct {
		name          string
		requests      []request
		ahead, behind int // blocks, all in all
	}{
		{"in order", inSteps(0, 4000, 50), 38, 37},
		{"in order, in large steps", inSteps(0, 4000, 400), 27, 34},
		{"once", []request{{500, 10}}, 0, 0},
		{"once, across blocks", []request{{590, 20}}, 0, 0},
		{"the same block again and again", []request{{500, 50}, {550, 50}, {500, 50}, {540, 3}}, 0, 0},
		{"one step", []request{{500, 50}, {600, 50}}, 1, 0},
		{"backwards", []request{{900, 99}, {600, 99}, {300, 99}, {0, 99}}, 0, 0},
		{"far apart", []request{{0, 99}, {1000, 99}, {2000, 99}, {3000, 99}, {500, 99}}, 0, 0},
		{"two requests under way", []request{{50, 50}, {0, 50}, {150, 50}, {100, 50}, {250, 50}, {200, 50}, {350, 50}, {300, 50}}, 6, 1},
		{"small files one behind the other", inSteps(0, 1500, 15), 17, 12},
		{"little of each block", []request{{0, 10}, {100, 10}, {200, 10}, {300, 10}, {400, 10}, {500, 10}, {600, 10}}, 9, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sequences
			ahead, behind := make(map[int]bool), make(map[int]bool)
			for _, r := range tt.requests {
				a, b := s.request(fixed{count * 100, 100}, r.off, r.n, 4)
				for i := a.from; i < a.to; i++ {
					if ahead[i] || i >= count || i <= int((r.off+r.n-1)/100) && r.n > 50 {
						t.Errorf("request %v: block %d ahead", r, i)
					}
					ahead[i] = true
				}
				for i := b.from; i < b.to; i++ {
					if behind[i] || i >= int(r.off/100) {
						t.Errorf("request %v: block %d behind", r, i)
					}
					behind[i] = true
				}
			}
			if len(ahead) != tt.ahead || len(behind) != tt.behind {
				t.Errorf("%d blocks ahead, %d behind, want %d and %d", len(ahead), len(behind), tt.ahead, tt.behind)
			}
		})
	}
}

// Several readers in order, in turns, are told apart up to a number.
func TestSequencesOfManyReaders(t *testing.T) {
	for readers, want := range map[int64]bool{1: true, maxSequences: true, maxSequences + 1: false} {
		var s sequences
		ahead := 0
		for step := range int64(8) {
			for r := range readers {
				a, _ := s.request(fixed{1 << 20, 100}, r*10_000+step*100, 100, 4)
				ahead += a.to - a.from
			}
		}
		if (ahead > 0) != want {
			t.Errorf("%d readers: %d blocks ahead", readers, ahead)
		}
	}
}

// Random reads, however many, hardly ever look like a sequence.
func TestSequencesOfRandomReads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s sequences
	ahead := 0
	for range 10_000 {
		a, _ := s.request(fixed{1000 * 100, 100}, r.Int64N(999*100), 100, 8)
		ahead += a.to - a.from
	}
	if ahead > 500 {
		t.Errorf("%d blocks ahead of 10,000 random reads", ahead)
	}
}

func TestAheadDepth(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	c := NewCache(48 << 20)
	for size, want := range map[int64]int{1: 8, 256 << 10: 8, 1 << 20: 6, 6 << 20: 1, 16 << 20: 1, 17 << 20: 0} {
		if got := c.aheadDepth(size); got != want {
			t.Errorf("blocks of %d bytes: %d ahead, want %d", size, got, want)
		}
	}
	runtime.GOMAXPROCS(1)
	if got := NewCache(48 << 20).aheadDepth(1); got != 0 {
		t.Errorf("on one processor: %d ahead", got)
	}
}

// TestReadAhead reads in order: the blocks that follow are there before they are
// asked for, and those behind are not kept.
func TestReadAhead(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	n := makeNAR(t, 19*blockSize)
	o := optionsFor(n, "zstd")
	o.Cache = NewCache(32 << 20)
	a := open(t, packOwn(t, n), o)
	buf := make([]byte, blockSize)
	there := func() (s string) {
		a.ahead.Wait()
		for i := range 19 {
			if o.Cache.has(blockKey{a, i}) {
				s += fmt.Sprint(i, " ")
			}
		}
		return s
	}
	for i, want := range []string{"0 ", "0 1 2 ", "0 1 2 3 4 ", "1 2 3 4 5 6 7 ", "2 3 4 5 6 7 8 9 10 11 12 "} {
		_, err := a.ReadAt(buf, int64(i*blockSize))
		must(t, err)
		if !bytes.Equal(buf, n[i*blockSize:][:blockSize]) {
			t.Errorf("block %d: wrong bytes", i)
		}
		if got := there(); got != want {
			t.Errorf("after block %d: %sare there, want %s", i, got, want)
		}
	}
}

// gatedBlocks is a container of 8 blocks whose decoding waits.
type gatedBlocks struct {
	fixed
	begun chan int
	gate  chan struct{}
}

func (g *gatedBlocks) decode(i int, _ []byte) (bool, error) {
	g.begun <- i
	<-g.gate
	return true, nil
}

// TestAllProcessors decodes ahead on all processors while whoever reads waits for
// a block that somebody else decodes, and on one less while he decodes himself.
func TestAllProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	n := makeNAR(t, 100)
	g := &gatedBlocks{fixed: fixed{size: 80, width: 10}, begun: make(chan int, 8), gate: make(chan struct{})}
	a := open(t, n, optionsFor(n, "none"))
	a.cache = NewCache(1 << 20)
	b := &blocks{container: g}
	ahead := func(i int) {
		a.ahead.Add(1)
		go a.decodeAhead(b, i)
	}
	var reader sync.WaitGroup
	read := func(i int) {
		reader.Go(func() {
			if _, err := a.copyBlock(b, i, make([]byte, 10), int64(10*i)); err != nil {
				t.Error(err)
			}
		})
	}
	read(0)
	<-g.begun // he decodes
	ahead(1)
	<-g.begun
	if a.cache.cpus.TryAcquire(1) {
		t.Error("a third block would be decoded beside the one that is asked for and the one ahead")
	}
	g.gate <- struct{}{}
	g.gate <- struct{}{}
	reader.Wait()
	a.ahead.Wait()
	ahead(2)
	ahead(3)
	<-g.begun
	<-g.begun // both at a time
	read(2)   // he waits
	read(4)   // another one does not wait for his turn
	if i := <-g.begun; i != 4 {
		t.Errorf("block %d was begun", i)
	}
	close(g.gate)
	reader.Wait()
	a.ahead.Wait()
}

// TestPassOnAllProcessors decodes the next block while the one before is not there.
func TestPassOnAllProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	n := makeNAR(t, 100)
	g := &gatedBlocks{fixed: fixed{size: 80, width: 10}, begun: make(chan int, 8), gate: make(chan struct{})}
	a := open(t, n, optionsFor(n, "none"))
	done := make(chan error, 1)
	go func() { done <- a.inOrder(g, false, func([]byte) error { return nil }) }()
	<-g.begun
	<-g.begun // both at a time
	close(g.gate)
	must(t, <-done)
}
