package nar

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Builder makes a Listing from headers in the order of the NAR. The zero
// value is ready for use; it is not safe for concurrent use. After an error
// there is no Listing any more: every call returns that error.
type Builder struct {
	entries chunks[entry] // in the order of the NAR; a of a directory is its first child
	next    chunks[int32] // number of the next entry of the same directory, or 0
	text    texts
	open    []openEntry
	off     int64 // of what comes next in the NAR
	err     error
}

// An openEntry is a directory that may get further entries.
type openEntry struct {
	number int32
	last   int32 // its entry that was added last, or 0
}

// Add adds the next node. A tolerant NAR's order within a directory is good
// enough. Header.Offset is not looked at: offsets follow from the rest.
func (b *Builder) Add(h Header) error {
	if p := h.problem(); p != "" && b.err == nil {
		b.err = &FormatError{Offset: -1, Msg: p}
	}
	if b.err != nil {
		return b.err
	}
	b.err = b.link(entry{
		a:          h.Size,
		b:          int64(len(h.Target)),
		text:       addText(&b.text, h.Name, h.Target),
		nameLen:    uint8(len(h.Name)),
		typ:        h.Type,
		executable: h.Executable,
	}, h.Depth)
	return b.err
}

// addNode is Add for what a Reader has checked.
func (b *Builder) addNode(n *node) error {
	return b.link(entry{
		a:          n.size,
		b:          int64(len(n.target)),
		text:       addText(&b.text, n.name, n.target),
		nameLen:    uint8(len(n.name)),
		typ:        n.typ,
		executable: n.executable,
	}, n.depth)
}

// link adds e, whose name and target are the last in b.text.
func (b *Builder) link(e entry, depth int) error {
	if b.text.full() || b.entries.len() == math.MaxInt32 {
		return errors.New("list NAR: too many entries")
	}
	if depth > len(b.open) || (depth == 0) != (b.entries.len() == 0) {
		return &FormatError{Offset: -1, Msg: fmt.Sprintf("depth %d in a directory of depth %d", depth, len(b.open)-1)}
	}
	b.closeTo(depth)
	number := int32(b.entries.len())
	if depth > 0 {
		dir := &b.open[depth-1]
		e.parent = dir.number
		if dir.last == 0 {
			b.entries.at(dir.number).a = int64(number)
		} else {
			*b.next.at(dir.last) = number
		}
		dir.last = number
		b.entries.at(dir.number).b++
	}
	b.place(&e)
	if b.off < 0 {
		return &FormatError{Offset: -1, Msg: "larger than 8 EiB"}
	}
	b.entries.add(e)
	b.next.add(0)
	if e.typ == Directory {
		b.open = append(b.open, openEntry{number: number})
	}
	return nil
}

// closeTo closes directories until depth are open.
func (b *Builder) closeTo(depth int) {
	b.off += int64(len(b.open)-depth) * int64(len(seqEntryEnd))
	b.open = b.open[:depth]
}

// place computes where e is in the NAR.
func (b *Builder) place(e *entry) {
	if b.entries.len() == 0 {
		b.off = int64(len(seqRoot))
	} else {
		b.off += int64(len(seqEntry)+8+len(seqNode)) + padded(int64(e.nameLen))
	}
	end := int64(len(seqEntryEnd))
	switch e.typ {
	case Directory:
		b.off += int64(len(tagDirectory))
	case Symlink:
		b.off += int64(len(tagSymlink)+len(tagTarget)+8) + padded(e.b) + end
	case Regular:
		b.off += int64(len(tagRegular) + len(tagContents) + 8)
		if e.executable {
			b.off += int64(len(seqExecutable))
		}
		e.b = b.off
		b.off += padded(e.a) + end
	}
}

// Listing returns the Listing of what was added, which must not be nothing.
// The Builder is empty afterwards. It is an error when a directory has two
// entries of one name.
func (b *Builder) Listing() (*Listing, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.entries.len() == 0 {
		return nil, errors.New("list NAR: no entries")
	}
	b.closeTo(0)
	// The root closes without closing an entry.
	l := &Listing{narSize: b.off - int64(len(seqEntryEnd)-len(tagClose))}
	err := b.breadthFirst(l)
	if err == nil {
		b.moveText(l)
	}
	*b = Builder{}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// breadthFirst fills l.entries, whose names stay in b.text.
func (b *Builder) breadthFirst(l *Listing) error {
	l.entries = make([]entry, 1, b.entries.len())
	l.entries[0] = *b.entries.at(0)
	for i := 0; i < len(l.entries); i++ {
		dir := &l.entries[i]
		if dir.typ != Directory {
			continue
		}
		first, child := len(l.entries), int32(dir.a)
		if child != 0 {
			dir.a = int64(first)
		}
		for ; child != 0; child = *b.next.at(child) {
			e := *b.entries.at(child)
			e.parent = int32(i)
			l.entries = append(l.entries, e)
		}
		if err := b.sortDir(l.entries[first:]); err != nil {
			return err
		}
	}
	return nil
}

// sortDir sorts the entries of one directory unless they are sorted, and
// checks that no name is there twice.
func (b *Builder) sortDir(entries []entry) error {
	compare := func(x, y entry) int { return bytes.Compare(b.name(&x), b.name(&y)) }
	if b.ascending(entries) < 0 {
		return nil
	}
	slices.SortFunc(entries, compare)
	if i := b.ascending(entries); i >= 0 {
		return &FormatError{Offset: -1, Msg: fmt.Sprintf("the name %q twice in a directory", b.name(&entries[i]))}
	}
	return nil
}

// ascending returns the first entry whose name does not follow that before it,
// or -1.
func (b *Builder) ascending(entries []entry) int {
	for i := 1; i < len(entries); i++ {
		if bytes.Compare(b.name(&entries[i-1]), b.name(&entries[i])) >= 0 {
			return i
		}
	}
	return -1
}

func (b *Builder) name(e *entry) []byte {
	return b.text.at(e.text, int(e.nameLen))
}

// moveText copies names and targets in the order of l.entries, so that those
// of a directory lie side by side and no memory is left over.
func (b *Builder) moveText(l *Listing) {
	b.entries, b.next = chunks[entry]{}, chunks[int32]{} // no longer needed
	var text strings.Builder
	text.Grow(b.text.size)
	for i := range l.entries {
		e := &l.entries[i]
		size := int(e.nameLen)
		if e.typ == Symlink {
			size += int(e.b)
		}
		old := b.text.at(e.text, size)
		e.text = uint32(text.Len())
		text.Write(old)
	}
	l.text = text.String()
}
