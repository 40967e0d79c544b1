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
	open func(key node) (v V, cost int64, err error)
	// finish, if not nil, is the rest of opening where open returns errSlow beside
	// v. It runs in the background, and meanwhile acquire returns a waitError.
	finish  func(v V) (cost int64, err error)
	maxN    int
	maxCost int64
	idle    time.Duration // 0: for ever
	// minAge is how old an opened thing must be before an error makes it worth
	// to open it again. It must also have been used for longer than opening it
	// took: some archives are decoded as a whole for that, and every page that
	// cannot be read is an error.
	minAge time.Duration

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
	slow  chan struct{} // closed before that, if opening goes on in the background
	v     V
	cost  int64
	err   error

	born  time.Time     // guarded by handles.mu: when opening it, or the last try to do so anew, began
	took  time.Duration // guarded by handles.mu: what that took
	users int           // guarded by handles.mu
	last  time.Time     // guarded by handles.mu: of last use
	elem  *list.Element // guarded by handles.mu: in unused, or nil
	spent bool          // guarded by handles.mu: replaced in byKey, closed by its last user

	reopening bool // guarded by handles.mu
}

var (
	errPanicked = errors.New("reading the backup panicked")
	errSlow     = errors.New("opening it takes long")
)

func newHandle[V io.Closer](key node) *handle[V] {
	return &handle[V]{key: key, ready: make(chan struct{}), slow: make(chan struct{}), err: errPanicked, born: time.Now()}
}

// acquire returns the handle of key, opened. The caller releases it. While it is
// being opened in the background, the error is a waitError.
func (h *handles[V]) acquire(key node) (*handle[V], error) {
	h.mu.Lock()
	e, ok := h.byKey[key]
	if ok {
		h.use(e)
		h.mu.Unlock()
		return h.join(e)
	}
	e = newHandle[V](key)
	e.users = 1
	if h.byKey == nil {
		h.byKey = make(map[node]*handle[V])
	}
	h.byKey[key] = e
	h.mu.Unlock()
	return h.begin(e)
}

// join is acquire for a handle of which the caller is a user already.
func (h *handles[V]) join(e *handle[V]) (*handle[V], error) {
	select {
	case <-e.ready:
		return e, e.err // after an error e is no longer in byKey: nothing to release
	default:
	}
	select {
	case <-e.ready:
		return e, e.err
	case <-e.slow:
		h.release(e)
		return nil, e.wait()
	}
}

// begin opens e, or begins to.
func (h *handles[V]) begin(e *handle[V]) (*handle[V], error) {
	slow := false
	defer func() { // also when open panics: nobody may wait for ever
		if !slow {
			h.opened(e)
		}
	}()
	e.v, e.cost, e.err = h.open(e.key)
	if slow = e.err == errSlow; !slow {
		return e, e.err
	}
	close(e.slow)
	go func() {
		e.cost, e.err = h.finish(e.v)
		if h.opened(e); e.err == nil {
			h.release(e)
		}
	}()
	return nil, e.wait()
}

// finishing reports whether e is being opened in the background.
func (e *handle[V]) finishing() bool {
	select {
	case <-e.ready:
		return false
	default:
	}
	select {
	case <-e.slow:
		return true
	default:
		return false
	}
}

// wait returns what a request is told that needs e.
func (e *handle[V]) wait() error {
	return &waitError{ready: e.ready, outcome: func() error { return e.err }}
}

// acquireOpen is acquire for what is open, nil if it is not.
func (h *handles[V]) acquireOpen(key node) *handle[V] {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.byKey[key]
	if !ok {
		return nil
	}
	select {
	case <-e.ready:
		h.use(e)
		return e
	default: // being opened: not worth waiting for
		return nil
	}
}

// use adds a user of e. Needs mu.
func (h *handles[V]) use(e *handle[V]) {
	e.users++
	if e.elem != nil {
		h.unused.Remove(e.elem)
		e.elem = nil
	}
}

