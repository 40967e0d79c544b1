package nar

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	maxWarnings    = 20
	caseHackSuffix = "~nix~case~hack~" // Nix's caseHackSuffix
)

// Warnings says what in the NAR this Nix dumps and restores but another one
// does not: for each such path, below root, the reason and which Nix it is. From
// the 21st on they are only counted.
func (l *Listing) Warnings(root string) []string {
	w := &warner{l: l, root: strings.TrimSuffix(root, "/")}
	depth, level, next := 0, 1, 1 // entries below level are at most depth deep
	for i := range l.entries {
		if i == level {
			depth, level = depth+1, next
		}
		e := &l.entries[i]
		// Below the first of them, all are too deep: one warning for each branch.
		if depth == StrictDepth {
			w.add(i, "nested %d deep: Nix from 2.28.7, 2.29.4, 2.30.5, 2.31.5, 2.32.8, 2.33.6, 2.34.7 and 2.35 on restores only less than that", depth)
		}
		if strings.Contains(l.name(e), caseHackSuffix) {
			w.add(i, "the name contains %q: Nix with its case hack (macOS) does not restore or dump it as it is", caseHackSuffix)
		}
		if e.typ == Directory {
			next += int(e.b)
			w.collisions(e)
		}
	}
	if l.deviation != nil && depth < StrictDepth {
		w.add(0, "%v: Nix from 2.23.4 and 2.24.6 on does not restore it", l.deviation)
	}
	return w.warnings()
}

// A warner collects warnings about one listing.
type warner struct {
	l    *Listing
	root string
	list []string
	more int
}

func (w *warner) add(i int, format string, args ...any) {
	if len(w.list) == maxWarnings {
		w.more++
		return
	}
	path := w.root
	if i > 0 {
		path += "/" + w.l.Path(i)
	}
	w.list = append(w.list, path+": "+fmt.Sprintf(format, args...))
}

func (w *warner) warnings() []string {
	if w.more > 0 {
		return append(w.list, fmt.Sprintf("%s: %d more warnings like these", w.root, w.more))
	}
	return w.list
}

// collisions adds the names of a directory that differ from another one in
// upper and lower case only. One of the two has an upper-case letter.
func (w *warner) collisions(dir *entry) {
	children := w.l.entries[dir.a : dir.a+dir.b]
	var folded map[string]int // names with upper case, in lower case
	for i := range children {
		name := w.l.name(&children[i])
		lower := strings.ToLower(name)
		if lower == name || !utf8.ValidString(name) {
			continue
		}
		other, found := folded[lower]
		if !found {
			other = sort.Search(len(children), func(j int) bool { return w.l.name(&children[j]) >= lower })
			found = other < len(children) && w.l.name(&children[other]) == lower
		}
		if found {
			w.add(int(dir.a)+i, "differs from %q in case only: Nix on macOS restores one of them under another name, and a file system that ignores case cannot hold both",
				w.l.name(&children[other]))
			continue
		}
		if folded == nil {
			folded = make(map[string]int)
		}
		folded[lower] = i
	}
}
