package narread

import "sync/atomic"

// sequence sees whether blocks are read in order. It is a guess: readers that
// race may confuse it, which costs a block read ahead in vain.
type sequence struct {
	last atomic.Int64
	run  atomic.Int64 // how many steps of one in a row
}

// next takes note that block i is read, and reports whether the block after it
// is likely to be next: when the last two steps were from block to block.
func (s *sequence) next(i int) bool {
	switch last := s.last.Swap(int64(i)); int64(i) {
	case last:
		return false
	case last + 1:
		return s.run.Add(1) >= 2
	}
	s.run.Store(0)
	return false
}

// readAhead decodes block i into the cache, if a CPU is likely to be idle and
// there is room: blocks of more than an eighth of the cache would push out what
// is being read.
func (a *Archive) readAhead(b *blocks, i int) {
	key := blockKey{a, i}
	if i >= b.count() || int64(b.length(i)) > a.cache.max/8 || a.cache.has(key) || !a.cache.ahead.TryAcquire(1) {
		return
	}
	a.ahead.Add(1) // the caller is between enter and leave, so Close does not wait yet
	go func() {
		defer a.ahead.Done()
		defer a.cache.ahead.Release(1)
		e, err := a.cache.get(key, b.length(i), func(dst []byte) error { return b.read(i, dst) })
		if err == nil { // who needs the block meets the error
			a.cache.release(e)
		}
	}()
}
