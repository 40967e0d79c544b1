package nar

import (
	"strings"
	"unsafe"
)

// An Entry describes one node of a Listing.
type Entry struct {
	Name       string // "" for the root; bytes, need not be UTF-8
	Type       Type
	Executable bool   // Regular only
	Size       int64  // bytes of content, Regular only
	Offset     int64  // of the first byte of content in the NAR, Regular only
	Target     string // Symlink only
	Parent     int    // 0 for the root, too
	First, N   int    // Directory only: what is in it are the entries [First, First+N)
}

// A Listing is what a NAR holds, without the contents. Entries are numbered
// breadth first: entry 0 is the root, and what is in a directory has
// consecutive numbers in the order of the names' bytes.
//
// A Listing does not change and is safe for concurrent use. It takes 32 bytes
// an entry and the bytes of the names and targets.
type Listing struct {
	entries   []entry
	text      string // names, each followed by the target if there is one
	narSize   int64
	deviation error
}

// An entry is an Entry in a Listing. What a and b mean depends on the type:
// size and offset, the first child and the number of them, or, in b, the
// length of the target.
type entry struct {
	a, b       int64
	parent     int32
	text       uint32 // where the name begins
	nameLen    uint8
	typ        Type
	executable bool
}

// Len returns the number of entries, at least one.
func (l *Listing) Len() int { return len(l.entries) }

// Entry returns entry i, which must be in [0, Len()). It does not allocate.
func (l *Listing) Entry(i int) Entry {
	e := &l.entries[i]
	r := Entry{Name: l.name(e), Type: e.typ, Parent: int(e.parent)}
	switch e.typ {
	case Regular:
		r.Executable, r.Size, r.Offset = e.executable, e.a, e.b
	case Directory:
		r.First, r.N = int(e.a), int(e.b)
	case Symlink:
		start := int(e.text) + int(e.nameLen)
		r.Target = l.text[start : start+int(e.b)]
	}
	return r
}

func (l *Listing) name(e *entry) string {
	return l.text[e.text : int(e.text)+int(e.nameLen)]
}

// Lookup returns the entry that is called name in the directory dir. There is
// none when dir is not a directory.
func (l *Listing) Lookup(dir int, name string) (int, bool) {
	d := &l.entries[dir]
	if d.typ != Directory {
		return 0, false
	}
	lo, hi := int(d.a), int(d.a+d.b)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch got := l.name(&l.entries[mid]); {
		case got == name:
			return mid, true
		case got < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

// Find returns the entry at path, names separated by single slashes, below the
// root; "" is the root. Symlinks are not followed.
func (l *Listing) Find(path string) (int, bool) {
	at := 0
	for more := path != ""; more; {
		var name string
		var ok bool
		name, path, more = strings.Cut(path, "/")
		if at, ok = l.Lookup(at, name); !ok {
			return 0, false
		}
	}
	return at, true
}

// Path returns the path at which Find finds entry i.
func (l *Listing) Path(i int) string {
	size := -1
	for j := i; j != 0; j = int(l.entries[j].parent) {
		size += int(l.entries[j].nameLen) + 1
	}
	if size < 0 {
		return ""
	}
	path := make([]byte, size)
	for end := size; i != 0; end-- {
		e := &l.entries[i]
		end -= copy(path[end-int(e.nameLen):], l.name(e))
		if end > 0 {
			path[end-1] = '/'
		}
		i = int(e.parent)
	}
	return string(path)
}

// NarSize returns the size of the NAR in bytes.
func (l *Listing) NarSize() int64 { return l.narSize }

// MemSize returns how many bytes of memory the Listing takes.
func (l *Listing) MemSize() int64 {
	return int64(unsafe.Sizeof(*l)) + int64(cap(l.entries))*int64(unsafe.Sizeof(entry{})) + int64(len(l.text))
}

// Deviation returns what the newest Nix would refuse about the NAR from which
// the Listing was read, a *FormatError, or nil.
func (l *Listing) Deviation() error { return l.deviation }
