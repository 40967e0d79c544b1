package check

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
)

const (
	// surveyStep is less than any block: what is in a damaged one is found in
	// steps of this many bytes.
	surveyStep = 64 << 10
	// maxHurtFiles bounds the files that a finding names.
	maxHurtFiles = 1000
)

// A survey says how much of a damaged NAR is lost.
type survey struct {
	blocks int      // damaged ones
	files  []string // in the store path, with a byte in one
	more   int      // files that are not in files
}

// survey reads what can be read of a damaged archive, block by block: the others
// are served all the same. It is nil where one damaged byte spoils all.
func (e *examination) survey(ctx context.Context, a *narread.Archive) *survey {
	if !a.RandomAccess() {
		return nil
	}
	s := new(survey)
	last := -1
	var lost [][2]int64 // parts of the NAR
	var one [1]byte
	for off := int64(0); off < a.Size() && ctx.Err() == nil; off += surveyStep {
		_, err := a.ReadAt(one[:], off)
		var damage *narread.DamageError
		if !errors.As(err, &damage) {
			continue
		}
		if damage.Block != last {
			last = damage.Block
			s.blocks++
		}
		if n := len(lost); n > 0 && lost[n-1][1] == off {
			lost[n-1][1] = off + surveyStep
		} else {
			lost = append(lost, [2]int64{off, off + surveyStep})
		}
	}
	e.eachFile(a, func(path string, off, size int64) {
		switch {
		case !overlaps(lost, off, off+size):
		case len(s.files) == maxHurtFiles:
			s.more++
		default:
			s.files = append(s.files, path)
		}
	})
	return s
}

// eachFile calls f for the regular files of an archive: what the index knows of
// it, else the archive itself, else the .ls file.
func (e *examination) eachFile(a *narread.Archive, f func(path string, off, size int64)) {
	p := e.c.table.name(e.users[0])
	var l *nar.Listing
	if e.c.index != nil {
		if record, err := e.c.index.Record(p); err == nil {
			l, _ = record.Listing()
		}
	}
	if l == nil || l.NarSize() != a.Size() {
		l, _ = a.Listing()
	}
	if l != nil {
		for i := range l.Len() {
			if entry := l.Entry(i); entry.Type == nar.Regular {
				f(l.Path(i), entry.Offset, entry.Size)
			}
		}
		return
	}
	text, err := e.c.cache.ReadFile(p.Hash()+bincache.ListingExt, maxListing)
	if err != nil {
		return
	}
	if ls, err := parseLS(text); err == nil {
		ls.root.each("", f)
	}
}

// each calls f for the regular files below a node, which is at path.
func (n *lsNode) each(path string, f func(path string, off, size int64)) {
	if n.kind == nar.Regular.String() {
		f(path, n.offset, n.size)
	}
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		n.entries[name].each(strings.TrimPrefix(path+"/"+name, "/"), f)
	}
}

func overlaps(parts [][2]int64, start, end int64) bool {
	for _, p := range parts {
		if p[0] < end && start < p[1] {
			return true
		}
	}
	return false
}
