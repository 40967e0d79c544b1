package fusefs

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// thing is something that handles hold.
type thing struct{ closed *atomic.Int32 }

func (x thing) Close() error { x.closed.Add(1); return nil }

func testHandles(maxN int, maxCost int64) (h *handles[thing], opened *int, closed *atomic.Int32) {
	opened, closed = new(int), new(atomic.Int32)
	h = &handles[thing]{maxN: maxN, maxCost: maxCost, open: func(key node) (thing, int64, error) {
		*opened++
		return thing{closed}, int64(key), nil
	}}
	return h, opened, closed
}

func touch(t *testing.T, h *handles[thing], keys ...node) {
	t.Helper()
	for _, k := range keys {
		e, err := h.acquire(k)
		must(t, err)
		h.release(e)
	}
}

func TestHandlesKeepTheLastUsed(t *testing.T) {
	h, opened, closed := testHandles(2, 1000)
	touch(t, h, 1, 2, 1, 3) // 3 pushes out 2
	touch(t, h, 1, 3)
	if *opened != 3 || closed.Load() != 1 {
		t.Errorf("opened %d, closed %d, want 3 and 1", *opened, closed.Load())
	}
	touch(t, h, 2)
	if *opened != 4 || closed.Load() != 2 {
		t.Errorf("opened %d, closed %d, want 4 and 2", *opened, closed.Load())
	}
}

func TestHandlesBoundCost(t *testing.T) {
	h, _, closed := testHandles(100, 10)
	touch(t, h, 4, 5, 1)
	if n, cost := h.size(); n != 3 || cost != 10 {
		t.Errorf("%d open at %d, want 3 at 10", n, cost)
	}
	touch(t, h, 6)
	if n, cost := h.size(); n != 2 || cost != 7 || closed.Load() != 2 {
		t.Errorf("%d open at %d, want 2 at 7", n, cost)
	}
	touch(t, h, 50, 50)
	if n, cost := h.size(); n != 1 || cost != 50 {
		t.Errorf("%d open at %d: what is too big for all must stay while it is the last", n, cost)
	}
}

// What is dropped is closed when nobody uses it, and opened anew for the next.
func TestHandlesDrop(t *testing.T) {
	h, opened, closed := testHandles(100, 100)
	touch(t, h, 4)
	used, err := h.acquire(5)
	must(t, err)
	h.drop()
	if n, cost := h.size(); n != 0 || cost != 0 || closed.Load() != 1 {
		t.Errorf("%d open at %d, %d closed; want none, and the unused one closed", n, cost, closed.Load())
	}
	touch(t, h, 5)
	h.release(used)
	if n, cost := h.size(); n != 1 || cost != 5 || closed.Load() != 2 || *opened != 3 {
		t.Errorf("%d open at %d, %d opened, %d closed; want one of 3, two closed", n, cost, *opened, closed.Load())
	}
}

func TestHandlesInUseStay(t *testing.T) {
	h, _, closed := testHandles(1, 1000)
	a, err := h.acquire(1)
	must(t, err)
	b, err := h.acquire(2)
	must(t, err)
	if closed.Load() != 0 {
		t.Error("closed what is in use")
	}
	if e := h.acquireOpen(1); e != a {
		t.Error("acquireOpen does not find what is open")
	} else {
		h.release(e)
	}
	if h.acquireOpen(9) != nil {
		t.Error("acquireOpen opens")
	}
	h.close()
	if closed.Load() != 0 {
		t.Error("close closed what is in use")
	}
	h.release(a)
	h.release(b)
	if n, cost := h.size(); n != 0 || cost != 0 || closed.Load() != 2 {
		t.Errorf("after close: %d open at %d, %d closed", n, cost, closed.Load())
	}
}

func TestHandlesOpenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, closed := 0, atomic.Int32{}
		h := &handles[thing]{maxN: 1, maxCost: 1, open: func(node) (thing, int64, error) {
			time.Sleep(time.Second)
			opened++
			return thing{&closed}, 1, nil
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { touch(t, h, 1) })
		}
		wg.Wait()
		if opened != 1 {
			t.Errorf("opened %d times", opened)
		}
	})
}

func TestHandlesForgetErrors(t *testing.T) {
	fail := true
	h := &handles[thing]{maxN: 1, maxCost: 1, open: func(node) (thing, int64, error) {
		if fail {
			return thing{}, 0, io.ErrUnexpectedEOF
		}
		return thing{new(atomic.Int32)}, 1, nil
	}}
	if _, err := h.acquire(1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("acquire says %v", err)
	}
	fail = false
	touch(t, h, 1)
}

func TestHandlesSurvivePanic(t *testing.T) {
	first := true
	h := &handles[thing]{maxN: 1, maxCost: 1, open: func(node) (thing, int64, error) {
		if first {
			first = false
			panic("open")
		}
		return thing{new(atomic.Int32)}, 1, nil
	}}
	func() {
		defer func() { recover() }()
		h.acquire(1)
	}()
	touch(t, h, 1) // neither waits nor fails
}

func TestHandlesCloseIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, opened, closed := testHandles(10, 1000)
		h.idle = time.Minute
		touch(t, h, 1)
		time.Sleep(40 * time.Second)
		touch(t, h, 2)
		busy, err := h.acquire(3)
		must(t, err)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if closed.Load() != 1 {
			t.Errorf("%d closed after 70 s, want the one that was idle for a minute", closed.Load())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if closed.Load() != 2 {
			t.Errorf("%d closed, want all but the one in use", closed.Load())
		}
		h.release(busy)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n, _ := h.size(); n != 0 || *opened != 3 {
			t.Errorf("%d open, %d opened", n, *opened)
		}
	})
}

// After an error of the backup a thing is opened anew, once, if it is old.
func TestHandlesReopenAfterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, opened, closed := testHandles(10, 1000)
		h.minAge = time.Second
		bad := &backupError{errors.New("bad")}
		uses := 0
		fail := func(thing) error { uses++; return bad }
		if err := h.with(1, fail); err != bad || uses != 1 || *opened != 1 {
			t.Errorf("young: %v after %d uses of %d", err, uses, *opened)
		}
		time.Sleep(2 * time.Second)
		if err := h.with(1, fail); err != bad || uses != 3 || *opened != 2 || closed.Load() != 1 {
			t.Errorf("old: %v after %d uses of %d, %d closed", err, uses, *opened, closed.Load())
		}
		time.Sleep(2 * time.Second)
		uses = 0
		mends := func(thing) error {
			if uses++; uses == 1 {
				return bad
			}
			return nil
		}
		if err := h.with(1, mends); err != nil || *opened != 3 {
			t.Errorf("mended: %v, opened %d", err, *opened)
		}
		time.Sleep(2 * time.Second)
		if err := h.with(1, func(thing) error { return errNoName }); err != errNoName || *opened != 3 {
			t.Errorf("no error of the backup: %v, opened %d", err, *opened)
		}

		// Who still uses the old one closes it.
		e, err := h.acquire(1)
		must(t, err)
		before := closed.Load()
		h.with(1, fail)
		if closed.Load() != before {
			t.Error("closed while in use")
		}
		h.release(e)
		if n, cost := h.size(); closed.Load() != before+1 || n != 1 || cost != 1 {
			t.Errorf("%d closed, want %d; %d open at %d", closed.Load(), before+1, n, cost)
		}
		h.close()
		if n, _ := h.size(); n != 0 || int(closed.Load()) != *opened {
			t.Errorf("after close %d are open, %d of %d closed", n, closed.Load(), *opened)
		}
	})
}
