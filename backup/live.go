package backup

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A Live view answers again and again what a backup holds while others change
// it, as a mount asks: it looks whether something changed and reads only that.
// Slices that it returns must not be modified; as long as nothing changes, the
// same slice comes again. Its methods may be called concurrently.
type Live struct {
	*Backup
	warn  func(error)
	index *indexReader // nil: none

	mu       sync.Mutex
	listed   stamp                     // guarded by mu: of the cache directory when its narinfos were listed
	paths    []storepath.Path          // guarded by mu: sorted
	closures map[ReleaseID]liveClosure // guarded by mu

	// bad are the narinfos that are damaged and whose store path is not known,
	// by hash part. The map is never modified.
	bad atomic.Pointer[map[string]*bincache.DamageError]

	usage usageCount
}

type liveClosure struct {
	stamp stamp
	paths []storepath.Path
}

// NewLive returns a live view of b. warn is told once of each damaged narinfo.
// Its store path is not among Paths, unless it was known before or an index
// knows it; Absent says that something is there.
func NewLive(b *Backup, warn func(error)) *Live {
	l := &Live{Backup: b, warn: warn, closures: make(map[ReleaseID]liveClosure)}
	l.bad.Store(&map[string]*bincache.DamageError{})
	return l
}

// A stamp tells versions of a file or directory apart.
type stamp struct {
	mtime time.Time
	size  int64
	file  fs.FileInfo
}

// settleTime is how long a file must have been left alone before an equal
// stamp proves an equal content: the times of FAT go in steps of two seconds.
const settleTime = 2100 * time.Millisecond

func newStamp(info fs.FileInfo) stamp {
	return stamp{mtime: info.ModTime(), size: info.Size(), file: info}
}

// proves reports whether what was read under s is still what is there.
func (s stamp) proves(now stamp, readAt time.Time) bool {
	return s.file != nil && s.mtime.Equal(now.mtime) && s.size == now.size && os.SameFile(s.file, now.file) &&
		readAt.Sub(s.mtime) > settleTime
}

// settled clears a stamp that is too fresh to prove anything later.
func settled(s stamp, readAt time.Time) stamp {
	if readAt.Sub(s.mtime) <= settleTime {
		return stamp{}
	}
	return s
}

// Paths returns every store path of the backup, sorted.
func (l *Live) Paths() ([]storepath.Path, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	info, err := l.Cache.Stat()
	if err != nil {
		return nil, fmt.Errorf("list binary cache: %w", err)
	}
	current := newStamp(info)
	if l.listed.proves(current, now) {
		err := l.mended()
		return l.paths, err
	}
	hashes, err := l.Cache.Hashes()
	if err != nil {
		return nil, err
	}
	if err := l.update(hashes); err != nil {
		return nil, err
	}
	l.listed = settled(current, now)
	return l.paths, nil
}

// Continues reports whether l is the same backup that other was: the medium may
// have been away, or be a copy. That is what narvault.json says. Where there is
// none, it is the same if at least half of the store paths are still there.
func (l *Live) Continues(other *Live) (bool, error) {
	if l.config.ID != other.config.ID || l.foreign != other.foreign || l.Cache.StoreDir() != other.Cache.StoreDir() {
		return false, nil
	}
	if l.config.ID != "" {
		return true, nil
	}
	other.mu.Lock()
	before := other.paths
	other.mu.Unlock()
	now, err := l.Paths()
	if err != nil {
		return false, err
	}
	same := 0
	for _, p := range before {
		if _, found := slices.BinarySearch(now, p); found {
			same++
		}
	}
	return 2*same >= len(before), nil
}

// Absent returns nil if a store path that is not among Paths is not in the
// backup, and a *bincache.DamageError if a damaged narinfo may be its.
func (l *Live) Absent(p storepath.Path) error {
	if d := (*l.bad.Load())[p.Hash()]; d != nil {
		return d
	}
	return nil
}

// update reads the narinfos that are new and forgets those that are gone. It
// needs mu.
func (l *Live) update(hashes []string) error {
	known, fresh := split(l.paths, hashes)
	found, fresh := l.index.named(fresh)
	scanned, err := l.scan(fresh)
	if err != nil {
		return err
	}
	if found = append(found, scanned...); len(found) > 0 {
		known = slices.Concat(known, found)
		slices.Sort(known)
	}
	l.paths = known
	return nil
}

// split returns those of paths whose hash part is among hashes, and the hash
// parts that are of none; both are sorted. As long as nothing is missing, known
// is paths itself.
func split(paths []storepath.Path, hashes []string) (known []storepath.Path, fresh []string) {
	if len(paths) == 0 {
		return nil, hashes
	}
	gone := false
	for i, p := range paths {
		for len(hashes) > 0 && hashes[0] < p.Hash() {
			fresh, hashes = append(fresh, hashes[0]), hashes[1:]
		}
		there := len(hashes) > 0 && hashes[0] == p.Hash()
		if there {
			hashes = hashes[1:]
		} else if !gone {
			known, gone = slices.Clone(paths[:i]), true
		}
		if there && gone {
			known = append(known, p)
		}
	}
	if !gone {
		known = paths
	}
	return known, append(fresh, hashes...)
}

// scan reads narinfos, and notes those that are damaged. It needs mu.
func (l *Live) scan(hashes []string) (found []storepath.Path, err error) {
	bad := make(map[string]*bincache.DamageError)
	before := *l.bad.Load()
	err = l.Cache.Scan(context.Background(), hashes, func(info *narinfo.NarInfo) {
		found = append(found, info.StorePath)
	}, func(d *bincache.DamageError) {
		hash := bincache.HashOfFile(d.File)
		if bad[hash] = d; before[hash] == nil {
			l.warn(d)
		}
	})
	if err != nil {
		return nil, err
	}
	l.bad.Store(&bad)
	return found, nil
}

// maxRetried is how many damaged narinfos are read again and again.
const maxRetried = 100

// mended looks whether damaged narinfos are good now: mending one in its place
// does not change the directory. It needs mu.
func (l *Live) mended() error {
	bad := *l.bad.Load()
	if len(bad) == 0 || len(bad) > maxRetried {
		return nil
	}
	found, err := l.scan(slices.Sorted(maps.Keys(bad)))
	if err == nil && len(found) > 0 {
		l.paths = slices.Concat(l.paths, found)
		slices.Sort(l.paths)
	}
	return err
}

// Closure is Backup.Closure, read again only when the file changed.
func (l *Live) Closure(id ReleaseID) ([]storepath.Path, error) {
	now := time.Now()
	info, err := os.Stat(l.releasePath(id, layout.ClosureFile))
	if err != nil {
		return nil, l.ReleaseError(id, err)
	}
	current := newStamp(info)
	l.mu.Lock()
	have, known := l.closures[id]
	l.mu.Unlock()
	if known && have.stamp.proves(current, now) {
		return have.paths, nil
	}
	paths, err := l.Backup.Closure(id)
	if err != nil {
		return nil, err
	}
	if known && slices.Equal(paths, have.paths) {
		paths = have.paths
	}
	l.mu.Lock()
	l.closures[id] = liveClosure{stamp: settled(current, now), paths: paths}
	l.mu.Unlock()
	return paths, nil
}
