package narread

import (
	"errors"
	"sync"
	"sync/atomic"
)

// lazy makes a value once, when it is first asked for. Whoever asks while it
// is being made gets the same outcome. A DamageError is remembered for ever,
// other errors only for those who waited: the next one tries again.
type lazy[T any] struct {
	val atomic.Pointer[T]

	mu   sync.Mutex
	err  error    // a DamageError
	call *call[T] // under way
}

type call[T any] struct {
	done chan struct{}
	val  *T
	err  error
}

var errUnfinished = errors.New("abandoned by a panic")

// get returns the value, calling make if there is none.
func (l *lazy[T]) get(make func() (*T, error)) (*T, error) {
	if v := l.val.Load(); v != nil {
		return v, nil
	}
	c, mine := l.join()
	if mine {
		defer l.finish(c) // also when make panics, or the others wait for ever
		c.val, c.err = make()
		return c.val, c.err
	}
	<-c.done
	return c.val, c.err
}

// forget makes the next get make the value anew, if it is v.
func (l *lazy[T]) forget(v *T) { l.val.CompareAndSwap(v, nil) }

// join returns the call that is under way, or begins one.
func (l *lazy[T]) join() (c *call[T], mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.call; c != nil {
		return c, false
	}
	c = &call[T]{done: make(chan struct{}), val: l.val.Load(), err: l.err}
	if c.val != nil || c.err != nil {
		close(c.done)
		return c, false
	}
	c.err = errUnfinished
	l.call = c
	return c, true
}

func (l *lazy[T]) finish(c *call[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.call = nil
	if c.err == nil {
		l.val.Store(c.val)
	} else if isDamage(c.err) {
		l.err = c.err
	}
	close(c.done)
}
