package fusefs

import (
	"container/list"
	"errors"
	"io"
	"sync"
	"time"
)

// handles keeps opened things (archives, streams) open between requests, since
// the kernel tells us neither of open(2) nor of close(2). Each key is opened
// once however many ask at a time. What nobody uses is closed in the order of
// last use when there is more than maxN of it or it costs more than maxCost,
// and when it was idle for long; the last one used stays, lest a listing above
// maxCost be read again for each request. Errors are not kept.
type handles[V io.Closer] struct {
	open    func(key node) (v V, cost int64, err error)
	maxN    int
	maxCost int64
	idle    time.Duration // 0: for ever

	mu     sync.Mutex
	byKey  map[node]*handle[V] // guarded by mu
	unused list.List           // guarded by mu: of *handle[V] without users, last used first
	cost   int64               // guarded by mu: of all opened
	sweeps bool                // guarded by mu: a sweep is due
	closed bool                // guarded by mu
}

// A handle is one opened thing. Its user calls release.
type handle[V io.Closer] struct {
	key   node
	ready chan struct{} // closed when v, cost and err are set
	v     V
	cost  int64
	err   error

	users int           // guarded by handles.mu
	last  time.Time     // guarded by handles.mu: of last use
	elem  *list.Element // guarded by handles.mu: in unused, or nil
}

var errOpenPanicked = errors.New("opening it panicked")

// acquire returns the handle of key, opened. The caller releases it.
func (h *handles[V]) acquire(key node) (*handle[V], error) {
	h.mu.Lock()
	e, ok := h.byKey[key]
	if ok {
		h.use(e)
		h.mu.Unlock()
		<-e.ready
		return e, e.err // after an error e is no longer in byKey: nothing to release
	}
	e = &handle[V]{key: key, users: 1, ready: make(chan struct{}), err: errOpenPanicked}
	if h.byKey == nil {
		h.byKey = make(map[node]*handle[V])
	}
	h.byKey[key] = e
	h.mu.Unlock()
	defer h.opened(e) // also when open panics: nobody may wait for ever
	e.v, e.cost, e.err = h.open(key)
	return e, e.err
}

// acquireOpen is acquire for what is open, nil if it is not.
func (h *handles[V]) acquireOpen(key node) *handle[V] {
	h.mu.Lock()
	e, ok := h.byKey[key]
	if !ok || e.elem == nil { // absent, being opened, or busy: not worth waiting for
		h.mu.Unlock()
		return nil
	}
	h.use(e)
	h.mu.Unlock()
	return e
}

// use adds a user of e. Needs mu.
func (h *handles[V]) use(e *handle[V]) {
	e.users++
	if e.elem != nil {
		h.unused.Remove(e.elem)
		e.elem = nil
	}
}

// opened publishes the outcome of opening e.
func (h *handles[V]) opened(e *handle[V]) {
	h.mu.Lock()
	if e.err != nil {
		delete(h.byKey, e.key)
	} else {
		h.cost += e.cost
	}
	close(e.ready)
	old := h.evict()
	h.mu.Unlock()
	closeAll(old)
}

// release ends one use of e.
func (h *handles[V]) release(e *handle[V]) {
	h.mu.Lock()
	e.users--
	var old []*handle[V]
	if e.users == 0 {
		e.last = time.Now()
		e.elem = h.unused.PushFront(e)
		old = h.evict()
		if h.idle > 0 && !h.sweeps {
			h.sweeps = true
			time.AfterFunc(h.idle, h.sweep)
		}
	}
	h.mu.Unlock()
	closeAll(old)
}

// evict takes out what is too much, for closing without the lock. Needs mu.
func (h *handles[V]) evict() (old []*handle[V]) {
	for h.unused.Len() > 0 && (h.closed || len(h.byKey) > 1 && (len(h.byKey) > h.maxN || h.cost > h.maxCost)) {
		old = append(old, h.remove(h.unused.Back()))
	}
	return old
}

// remove takes an unused handle out. Needs mu.
func (h *handles[V]) remove(elem *list.Element) *handle[V] {
	e := h.unused.Remove(elem).(*handle[V])
	delete(h.byKey, e.key)
	h.cost -= e.cost
	return e
}

// sweep closes what was idle for long.
func (h *handles[V]) sweep() {
	h.mu.Lock()
	var old []*handle[V]
	next := h.idle
	for h.unused.Len() > 0 {
		back := h.unused.Back()
		if rest := h.idle - time.Since(back.Value.(*handle[V]).last); rest > 0 {
			next = rest
			break
		}
		old = append(old, h.remove(back))
	}
	h.sweeps = h.unused.Len() > 0
	if h.sweeps {
		time.AfterFunc(next, h.sweep)
	}
	h.mu.Unlock()
	closeAll(old)
}

// close closes everything, what is in use when its user is done.
func (h *handles[V]) close() {
	h.mu.Lock()
	h.closed = true
	old := h.evict()
	h.mu.Unlock()
	closeAll(old)
}

// size returns how many are open or being opened, and what they cost.
func (h *handles[V]) size() (n int, cost int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byKey), h.cost
}

// closeAll drops errors of Close: what was read was checked when it was read.
func closeAll[V io.Closer](old []*handle[V]) {
	for _, e := range old {
		e.v.Close()
	}
}
