package fusefs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The names of store paths in store/ and releases/<project>/<name>/ are looked up
// again and again: by whoever walks through many, and by each program that opens
// files of its dependencies. The kernel may keep them for nameAge, as long as it is
// told of those that went away, or stand for another content: for so long after a
// name was given out, the list that it is from is read again by itself.
const (
	nameAge = 5 * time.Minute
	// watchTick and maxAge together are less than a second.
	watchTick = 250 * time.Millisecond
	// told is how often the kernel is told of a name that went away: an answer that
	// still has it may be on its way to the kernel the first time.
	told = 2
)

// A watcher tells the kernel which names went away.
type watcher struct {
	members func(dir node) (*members, error)
	name    func(num int) string
	notify  func(dir node, name string)
	hold    func() bool // reports that notify must wait
	now     func() time.Time
	stop    chan struct{}
	once    sync.Once

	mu      sync.Mutex
	dirs    map[node]*watched // guarded by mu
	gone    map[lost]int      // guarded by mu: how often each is still to be told
	running bool              // guarded by mu: run is
}

// watched is a directory of which the kernel keeps names.
type watched struct {
	seen  *members
	until time.Time // when it has forgotten them
}

// A lost is a name that went away.
type lost struct {
	dir node
	num int
}

func (f *fileSystem) newWatcher(notify func(dir node, name string)) *watcher {
	return &watcher{
		members: f.listMembers,
		name:    f.pathName,
		notify:  notify,
		hold:    func() bool { return f.waiting.Load() > 0 },
		now:     time.Now,
		stop:    make(chan struct{}),
		dirs:    make(map[node]*watched),
		gone:    make(map[lost]int),
	}
}

// listsPaths reports whether n is a directory whose entries are store paths.
func (n node) listsPaths() bool {
	return n.number() == 0 && n.entry() == 0 && (n.view() == viewStore || n.release() > 0)
}

// listMembers returns the members of a directory of store paths.
func (f *fileSystem) listMembers(dir node) (m *members, err error) {
	err = f.guarded(func() (err error) {
		if num := dir.release(); num > 0 {
			m, err = f.cat.release(num)
		} else {
			m, err = f.cat.store()
		}
		return err
	})
	return m, err
}

// keepName returns how long the kernel may keep the name of child in dir.
func (f *fileSystem) keepName(dir, child node) time.Duration {
	w := f.watcher.Load()
	if w != nil && dir.listsPaths() && w.watch(dir, child.number()) {
		return nameAge
	}
	return keep(dir)
}

// watch reports whether the kernel is going to be told when a member of dir goes
// away.
func (w *watcher) watch(dir node, num int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dirs[dir]
	if d == nil {
		m, err := w.members(dir)
		if err != nil {
			return false
		}
		d = &watched{seen: m}
		w.dirs[dir] = d
	}
	if !d.seen.has(num) {
		return false // newer than what was seen, or gone already
	}
	d.until = w.now().Add(nameAge)
	if !w.running {
		w.running = true
		go w.run()
	}
	return true
}

// run works as long as there is something to watch.
func (w *watcher) run() {
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(watchTick):
		}
		w.look()
		if !w.hold() {
			w.tell()
		}
		w.mu.Lock()
		w.running = len(w.dirs)+len(w.gone) > 0
		goOn := w.running
		w.mu.Unlock()
		if !goOn {
			return
		}
	}
}

// close ends the work. It does not wait.
func (w *watcher) close() { w.once.Do(func() { close(w.stop) }) }

// look finds out what went away. What cannot be listed now stays as it is.
func (w *watcher) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir, d := range w.dirs {
		if w.now().After(d.until) {
			delete(w.dirs, dir)
			continue
		}
		m, err := w.members(dir)
		if err != nil || m == d.seen {
			continue
		}
		for _, num := range missing(d.seen.nums, m) {
			w.gone[lost{dir, num}] = told
		}
		d.seen = m
	}
}

// tell tells the kernel what went away. For that the kernel waits for the lock
// of the directory, which whoever looks something up there holds until he has
// his answer, and lets nobody else look anything up meanwhile. So this must not
// be done while somebody waits for an archive to be decoded.
func (w *watcher) tell() {
	w.mu.Lock()
	var now []lost
	for l, times := range w.gone {
		now = append(now, l)
		if w.gone[l] = times - 1; times <= 1 {
			delete(w.gone, l)
		}
	}
	w.mu.Unlock()
	for _, l := range now { // without the lock: it may take long
		w.notify(l.dir, w.name(l.num))
	}
}

// entryNotifier returns what a watcher needs of the server.
func entryNotifier(s *fuse.Server) func(dir node, name string) {
	return func(dir node, name string) {
		s.EntryNotify(uint64(dir), name) // ENOENT: the kernel has forgotten it
	}
}
