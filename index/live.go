package index

import (
	"fmt"
	"sync"
	"time"
)

// DefaultInterval is how long a Live shows a generation before it looks for a
// newer one.
const DefaultInterval = 500 * time.Millisecond

// A Live follows the newest generation of an index: whoever asks for it gets
// it, opened once, while those who still read an older one finish undisturbed.
// Its methods may be called concurrently.
type Live struct {
	dir string
	o   LiveOptions

	mu      sync.Mutex // guards what follows
	g       *generation
	looked  time.Time
	looking bool
	failed  string // what Warn was told last
	err     error  // why there is no g
	closed  bool
}

// LiveOptions are the options of a Live. The zero value works.
type LiveOptions struct {
	Options
	// Interval is how long it does not look at CURRENT again; 0:
	// DefaultInterval, negative: it always looks.
	Interval time.Duration
	// Warn is told once of each generation that cannot be opened; the one before
	// is then kept. It must not call the Live.
	Warn func(error)
}

// NewLive returns a Live for the index in dir, which need not be there yet. It
// opens nothing before the first Acquire. The caller closes it.
func NewLive(dir string, o LiveOptions) *Live {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return &Live{dir: dir, o: o}
}

// Acquire returns the newest generation that can be opened, and the one before
// while another call is opening it. The caller closes it soon: it is not
// removed as long as it is open. The error is that of Open.
func (l *Live) Acquire() (*Index, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	// Without an index all wait for the one who looks; with one, none does.
	if !(l.looking && l.g != nil) && (l.looked.IsZero() || time.Since(l.looked) >= l.o.Interval) {
		l.look()
	}
	if l.closed {
		return nil, errClosed
	}
	if l.g == nil || !l.g.retain() {
		return nil, l.err
	}
	return &Index{g: l.g}, nil
}

// look opens the newest generation if it is another one. It is called, and
// returns, with mu held; while it opens one others can have the one before.
func (l *Live) look() {
	old := l.g
	l.looked = time.Now()
	if old == nil {
		g, err := openCurrent(l.dir, l.o.Cache)
		l.g, l.err = g, openError(err)
		return
	}
	l.looking = true
	l.mu.Unlock()
	g, err := l.newer(old)
	l.mu.Lock()
	l.looking = false
	switch {
	case l.closed && g != nil:
		g.close()
	case g != nil:
		l.g, l.failed = g, ""
		old.close()
	case err != nil && err.Error() != l.failed:
		l.failed = err.Error()
		l.o.Warn(openError(err))
	}
}

func openError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("open index: %w", err)
}

// newer returns a generation other than old, or nil.
func (l *Live) newer(old *generation) (*generation, error) {
	p, err := readCurrent(l.dir)
	if err != nil || p == old.current {
		return nil, err
	}
	return openCurrent(l.dir, l.o.Cache)
}

// Close releases the generation. What Acquire returned stays open until it is
// closed.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	l.closed = true
	if l.g == nil {
		return nil
	}
	return l.g.close()
}
