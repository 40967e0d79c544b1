package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func TestGenerationIsKeptWhileHeld(t *testing.T) {
	f := newFakeCache(t, 10)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	old, err := Open(dir, Options{})
	must(t, err)
	before := map[string]bool{}
	for _, e := range old.Paths() {
		before[string(e.Path)] = true
	}
	f.add("second")
	f.build(dir, BuildOptions{})
	f.add("third")
	f.build(dir, BuildOptions{})
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-1", "gen-3"}) {
		t.Errorf("while one is held: %v", got)
	}
	for _, e := range old.Paths() {
		if !before[string(e.Path)] {
			t.Errorf("%s appeared", e.Path)
		}
		if problem := f.want[e.Path].compare(old, e.Path); problem != "" {
			t.Errorf("%s: %s", e.Path, problem)
		}
	}
	must(t, old.Close())
	f.build(dir, BuildOptions{})
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-3"}) {
		t.Errorf("after it was released: %v", got)
	}
	f.check(dir)
}

func TestLive(t *testing.T) {
	f := newFakeCache(t, 10)
	dir := filepath.Join(t.TempDir(), "index")
	var warnings []error
	l := NewLive(dir, LiveOptions{Interval: -1, Warn: func(err error) { warnings = append(warnings, err) }})
	if _, err := l.Acquire(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no index yet: %v", err)
	}
	f.build(dir, BuildOptions{})
	first, err := l.Acquire()
	must(t, err)
	f.compare(first)
	again, err := l.Acquire()
	must(t, err)
	if again.g != first.g {
		t.Error("opened twice")
	}
	must(t, again.Close())

	before := *f
	before.want = map[storePath]*wanted{}
	for p, w := range f.want {
		before.want[p] = w
	}
	f.add("added")
	f.build(dir, BuildOptions{})
	second, err := l.Acquire()
	must(t, err)
	f.compare(second)
	before.compare(first)
	must(t, first.Close())
	must(t, second.Close())

	// A newer one that is damaged is not taken, and told of once.
	must(t, os.WriteFile(filepath.Join(dir, currentFile), []byte("nonsense"), 0o644))
	for range 3 {
		ix, err := l.Acquire()
		must(t, err)
		f.compare(ix)
		must(t, ix.Close())
	}
	if len(warnings) != 1 {
		t.Errorf("warnings %v", warnings)
	}
	f.build(dir, BuildOptions{})
	third, err := l.Acquire()
	must(t, err)
	if third.Generation() != 3 {
		t.Errorf("generation %d", third.Generation())
	}
	must(t, l.Close())
	f.compare(third)
	must(t, third.Close())
	if _, err := l.Acquire(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if !errors.Is(l.Close(), os.ErrClosed) {
		t.Error("closed twice")
	}
}

// Within the interval nothing is looked at.
func TestLiveInterval(t *testing.T) {
	f := newFakeCache(t, 2)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	l := NewLive(dir, LiveOptions{Interval: 1 << 50})
	defer l.Close()
	for want := range 2 {
		ix, err := l.Acquire()
		must(t, err)
		if ix.Generation() != 1 {
			t.Errorf("round %d: generation %d", want, ix.Generation())
		}
		must(t, ix.Close())
		f.add("x")
		f.build(dir, BuildOptions{})
	}
}

// Readers and a builder that switches generations again and again.
func TestReadersAndBuilder(t *testing.T) {
	f := newFakeCache(t, 60)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	stable := *f // what is there all the time
	stable.want = map[storePath]*wanted{}
	for p, w := range f.want {
		stable.want[p] = w
	}
	var stop atomic.Bool
	var reads, newest atomic.Int64
	var wg sync.WaitGroup
	l := NewLive(dir, LiveOptions{Interval: -1, Warn: func(err error) { t.Error(err) }})
	for range 3 {
		wg.Go(func() {
			for last := uint64(0); !stop.Load(); {
				ix, err := l.Acquire()
				if err != nil {
					t.Error(err)
					return
				}
				if ix.Generation() < last {
					t.Errorf("generation %d after %d", ix.Generation(), last)
				}
				last = ix.Generation()
				newest.Store(int64(last))
				for p, w := range stable.want {
					if problem := w.compare(ix, p); problem != "" {
						t.Errorf("generation %d: %s: %s", last, p, problem)
					}
					reads.Add(1)
				}
				if err := ix.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		f.add("x")
		s := f.build(dir, BuildOptions{})
		for newest.Load() < int64(s.Generation) && !t.Failed() {
			ix, err := l.Acquire() // also from here
			must(t, err)
			newest.Store(int64(ix.Generation()))
			must(t, ix.Close())
		}
	}
	stop.Store(true)
	wg.Wait()
	must(t, l.Close())
	if reads.Load() == 0 {
		t.Error("nothing was read")
	}
	f.build(dir, BuildOptions{})
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-9"}) {
		t.Errorf("generations %v", got)
	}
}

// Builders wait for each other, and the second finds nothing to do.
func TestTwoBuilders(t *testing.T) {
	f := newFakeCache(t, 30)
	dir := t.TempDir()
	c := f.open()
	var wg sync.WaitGroup
	var fresh atomic.Int64
	for range 3 {
		wg.Go(func() {
			s, err := Build(t.Context(), dir, c, BuildOptions{})
			if err != nil {
				t.Error(err)
			} else if !s.Unchanged {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if fresh.Load() != 1 {
		t.Errorf("%d builds made a generation", fresh.Load())
	}
	f.check(dir)
}
