package fusefs

import (
	"container/list"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
)

// maxDamage is how many different errors .narvault/errors has.
const maxDamage = 1000

// A damageList is the content of .narvault/errors: the last errors that were
// met, each once.
type damageList struct {
	locate func(error) Place
	now    func() time.Time

	mu    sync.Mutex
	all   list.List                   // guarded by mu: of *damage, the last one met first
	byKey map[[2]string]*list.Element // guarded by mu: by path and message
	total int64                       // guarded by mu: of all errors ever
}

// A damage is one error.
type damage struct {
	path    string // in the mount
	message string
	place   Place
	last    time.Time
	times   int
}

// add notes an error that was met at a path of the mount.
func (l *damageList) add(path string, err error) {
	d := &damage{path: path, message: err.Error(), place: Place{Block: -1, Offset: -1}}
	if l.locate != nil {
		d.place = l.locate(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	key := [2]string{d.path, d.message}
	elem, known := l.byKey[key]
	if known {
		l.all.MoveToFront(elem)
		d = elem.Value.(*damage)
	} else {
		if l.byKey == nil {
			l.byKey = make(map[[2]string]*list.Element)
		}
		l.byKey[key] = l.all.PushFront(d)
	}
	d.last = l.now()
	d.times++
	if l.all.Len() > maxDamage {
		old := l.all.Remove(l.all.Back()).(*damage)
		delete(l.byKey, [2]string{old.path, old.message})
	}
}

// count returns how many errors there were.
func (l *damageList) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// text returns a line for each error, the last one met at the end, with tabs
// between the fields that damageHeader names. What is not known is "-".
func (l *damageList) text() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	b.WriteString(damageHeader)
	for e := l.all.Back(); e != nil; e = e.Prev() {
		d := e.Value.(*damage)
		fmt.Fprintf(&b, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", d.last.UTC().Format(time.RFC3339), d.times,
			field(d.path), field(d.place.File), known(int64(d.place.Block)), known(d.place.Offset), field(d.message))
	}
	return []byte(b.String())
}

const damageHeader = "# time\ttimes\tpath\tfile\tblock\toffset\terror\n"

// field returns text as one field of one line.
func field(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // C1 controls and marks that turn text round, too
			return '?'
		}
		return r
	}, text)
}

func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