// with runs use with what key stands for. If that fails because of the Backup,
// it is opened anew, and tried once more: the file that is open may have been
// replaced by a good one.
func (h *handles[V]) with(key node, use func(V) error) error {
	for first := true; ; first = false {
		e, err := h.acquire(key)
		if err != nil {
			return err
		}
		replaced, err := h.run(e, use)
		if !replaced || !first {
			return err
		}
	}
}

// run is one use of an acquired handle, which it releases.
func (h *handles[V]) run(e *handle[V], use func(V) error) (replaced bool, err error) {
	defer h.release(e)
	if err = use(e.v); errors.Is(err, errBackup) {
		replaced = h.reopen(e)
	}
	return replaced, err
}

// reopen opens what e stands for anew, and reports whether there is another
// handle for it now. If it cannot be opened, e stays: what is open of a file
// that was damaged meanwhile may be all that can still be read of it.
func (h *handles[V]) reopen(e *handle[V]) bool {
	h.mu.Lock()
	spent := e.spent
	due := !spent && !e.reopening && time.Since(e.born) > max(h.minAge, 4*e.took)
	e.reopening = e.reopening || due
	h.mu.Unlock()
	if !due {
		return spent
	}
	n := newHandle[V](e.key)
	defer h.replace(e, n) // also when open panics
	close(n.ready)
	if n.v, n.cost, n.err = h.open(e.key); n.err == errSlow {
		n.cost, n.err = h.finish(n.v)
	}
	return n.err == nil
}

// replace puts n in the place of e, which is in use, if opening it went well.
func (h *handles[V]) replace(e, n *handle[V]) {
	h.mu.Lock()
	n.took = time.Since(n.born)
	e.reopening = false
	if n.err != nil {
		e.born, e.took = n.born, n.took
		h.mu.Unlock()
		return
	}
	if e.spent { // dropped meanwhile, so n may be of no use either
		h.mu.Unlock()
		n.v.Close()
		return
	}
	e.spent = true
	h.byKey[e.key] = n
	h.cost += n.cost - e.cost
	n.last = time.Now()
	n.elem = h.unused.PushFront(n)
	old := h.evict()
	h.mu.Unlock()
	closeAll(old)
}

// opened publishes the outcome of opening e.
func (h *handles[V]) opened(e *handle[V]) {
	h.mu.Lock()
	e.took = time.Since(e.born)
	switch {
	case e.spent: // dropped meanwhile
	case e.err != nil:
		delete(h.byKey, e.key)
	default:
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
	switch {
	case e.users > 0:
	case e.spent:
		old = append(old, e)
	default:
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

// offer takes over something that was opened for key, unless that is open.
func (h *handles[V]) offer(key node, v V) {
	h.mu.Lock()
	_, have := h.byKey[key]
	if !have {
		e := newHandle[V](key)
		e.v, e.err, e.users = v, nil, 1
		close(e.ready)
		if h.byKey == nil {
			h.byKey = make(map[node]*handle[V])
		}
		h.byKey[key] = e
		defer h.release(e)
	}
	h.mu.Unlock()
	if have {
		v.Close()
	}
}

// drop closes everything, what is in use or being opened when its user is done.
// Who asks next opens it anew.
func (h *handles[V]) drop() {
	h.mu.Lock()
	var old []*handle[V]
	for key, e := range h.byKey {
		delete(h.byKey, key)
		e.spent = true
		if e.elem != nil {
			h.unused.Remove(e.elem)
			e.elem = nil
			old = append(old, e)
		}
	}
	h.cost = 0
	h.mu.Unlock()
	closeAll(old)
}

// close closes everything, what is in use when its user is done. What is being
// opened in the background is closed at once, so that this ends.
func (h *handles[V]) close() {
	h.mu.Lock()
	h.closed = true
	old := h.evict()
	for _, e := range h.byKey {
		if e.finishing() {
			old = append(old, e)
		}
	}
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
