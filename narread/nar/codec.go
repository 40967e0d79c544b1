package nar

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// The binary form of a Listing, as package index keeps it. It is made for a
// general compressor behind it: like goes with like, and what follows from the
// rest (parents, offsets) is left out.
//
//	listing = flags count node* [ deviation ] column*
//
//	flags     1 byte: flagDeviation, flagOffsets
//	count     of entries, at least 1
//	node      1 byte for each entry, in the order of the Listing: its Type,
//	          plus nodeExecutable
//	deviation offset (plus 1) and text of Listing.Deviation
//
// The columns follow one after the other, each for all entries it concerns:
//
//	children  of each directory: how many entries it has
//	shared    of each entry but the root: how many bytes its name shares with
//	          that of the entry before
//	rest      of each entry but the root: how many bytes follow those
//	sizes     of each regular file
//	targets   of each symlink: length
//	offsets   of each regular file, if flagOffsets: its content in the NAR
//	names     the bytes that rest counts
//	texts     of the targets
//
// Numbers are unsigned varints of encoding/binary. In breadth-first order the
// numbers of children are all that is needed to know the tree.
//
// flagOffsets is set only where the entries of a directory lie in the NAR in
// another order than that of their names, as no Nix writes them.
const (
	flagDeviation = 1 << iota
	flagOffsets

	nodeExecutable = 1 << 3
	maxDeviation   = 8 << 10 // bytes of its text: a few names
)

// errListing says that bytes are not the binary form of a Listing.
var errListing = errors.New("decode listing: malformed")

// AppendBinary appends the binary form of the listing to b. It implements
// encoding.BinaryAppender and never fails. Before compression it takes about 20
// bytes an entry, most of them for the name.
func (l *Listing) AppendBinary(b []byte) ([]byte, error) {
	at := len(b)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(len(l.entries)))
	for i := range l.entries {
		e := &l.entries[i]
		node := byte(e.typ)
		if e.executable {
			node |= nodeExecutable
		}
		b = append(b, node)
	}
	if b = l.appendDeviation(b); l.deviation != nil {
		b[at] |= flagDeviation
	}
	b = l.appendNumbers(b)
	if !l.inOrder() {
		b[at] |= flagOffsets
		b = l.appendColumn(b, Regular, func(e *entry) int64 { return e.b })
	}
	return l.appendText(b), nil
}

func (l *Listing) appendDeviation(b []byte) []byte {
	if l.deviation == nil {
		return b
	}
	d := &FormatError{Offset: -1, Msg: l.deviation.Error()}
	errors.As(l.deviation, &d)
	msg := d.Msg[:min(len(d.Msg), maxDeviation)]
	b = binary.AppendUvarint(b, uint64(d.Offset+1))
	b = binary.AppendUvarint(b, uint64(len(msg)))
	return append(b, msg...)
}

// appendNumbers appends the columns from children to targets.
func (l *Listing) appendNumbers(b []byte) []byte {
	b = l.appendColumn(b, Directory, func(e *entry) int64 { return e.b })
	for i := 1; i < len(l.entries); i++ {
		b = append(b, byte(l.shared(i)))
	}
	for i := 1; i < len(l.entries); i++ {
		b = append(b, l.entries[i].nameLen-byte(l.shared(i)))
	}
	b = l.appendColumn(b, Regular, func(e *entry) int64 { return e.a })
	return l.appendColumn(b, Symlink, func(e *entry) int64 { return e.b })
}

func (l *Listing) appendColumn(b []byte, t Type, number func(*entry) int64) []byte {
	for i := range l.entries {
		if e := &l.entries[i]; e.typ == t {
			b = binary.AppendUvarint(b, uint64(number(e)))
		}
	}
	return b
}

func (l *Listing) appendText(b []byte) []byte {
	for i := 1; i < len(l.entries); i++ {
		b = append(b, l.name(&l.entries[i])[l.shared(i):]...)
	}
	for i := range l.entries {
		if e := &l.entries[i]; e.typ == Symlink {
			start := int(e.text) + int(e.nameLen)
			b = append(b, l.text[start:start+int(e.b)]...)
		}
	}
	return b
}

// shared returns how many bytes the name of entry i shares with the one before.
func (l *Listing) shared(i int) int {
	a, b := l.name(&l.entries[i-1]), l.name(&l.entries[i])
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// inOrder reports whether the offsets are those that follow from the order of
// the names.
func (l *Listing) inOrder() bool {
	twin := Listing{entries: slices.Clone(l.entries)}
	twin.place()
	for i := range l.entries {
		if e := &l.entries[i]; e.typ == Regular && e.b != twin.entries[i].b {
			return false
		}
	}
	return true
}

// place computes the offsets of all contents and narSize, as a Builder does for
// entries in the order of their names. It reports false where no NAR is as
// large.
func (l *Listing) place() bool {
	// First the size of each entry with all that is in it, children before
	// their parents, then where it begins, parents before their children.
	sizes := make([]int64, len(l.entries))
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := &l.entries[i]
		sizes[i] += l.frame(i) + int64(len(seqEntryEnd))
		if e.typ == Regular {
			if e.a > math.MaxInt64/2 {
				return false
			}
			sizes[i] += padded(e.a)
		}
		if sizes[i] > math.MaxInt64/2 {
			return false
		}
		if i > 0 {
			if sizes[e.parent] += sizes[i]; sizes[e.parent] > math.MaxInt64/2 {
				return false
			}
		}
	}
	l.narSize = sizes[0] - int64(len(seqEntryEnd)-len(tagClose))
	starts := sizes // from here on: where the entry begins
	starts[0] = 0
	for i := range l.entries {
		e := &l.entries[i]
		inside := starts[i] + l.frame(i)
		switch e.typ {
		case Regular:
			e.b = inside
		case Directory:
			for child := e.a; child < e.a+e.b; child++ {
				size := sizes[child]
				starts[child] = inside
				inside += size
			}
		}
	}
	return true
}

// frame returns the bytes of the NAR from where entry i begins to its contents
// or entries, or to its end when it is a symlink.
func (l *Listing) frame(i int) int64 {
	e := &l.entries[i]
	n := int64(len(seqRoot))
	if i > 0 {
		n = int64(len(seqEntry)+8+len(seqNode)) + padded(int64(e.nameLen))
	}
	switch e.typ {
	case Directory:
		return n + int64(len(tagDirectory))
	case Symlink:
		return n + int64(len(tagSymlink)+len(tagTarget)+8) + padded(e.b)
	}
	if e.executable {
		n += int64(len(seqExecutable))
	}
	return n + int64(len(tagRegular)+len(tagContents)+8)
}
