package index

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// referenceTable has the references of all store paths of a generation that
// their records leave out. Nearly all of these are store paths of the same
// cache, which names has already. The file is, before compression,
//
//	others  varint: how many store paths follow that are not in names; each is
//	        a varint, its length, and its text
//	counts  varint for each path, in the order of names: how many references
//	planes  of all references the lowest byte, then of all the second one, and
//	        so on, 4 times
//
// A reference is the place of a path in names, or, from the number of these on,
// the place among the others.
type referenceTable struct {
	names  *names
	others []storepath.Path
	ends   []uint32 // for each path: where its references end in refs
	refs   []uint32
}

// refPlanes are the bytes of a reference.
const refPlanes = 4

// of returns the references of the path at a place in names.
func (t *referenceTable) of(place int) []storepath.Path {
	start := uint32(0)
	if place > 0 {
		start = t.ends[place-1]
	}
	refs := t.refs[start:t.ends[place]]
	if len(refs) == 0 {
		return nil
	}
	paths := make([]storepath.Path, len(refs))
	for i, ref := range refs {
		if n := int(ref) - t.names.count(); n >= 0 {
			paths[i] = t.others[n]
		} else {
			paths[i] = t.names.path(int(ref))
		}
	}
	return paths
}

var errReferences = errors.New("is malformed")

// decodeReferences checks all that a table has to be.
func decodeReferences(b []byte, n *names) (*referenceTable, error) {
	t := &referenceTable{names: n, ends: make([]uint32, n.count())}
	number := func(limit int) int {
		v, size := binary.Uvarint(b)
		if size <= 0 || v > uint64(limit) {
			b = nil
			return -1
		}
		b = b[size:]
		return int(v)
	}
	for range number(len(b)) {
		size := number(len(b))
		if size < 0 || size > len(b) {
			return nil, errReferences
		}
		p, err := storepath.Parse(string(b[:size]))
		if err != nil {
			return nil, errReferences
		}
		t.others, b = append(t.others, p), b[size:]
	}
	total := 0
	for i := range t.ends {
		count := number(len(b))
		if count < 0 {
			return nil, errReferences
		}
		total += count
		t.ends[i] = uint32(total)
	}
	if len(b) != refPlanes*total {
		return nil, errReferences
	}
	return t, t.planes(b, total)
}

func (t *referenceTable) planes(b []byte, total int) error {
	t.refs = make([]uint32, total)
	for i := range t.refs {
		for plane := range refPlanes {
			t.refs[i] |= uint32(b[plane*total+i]) << (8 * plane)
		}
		if int64(t.refs[i]) >= int64(t.names.count()+len(t.others)) {
			return errReferences
		}
	}
	return nil
}

// A referenceList collects the references of the paths of a new generation:
// what they are the places of is known only when all paths are.
type referenceList struct {
	numbers map[storepath.Path]uint32 // of paths
	paths   []storepath.Path
	ends    []uint32
	refs    []uint32
}

// add adds the references of the next path.
func (l *referenceList) add(refs []storepath.Path) {
	if l.numbers == nil {
		l.numbers = make(map[storepath.Path]uint32)
	}
	for _, p := range refs {
		n, ok := l.numbers[p]
		if !ok {
			n = uint32(len(l.paths))
			p = storepath.Path(strings.Clone(string(p))) // not with the narinfo that it is from
			l.numbers[p], l.paths = n, append(l.paths, p)
		}
		l.refs = append(l.refs, n)
	}
	l.ends = append(l.ends, uint32(len(l.refs)))
}

// encode returns the bytes of the file. The paths that were added are all, which
// is sorted, in the given order.
func (l *referenceList) encode(all []Entry, order []int) []byte {
	places, others := l.places(all)
	b := binary.AppendUvarint(nil, uint64(len(others)))
	for _, p := range others {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	for _, i := range order {
		b = binary.AppendUvarint(b, uint64(len(l.of(i))))
	}
	for plane := range refPlanes {
		for _, i := range order {
			for _, ref := range l.of(i) {
				b = append(b, byte(places[ref]>>(8*plane)))
			}
		}
	}
	return b
}

func (l *referenceList) of(i int) []uint32 {
	if i == 0 {
		return l.refs[:l.ends[0]]
	}
	return l.refs[l.ends[i-1]:l.ends[i]]
}

// places returns what stands for each of l.paths, and those that are not among
// all.
func (l *referenceList) places(all []Entry) (places []uint32, others []storepath.Path) {
	places = make([]uint32, len(l.paths))
	for i, p := range l.paths {
		at, ok := slices.BinarySearchFunc(all, p, func(e Entry, p storepath.Path) int { return strings.Compare(string(e.Path), string(p)) })
		if !ok {
			at = len(all) + len(others)
			others = append(others, p)
		}
		places[i] = uint32(at)
	}
	return places, others
}
