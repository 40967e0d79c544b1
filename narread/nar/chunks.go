package nar

// What a Builder collects may be large, and is thrown away when the Listing is
// made. Slices that double would take several times as much while they grow.

const (
	chunkBits = 12
	textBits  = 16 // of a piece of text: more than a name and a target have
)

// chunks is a slice that grows by pieces that stay where they are.
type chunks[T any] struct {
	full [][]T
	last []T
}

func (c *chunks[T]) len() int { return len(c.full)<<chunkBits + len(c.last) }

func (c *chunks[T]) add(v T) {
	if len(c.last) == 1<<chunkBits {
		c.full = append(c.full, c.last)
		c.last = make([]T, 0, 1<<chunkBits)
	}
	c.last = append(c.last, v)
}

func (c *chunks[T]) at(i int32) *T {
	if n := int(i) >> chunkBits; n < len(c.full) {
		return &c.full[n][i&(1<<chunkBits-1)]
	}
	return &c.last[i&(1<<chunkBits-1)]
}

// texts are strings, one after the other, each in one piece.
type texts struct {
	pieces [][]byte
	size   int // of all strings
}

// addText adds two strings as one, and returns where it is.
func addText[S string | []byte](t *texts, a, b S) uint32 {
	n := len(t.pieces)
	if n == 0 || len(t.pieces[n-1])+len(a)+len(b) > 1<<textBits {
		var piece []byte // the first one grows: most listings are small
		if n > 0 {
			piece = make([]byte, 0, 1<<textBits)
		}
		t.pieces = append(t.pieces, piece)
		n++
	}
	last := &t.pieces[n-1]
	at := len(*last)
	*last = append(append(*last, a...), b...)
	t.size += len(a) + len(b)
	return uint32(n-1)<<textBits | uint32(at)
}

// full reports whether there is no room for one more, nor in a Listing.
func (t *texts) full() bool { return len(t.pieces) >= 1<<(32-textBits) }

func (t *texts) at(i uint32, n int) []byte {
	start := i & (1<<textBits - 1)
	return t.pieces[i>>textBits][start : int(start)+n]
}
