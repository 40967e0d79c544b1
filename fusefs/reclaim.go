package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Streams can be much larger than memory and are read once, in order: what is
// behind the reader is taken out of the page cache, lest it push out what others
// need. A reader who comes back gets it made again.
const (
	reclaimStep = 32 << 20 // bytes taken out at a time
	reclaimLag  = 16 << 20 // bytes left behind the reader, for those beside him
)

// A reclaimer takes pages out of the kernel's cache. That must not happen in
// the answer to a request: the kernel waits for pages that are being read.
type reclaimer struct {
	notify func(n node, off, length int64)
	work   chan pages
	stop   chan struct{}
	once   sync.Once
}

// pages are a part of a file.
type pages struct {
	n           node
	off, length int64
}

func newReclaimer(notify func(n node, off, length int64)) *reclaimer {
	r := &reclaimer{notify: notify, work: make(chan pages, 16), stop: make(chan struct{})}
	go r.run()
	return r
}

func (r *reclaimer) run() {
	for {
		select {
		case p := <-r.work:
			r.notify(p.n, p.off, p.length)
		case <-r.stop:
			return
		}
	}
}

// close ends the work. It does not wait.
func (r *reclaimer) close() { r.once.Do(func() { close(r.stop) }) }

// A trail is how far one stream was read and reclaimed.
type trail struct {
	mu    sync.Mutex
	start int64 // guarded by mu: what is before has been reclaimed, or was never read
	end   int64 // guarded by mu: of what was read from there on
}

// passed notes a read and returns what to reclaim, if anything. A read that is
// not near the others begins a new trail.
func (t *trail) passed(off, length int64) (from, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if off > t.end+reclaimLag || off < t.start {
		t.start, t.end = off, off
	}
	t.end = max(t.end, off+length)
	if t.end-reclaimLag-t.start < reclaimStep {
		return 0, 0
	}
	from, n = t.start, t.end-reclaimLag-t.start
	t.start += n
	return from, n
}

// reclaim drops pages behind a reader of the stream n. When there is too much
// to do, they stay.
func (f *fileSystem) reclaim(n node, t *trail, off, length int64) {
	r := f.reclaimer.Load()
	if r == nil {
		return
	}
	if from, size := t.passed(off, length); size > 0 {
		select {
		case r.work <- pages{n, from, size}:
		default:
		}
	}
}

// notifier returns what a reclaimer needs of the server.
func notifier(s *fuse.Server) func(n node, off, length int64) {
	return func(n node, off, length int64) {
		s.InodeNotify(uint64(n), off, length) // ENOENT: the kernel has forgotten the file
	}
}
