package index

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// An Entry is a store path and its number.
type Entry struct {
	Path   storepath.Path
	Number uint32 // from 1
}

// maxNumber is the largest number of a store path: fusefs keeps 23 bits of an
// inode number for it. A backup that grows by 100 paths an hour gets there in
// nine years, and then begins anew.
const maxNumber = 1<<23 - 1

// names is the table of all store paths of a generation, sorted. It takes the
// bytes of the paths and 8 bytes for each in memory. The file is, before
// compression,
//
//	count   4 bytes, little-endian
//	lengths 1 byte for each path
//	numbers varint for each path: by how much its number differs from the one
//	        before
//	text    the paths, one after the other
type names struct {
	text    string
	ends    []uint32
	numbers []uint32
}

func (n *names) count() int { return len(n.ends) }

func (n *names) path(i int) storepath.Path {
	start := uint32(0)
	if i > 0 {
		start = n.ends[i-1]
	}
	return storepath.Path(n.text[start:n.ends[i]])
}

// find returns the place of the path that begins with the given hash part.
func (n *names) find(hash string) (int, bool) {
	i := sort.Search(n.count(), func(i int) bool { return string(n.path(i)) >= hash })
	return i, i < n.count() && strings.HasPrefix(string(n.path(i)), hash)
}

// named splits hash parts, which are sorted, into the paths they are of and the
// others.
func (n *names) named(hashes []string) (paths []storepath.Path, rest []string) {
	few := len(hashes) < n.count()/4
	paths = make([]storepath.Path, 0, min(len(hashes), n.count()))
	at := 0 // all before it have smaller hash parts
	for _, hash := range hashes {
		if few {
			at, _ = n.find(hash)
		}
		for at < n.count() && n.path(at).Hash() < hash {
			at++
		}
		if at == n.count() || n.path(at).Hash() != hash {
			rest = append(rest, hash)
			continue
		}
		p := string(n.path(at))
		if few {
			p = strings.Clone(p) // lest it keep the whole table in memory
		}
		paths = append(paths, storepath.Path(p))
	}
	return paths, rest
}

// number returns the number of a path.
func (n *names) number(p storepath.Path) (uint32, bool) {
	i, ok := n.find(string(p))
	if !ok || n.path(i) != p {
		return 0, false
	}
	return n.numbers[i], true
}

// entries returns the table as a slice whose strings share its memory.
func (n *names) entries() []Entry {
	all := make([]Entry, n.count())
	for i := range all {
		all[i] = Entry{n.path(i), n.numbers[i]}
	}
	return all
}

var errNames = errors.New("is malformed")

// encodeNames returns the bytes of the file, which decodeNames reads, for
// entries that are sorted by path.
func encodeNames(entries []Entry) ([]byte, error) {
	size := 0
	for _, e := range entries {
		size += len(e.Path)
	}
	if int64(size) > math.MaxUint32 {
		return nil, errors.New("too many store paths")
	}
	b := make([]byte, 0, 4+4*len(entries)+size)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = append(b, byte(len(e.Path)))
	}
	before := uint32(0)
	for _, e := range entries {
		b = binary.AppendVarint(b, int64(e.Number)-int64(before))
		before = e.Number
	}
	for _, e := range entries {
		b = append(b, e.Path...)
	}
	return b, nil
}

// decodeNames checks all that a table has to be.
func decodeNames(b []byte) (*names, error) {
	if len(b) < 4 {
		return nil, errNames
	}
	count, b := int(binary.LittleEndian.Uint32(b)), b[4:]
	if count > len(b) {
		return nil, errNames
	}
	n := &names{ends: make([]uint32, count), numbers: make([]uint32, count)}
	end := uint32(0)
	for i, length := range b[:count] {
		end += uint32(length)
		n.ends[i] = end
	}
	b = b[count:]
	number := int64(0)
	for i := range n.numbers {
		delta, size := binary.Varint(b)
		number += delta
		if size != len(binary.AppendVarint(nil, delta)) || number < 1 || number > maxNumber {
			return nil, errNames
		}
		n.numbers[i], b = uint32(number), b[size:]
	}
	n.text = string(b)
	if !n.valid() || !distinct(n.numbers) {
		return nil, errNames
	}
	return n, nil
}

// valid reports whether all paths are store paths, sorted, with different hash
// parts.
func (n *names) valid() bool {
	start, hash := uint32(0), ""
	for _, end := range n.ends {
		if end < start || int64(end) > int64(len(n.text)) {
			return false
		}
		p, err := storepath.Parse(n.text[start:end])
		if err != nil || p.Hash() <= hash {
			return false
		}
		start, hash = end, p.Hash()
	}
	return int(start) == len(n.text)
}

// distinct reports whether the numbers are all different and possible.
func distinct(numbers []uint32) bool {
	sorted := slices.Sorted(slices.Values(numbers))
	for i, n := range sorted {
		if n < 1 || n > maxNumber || i > 0 && n == sorted[i-1] {
			return false
		}
	}
	return true
}
