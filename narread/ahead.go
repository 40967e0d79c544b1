package narread

import (
	"context"
	"slices"
	"sync"
)

const (
	// maxSequences is how many readers in order are told apart in one archive.
	maxSequences = 4
	// maxDepth is how many blocks are read ahead of one of them.
	maxDepth = 8
	// reorder is how many blocks a request may be behind the one before and still
	// belong to the same reader: the kernel has two requests of one reader under
	// way, and they come in any order.
	reorder = 2
)

// sequences sees which readers of an archive read in order, be it one large file
// or small ones that follow each other in the NAR. It is a guess: a wrong one
// costs blocks that are decoded in vain.
type sequences struct {
	mu   sync.Mutex
	list []sequence // guarded by mu: at most maxSequences, the last used first
}

// sequence is a reader of blocks in order, or of one place so far.
type sequence struct {
	high  int // the last block that it has asked for
	steps int // how many requests have gone on to a later block
	next  int // the first block that was not read ahead for it

	origin int64 // where its first request began
	bytes  int64 // how much it has asked for
	kept   int   // the first block that it may still need
}

// span is a row of blocks: from up to but without to.
type span struct{ from, to int }

// request takes note of a request for n bytes at off of l, and returns which
// blocks are to be read ahead, and which ones may go.
//
// Who has gone on once gets one block ahead, then two, four, and at most depth:
// a reader of single small files costs little, and one of a large file keeps all
// CPUs busy. Blocks may go behind a reader that has left next to nothing out,
// as it is not likely to come back: the kernel keeps what it has read. Their
// buffers then serve for what is ahead while they are in the CPU's cache.
func (s *sequences) request(l layout, off, n int64, depth int) (ahead, behind span) {
	first, last := l.find(off), l.find(off+n-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	q, known := s.find(first)
	if !known {
		*q = sequence{high: last, origin: off, kept: first}
	}
	q.bytes += n
	if last > q.high {
		q.high = last
		q.steps++
	}
	if q.steps == 0 {
		return span{}, span{}
	}
	reach := min(1<<min(q.steps-1, 10), depth)
	ahead = span{max(q.next, q.high+1), min(q.high+1+reach, l.count())}
	q.next = max(q.next, ahead.to)
	if done := first - reorder; done > q.kept && q.bytes >= (off+n-q.origin)/8*7 {
		behind = span{q.kept, done}
		q.kept = done
	}
	return ahead, behind
}

// find returns the sequence that a request from block first on continues, or one
// to be filled, in place of the one that was longest not used. It is then the
// first of the list. It is called with mu held.
func (s *sequences) find(first int) (q *sequence, known bool) {
	i := slices.IndexFunc(s.list, func(q sequence) bool {
		return first >= q.high-reorder && first <= q.high+1
	})
	known = i >= 0
	if !known {
		if len(s.list) < maxSequences {
			s.list = append(s.list, sequence{})
		}
		i = len(s.list) - 1
	}
	found := s.list[i]
	copy(s.list[1:], s.list[:i])
	s.list[0] = found
	return &s.list[0], known
}

// aheadDepth returns how many blocks of size bytes are read ahead at most: what
// takes an eighth of the cache, or a single one that takes a third. More would
// push out what is being read.
func (c *Cache) aheadDepth(size int64) int {
	switch n := c.max / 8 / size; {
	case !c.ahead:
		return 0
	case n > 0:
		return int(min(n, maxDepth))
	case size <= c.max/3:
		return 1
	}
	return 0
}

// anticipate decodes what is likely to be asked for after n bytes at off into
// the cache, and takes out what is not.
func (a *Archive) anticipate(b *blocks, off, n int64) {
	ahead, behind := a.seq.request(b, off, n, a.cache.aheadDepth(int64(b.length(b.find(off)))))
	for i := ahead.from; i < ahead.to && b.available(i); i++ {
		a.ahead.Add(1) // the caller is between enter and leave, so Close does not wait yet
		go a.decodeAhead(b, i)
	}
	for i := behind.from; i < behind.to; i++ {
		a.cache.done(blockKey{a, i})
	}
}

// decodeAhead decodes block i when it is its turn. Turns come in the order of
// asking. Who needs the block meets its error.
func (a *Archive) decodeAhead(b *blocks, i int) {
	defer a.ahead.Done()
	a.cache.cpus.Acquire(context.Background(), 1) // no error without a deadline
	defer a.cache.cpus.Release(1)
	key := blockKey{a, i}
	if a.closing.Load() || a.cache.has(key) {
		return
	}
	e, err := a.cache.get(key, b.length(i), func(dst []byte) error { return b.read(i, dst) })
	if err == nil {
		a.cache.release(e)
	}
}
