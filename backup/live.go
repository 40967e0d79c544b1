package backup

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

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
	listed   stamp                     // of the cache directory when names was read
	byHash   map[string]storepath.Path // by hash part; "" for a damaged narinfo
	paths    []storepath.Path
	summed   []storepath.Path // the paths that narSize is of
	narSize  int64
	closures map[ReleaseID]liveClosure
}

type liveClosure struct {
	stamp stamp
	paths []storepath.Path
}

// NewLive returns a live view of b. warn is told once of each damaged narinfo;
// its store path is not among Paths.
func NewLive(b *Backup, warn func(error)) *Live {
	return &Live{
		Backup: b, warn: warn,
		byHash:   make(map[string]storepath.Path),
		closures: make(map[ReleaseID]liveClosure),
	}
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
		return l.paths, nil
	}
	hashes, err := l.Cache.Hashes()
	if err != nil {
		return nil, err
	}
	changed, err := l.update(hashes)
	if err != nil {
		return nil, err
	}
	if changed || l.paths == nil {
		l.paths = l.sorted()
	}
	l.listed = settled(current, now)
	return l.paths, nil
}

// update reads the narinfos that are new and forgets those that are gone.
func (l *Live) update(hashes []string) (changed bool, err error) {
	for hash := range l.byHash {
		if _, found := slices.BinarySearch(hashes, hash); !found {
			delete(l.byHash, hash)
			changed = true
		}
	}
	fresh := slices.DeleteFunc(hashes, func(hash string) bool {
		p, known := l.byHash[hash]
		return known && p != "" // what was damaged may have been mended
	})
	fresh = l.index.named(fresh, func(hash string, p storepath.Path) {
		l.byHash[hash] = p
		changed = true
	})
	err = l.Cache.Scan(context.Background(), fresh, func(info *narinfo.NarInfo) {
		l.byHash[info.StorePath.Hash()] = info.StorePath
		changed = true
	}, l.damaged)
	return changed, err
}

func (l *Live) damaged(d *bincache.DamageError) {
	hash := hashOfFile(d.File)
	if _, known := l.byHash[hash]; !known {
		l.byHash[hash] = ""
		l.warn(d)
	}
}

func (l *Live) sorted() []storepath.Path {
	paths := make([]storepath.Path, 0, len(l.byHash))
	for _, p := range l.byHash {
		if p != "" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// Closure is Backup.Closure, read again only when the file changed.
func (l *Live) Closure(id ReleaseID) ([]storepath.Path, error) {
	now := time.Now()
	info, err := os.Stat(l.releasePath(id, closureFile))
	if err != nil {
		return nil, l.releaseError(id, err)
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

// NarSize returns the bytes of all store paths as NARs. It reads all narinfos,
// but only again when store paths came or went.
func (l *Live) NarSize(ctx context.Context) (int64, error) {
	paths, err := l.Paths()
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !sameSlice(paths, l.summed) {
		totals, _, err := l.Totals(ctx)
		if err != nil {
			return 0, err
		}
		l.summed, l.narSize = paths, totals.NarSize
	}
	return l.narSize, nil
}

func sameSlice(a, b []storepath.Path) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
