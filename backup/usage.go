package backup

import (
	"context"
	"sync"

	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/narread/storepath"
)

// A Usage is how much a backup holds.
type Usage struct {
	NarSize int64 // bytes of all store paths as NARs
	Entries int64 // files, directories and symlinks in them; 0 if nobody counted
}

// Usage answers at once: from the index, or else with what was counted last. If
// that is not known or not up to date, it is counted in the background, which
// means to read all narinfos. It may be a little behind what Paths says.
func (l *Live) Usage() (Usage, error) {
	var u Usage
	if l.index.with(func(ix *index.Index) { u = Usage{NarSize: ix.NarSize(), Entries: ix.Entries()} }) {
		return u, nil
	}
	paths, err := l.Paths()
	if err != nil {
		return Usage{}, err
	}
	return l.usage.get(l.Backup, paths), nil
}

// A usageCount counts the sizes of all store paths, one count at a time.
type usageCount struct {
	mu       sync.Mutex
	of       []storepath.Path // guarded by mu: what was counted, or is being counted
	counting bool             // guarded by mu
	last     Usage            // guarded by mu
}

func (c *usageCount) get(b *Backup, paths []storepath.Path) Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.counting && !sameSlice(paths, c.of) {
		c.of, c.counting = paths, true
		go c.count(b)
	}
	return c.last
}

// count reads all narinfos. When that is not possible, the next get tries again.
func (c *usageCount) count(b *Backup) {
	totals, _, err := b.Totals(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counting = false
	if err != nil {
		c.of = nil
		return
	}
	c.last = Usage{NarSize: totals.NarSize}
}

func sameSlice(a, b []storepath.Path) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
