package nar

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// DecodeListing returns the Listing whose binary form data is, all of it. Data
// may come from anywhere: whatever it is, the result is a listing that some NAR
// has, or an error. Memory is bounded by about a hundred times the size of data
// (names that share a prefix); a listing made by AppendBinary needs about twice
// its size. Large ones are made one at a time, so it may wait for another one.
func DecodeListing(data []byte) (*Listing, error) {
	d := decoder{rest: data, l: &Listing{}}
	defer d.large.done()
	flags := d.byte()
	d.nodes()
	if flags&flagDeviation != 0 {
		d.deviation()
	}
	d.tree()
	shared, rest := d.bytes(len(d.l.entries)-1), d.bytes(len(d.l.entries)-1)
	d.column(Regular, math.MaxInt64/2, func(e *entry, n int64) { e.a = n })
	d.column(Symlink, MaxTarget, func(e *entry, n int64) { e.b = n })
	var offsets []int64
	if flags&flagOffsets != 0 {
		d.column(Regular, math.MaxInt64/2, func(_ *entry, n int64) { offsets = append(offsets, n) })
	}
	d.text(shared, rest)
	if d.bad || len(d.rest) > 0 || flags&^(flagDeviation|flagOffsets) != 0 || !d.l.place() {
		return nil, errListing
	}
	if flags&flagOffsets != 0 && !d.l.setOffsets(offsets) {
		return nil, errListing
	}
	return d.l, nil
}

// A decoder takes the parts of a listing off rest. Once something is wrong, bad
// stays set, and all that is taken is zero.
type decoder struct {
	rest  []byte
	bad   bool
	l     *Listing
	large largeListing
}

func (d *decoder) fail() {
	d.bad, d.rest = true, nil
}

// bytes takes n bytes, or returns nil.
func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// number takes a number that is at most limit.
func (d *decoder) number(limit int64) int64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > uint64(limit) {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return int64(v)
}

// nodes takes the number of entries and what each of them is.
func (d *decoder) nodes() {
	nodes := d.bytes(int(d.number(min(int64(len(d.rest)), math.MaxInt32))))
	d.large.grown(int64(len(nodes))*(entrySize+8) + int64(len(d.rest)))
	d.l.entries = make([]entry, len(nodes))
	if len(nodes) == 0 {
		d.fail()
	}
	for i, node := range nodes {
		e := &d.l.entries[i]
		e.typ, e.executable = Type(node&^nodeExecutable), node&nodeExecutable != 0
		if e.typ < Regular || e.typ > Symlink || e.executable && e.typ != Regular {
			d.fail()
		}
	}
}

func (d *decoder) deviation() {
	offset := d.number(math.MaxInt64) - 1
	msg := d.bytes(int(d.number(maxDeviation)))
	d.l.deviation = &FormatError{Offset: offset, Msg: string(msg)}
}

// column takes a number of at most limit for each entry of type t.
func (d *decoder) column(t Type, limit int64, set func(*entry, int64)) {
	for i := range d.l.entries {
		if e := &d.l.entries[i]; e.typ == t {
			if set(e, d.number(limit)); d.bad {
				return
			}
		}
	}
}

// tree takes the numbers of children, which say who is whose child: all entries
// but the root have to be, at most MaxDepth deep, and each after its parent.
func (d *decoder) tree() {
	entries := d.l.entries
	next := 1 // entry that is not yet a child
	depth, level := 0, 1
	for i := range entries {
		if i == level { // all entries of one depth have their children now
			depth, level = depth+1, next
		}
		if i >= next {
			d.fail()
		}
		if entries[i].typ != Directory || d.bad {
			continue
		}
		n := int(d.number(int64(len(entries) - next)))
		if n == 0 {
			continue
		}
		if depth == MaxDepth {
			d.fail()
			return
		}
		entries[i].a, entries[i].b = int64(next), int64(n)
		for end := next + n; next < end; next++ {
			entries[next].parent = int32(i)
		}
	}
	if next != len(entries) {
		d.fail()
	}
}

// text takes the names and targets and checks them.
func (d *decoder) text(shared, rest []byte) {
	if d.bad || !d.lengths(shared, rest) {
		d.fail()
		return
	}
	names, targets := d.split(rest)
	var text strings.Builder
	text.Grow(d.size())
	var name []byte
	for i := 0; i < len(d.l.entries) && !d.bad; i++ {
		e := &d.l.entries[i]
		e.text = uint32(text.Len())
		if i > 0 {
			n := int(rest[i-1])
			name = append(name[:shared[i-1]], names[:n]...)
			names = names[n:]
			if nameProblem(name) != "" {
				d.fail()
			}
			text.Write(name)
		}
		if e.typ == Symlink {
			if targetProblem(targets[:e.b]) != "" {
				d.fail()
			}
			text.WriteString(targets[:e.b])
			targets = targets[e.b:]
		}
	}
	d.l.text = text.String()
	d.ascending()
}

// lengths computes the lengths of the names, and reports whether all are
// possible.
func (d *decoder) lengths(shared, rest []byte) bool {
	entries := d.l.entries
	for i := 1; i < len(entries); i++ {
		n := int(shared[i-1]) + int(rest[i-1])
		if shared[i-1] > entries[i-1].nameLen || n > MaxName {
			return false
		}
		entries[i].nameLen = uint8(n)
	}
	return true
}

// split takes all that is left: the bytes of names and those of targets.
func (d *decoder) split(rest []byte) (names []byte, targets string) {
	n, t := int64(0), int64(0)
	for _, r := range rest {
		n += int64(r)
	}
	for i := range d.l.entries {
		if e := &d.l.entries[i]; e.typ == Symlink {
			t += e.b
		}
	}
	if n+t != int64(len(d.rest)) {
		d.fail()
		return nil, ""
	}
	return d.bytes(int(n)), string(d.bytes(int(t)))
}

// size returns how many bytes all names and targets have.
func (d *decoder) size() int {
	var n int64
	for i := range d.l.entries {
		e := &d.l.entries[i]
		n += int64(e.nameLen)
		if e.typ == Symlink {
			n += e.b
		}
	}
	if d.bad || n > math.MaxUint32 {
		d.fail()
		return 0
	}
	return int(n)
}

// ascending checks that the names in each directory are.
func (d *decoder) ascending() {
	if d.bad {
		return
	}
	entries := d.l.entries
	for i := 2; i < len(entries); i++ {
		a, b := &entries[i-1], &entries[i]
		if a.parent == b.parent && d.l.name(a) >= d.l.name(b) {
			d.fail()
			return
		}
	}
}

// setOffsets sets the offsets of the regular files, and reports whether they
// can be: in the NAR, and none in another's contents.
func (l *Listing) setOffsets(offsets []int64) bool {
	var files []*entry
	for i := range l.entries {
		if e := &l.entries[i]; e.typ == Regular {
			e.b = offsets[len(files)]
			files = append(files, e)
		}
	}
	slices.SortFunc(files, func(x, y *entry) int { return cmp.Compare(x.b, y.b) })
	end := int64(len(seqRoot) + len(tagRegular) + len(tagContents) + 8)
	for _, e := range files {
		if e.b < end || e.a > l.narSize || e.b > l.narSize-e.a {
			return false
		}
		end = e.b + max(padded(e.a), 1)
	}
	return true
}
