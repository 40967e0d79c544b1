package narread

import (
	"container/list"
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// defaultCache is what an archive without a Cache of its own gets.
	defaultCache = 4 << 20

	// maxDecoding bounds what blocks being decoded take together, beside the
	// cache: however many readers there are, and however large frames are.
	maxDecoding = 64 << 20
)

// Cache keeps decoded blocks, the least recently used go first. Archives that
// share one share its memory, its buffers, and its bounds on concurrent work:
// as many zstd frames are decoded at a time as there are CPUs, at most 64 MiB
// of blocks are being decoded, and as many containers that cannot be entered in
// the middle are being decoded as there are CPUs.
//
// Readers who want one block at the same time decode it once, whether it fits
// the cache or not. Errors are not kept. A Cache is safe for concurrent use,
// needs no closing, and holds nothing of an archive that was closed.
type Cache struct {
	max      int64
	dec      decoders
	decoding *semaphore.Weighted // bytes of blocks being decoded
	passes   *semaphore.Weighted // containers being decoded from beginning to end
	cpus     *semaphore.Weighted // see asked
	ahead    bool                // whether there are CPUs for more than what is asked for

	mu      sync.Mutex
	entries map[blockKey]*entry
	lru     list.List // of *entry, the most recently used first
	used    int64     // bytes of what is in lru
}

type blockKey struct {
	archive *Archive
	block   int
}

// entry is a block in the cache, in use, or on its way. It is in Cache.entries
// while it is any of these and has not failed.
type entry struct {
	key   blockKey
	ready chan struct{} // closed when buf or err is set
	buf   *buffer
	err   error

	refs int           // who reads it or waits; guarded by Cache.mu
	elem *list.Element // in Cache.lru, or nil; guarded by Cache.mu
}

// NewCache returns a cache of at most maxBytes of decoded blocks. It may be 0:
// then blocks are shared only by those who read them at the same time.
func NewCache(maxBytes int64) *Cache {
	procs := int64(runtime.GOMAXPROCS(0))
	return &Cache{
		max:      max(maxBytes, 0),
		decoding: semaphore.NewWeighted(maxDecoding),
		passes:   semaphore.NewWeighted(procs),
		cpus:     semaphore.NewWeighted(procs),
		ahead:    procs > 1,
		entries:  make(map[blockKey]*entry),
	}
}

// get returns a block of n bytes, filled by load unless it is there. The caller
// must release it.
func (c *Cache) get(key blockKey, n int, load func(dst []byte) error) (*entry, error) {
	e, mine := c.join(key)
	if mine {
		c.fill(e, n, load)
	}
	<-e.ready
	if e.err != nil {
		return nil, e.err // the entry is out of the map, and has no buffer
	}
	return e, nil
}

// asked runs decode, for somebody who waits for it, on a CPU that is then not
// used for what nobody waits for yet. While whoever reads in order waits for
// blocks that are being decoded ahead, these have all CPUs: with one less, xz was
// decoded on a single one of two.
func (c *Cache) asked(decode func() error) error {
	if c.cpus.TryAcquire(1) {
		defer c.cpus.Release(1)
	}
	return decode()
}

// join takes a reference to the entry of key, making it if there is none.
func (c *Cache) join(key blockKey) (e *entry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.entries[key]
	if e == nil {
		e = &entry{key: key, ready: make(chan struct{})}
		c.entries[key] = e
		mine = true
	} else if e.elem != nil {
		c.lru.MoveToFront(e.elem)
	}
	e.refs++
	return e, mine
}

// fill decodes the block and tells those who wait.
func (c *Cache) fill(e *entry, n int, load func([]byte) error) {
	weight := min(int64(n), maxDecoding)
	c.decoding.Acquire(context.Background(), weight) // no error without a deadline
	buf := c.dec.buffers.get(n)
	err := errUnfinished
	defer func() { // also when load panics
		c.decoding.Release(weight)
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.err = err; err != nil {
			delete(c.entries, e.key)
			c.dec.buffers.put(buf)
		} else {
			e.buf = buf
			c.keep(e)
		}
		close(e.ready)
	}()
	err = load(buf.b)
}

// keep puts e into the cache and others out, if it fits. It is called with mu
// held.
func (c *Cache) keep(e *entry) {
	size := int64(cap(e.buf.b))
	if size > c.max {
		return
	}
	e.elem = c.lru.PushFront(e)
	c.used += size
	for c.used > c.max {
		c.evict(c.lru.Back().Value.(*entry))
	}
}

// evict takes e out of the cache; its buffer goes when nobody reads it. It is
// called with mu held.
func (c *Cache) evict(e *entry) {
	c.lru.Remove(e.elem)
	e.elem = nil
	c.used -= int64(cap(e.buf.b))
	c.drop(e)
}

// done takes a block out before its turn.
func (c *Cache) done(key blockKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.elem != nil {
		c.evict(e)
	}
}

// drop recycles e if nothing holds it. It is called with mu held.
func (c *Cache) drop(e *entry) {
	if e.refs == 0 && e.elem == nil {
		delete(c.entries, e.key)
		c.dec.buffers.put(e.buf)
		e.buf = nil
	}
}

// release gives up a reference that get returned.
func (c *Cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.refs--
	c.drop(e)
}

// has reports whether a block is there or on its way.
func (c *Cache) has(key blockKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[key] != nil
}

// forget takes out what belongs to a, which nobody reads any more.
func (c *Cache) forget(a *Archive) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next *list.Element
	for el := c.lru.Front(); el != nil; el = next {
		next = el.Next()
		if e := el.Value.(*entry); e.key.archive == a {
			c.evict(e)
		}
	}
}
