package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// An Index is a generation, open for reading. It shows what the cache held when
// it was built and never changes. Its methods may be called concurrently.
type Index struct {
	mu     sync.RWMutex // held for reading by all that use g
	g      *generation
	closed bool // guarded by mu
}

// Options say what Open accepts. The zero value works.
type Options struct {
	// Cache is the identity of the cache that the index has to be of, as in
	// BuildOptions; "" accepts any.
	Cache string
}

// Open opens the newest generation of the index in dir. That reads and verifies
// the names of all store paths and the parts of the database that are needed to
// find records; all else is verified when it is used.
//
// The error is fs.ErrNotExist when there is no index, and a *DamageError when
// it is damaged, of another cache, or of another version of narvault: then it
// has to be built. The caller closes the Index.
func Open(dir string, o Options) (*Index, error) {
	g, err := openCurrent(dir, o.Cache)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return &Index{g: g}, nil
}

var errClosed = fmt.Errorf("read index: %w", os.ErrClosed)

// Close releases the index. Calls under way are waited for, later ones return
// os.ErrClosed or nothing.
func (ix *Index) Close() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.closed {
		return errClosed
	}
	ix.closed = true
	return ix.g.close()
}

// Generation returns the number of the generation: a later one has a higher one.
func (ix *Index) Generation() uint64 { return ix.g.manifest.Generation }

// Created returns when the generation was built.
func (ix *Index) Created() time.Time { return ix.g.manifest.Created }

// Cache returns the identity of the cache that was indexed.
func (ix *Index) Cache() string { return ix.g.manifest.Cache }

// StoreDir returns the store directory of the cache.
func (ix *Index) StoreDir() string { return ix.g.manifest.StoreDir }

// Numbering identifies the numbers of store paths: as long as it stays the same
// from one generation to the next, so do they, and none was given to another
// path.
func (ix *Index) Numbering() string { return ix.g.manifest.Numbering }

// Entries returns how many files, directories and symlinks all listings have.
func (ix *Index) Entries() int64 { return ix.g.manifest.Entries }

// NarSize returns the bytes of all store paths as NARs.
func (ix *Index) NarSize() int64 { return ix.g.manifest.NarSize }

// Len returns the number of store paths.
func (ix *Index) Len() int { return ix.g.names.count() }

// Paths returns all store paths, sorted. It is the same slice at each call and
// must not be changed; it and its strings may be kept after Close.
func (ix *Index) Paths() []Entry { return ix.g.entries() }

// Number returns the number of a store path. Without error, false proves that
// the cache did not have it.
func (ix *Index) Number(p storepath.Path) (uint32, bool) { return ix.g.names.number(p) }

// ByHash returns the store path with the given hash part.
func (ix *Index) ByHash(hash string) (Entry, bool) {
	if len(hash) != storepath.HashLen {
		return Entry{}, false
	}
	i, ok := ix.g.names.find(hash)
	if !ok {
		return Entry{}, false
	}
	return Entry{ix.g.names.path(i), ix.g.names.numbers[i]}, true
}

// Named returns the store paths that have the given hash parts, and the hash
// parts that are of none. All are sorted. The paths may be kept.
func (ix *Index) Named(hashes []string) (paths []storepath.Path, rest []string) {
	return ix.g.names.named(hashes)
}

// Record returns what is known of a store path. The error is fs.ErrNotExist
// when the cache did not have it (that is proven), a *DamageError when the
// index is damaged, and a *bincache.DamageError when the narinfo of the path
// was damaged when the index was built.
func (ix *Index) Record(p storepath.Path) (*Record, error) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.closed {
		return nil, errClosed
	}
	number, ok := ix.g.names.number(p)
	if !ok {
		return nil, fmt.Errorf("read index: %s: %w", p, fs.ErrNotExist)
	}
	e := Entry{p, number}
	value, err := ix.g.value(e)
	if err != nil {
		return nil, err
	}
	refs, err := ix.g.references(p)
	if err != nil {
		return nil, err
	}
	r, err := ix.g.codec.open(value, e, refs)
	var bad *damagedNarInfo
	switch {
	case errors.As(err, &bad):
		return nil, &bincache.DamageError{File: p.Hash() + bincache.NarInfoExt, Err: bad}
	case err != nil:
		return nil, damage(ix.g.dir, "record of %s: %w", p, err)
	}
	return r, nil
}

// Contents returns the listing of the NAR of a store path and the layout of its
// container (see Record), if it knows them and narInfo, the bytes of the path's
// narinfo, is what was indexed; else nil. That is a record without the work of
// taking it apart. The error is a *DamageError when the index is damaged.
func (ix *Index) Contents(p storepath.Path, narInfo []byte) (l *nar.Listing, layout []byte, err error) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.closed {
		return nil, nil, errClosed
	}
	number, ok := ix.g.names.number(p)
	if !ok {
		return nil, nil, nil
	}
	if ix.g.store == nil {
		return nil, nil, damage(ix.g.dir, "has no records")
	}
	e, sum := Entry{p, number}, narInfoSum(narInfo)
	err = ix.g.store.view(number, func(value []byte) error {
		l, layout, err = ix.g.codec.contents(value, e, sum)
		return err
	})
	if err != nil {
		return nil, nil, damage(ix.g.dir, "record of %s: %w", p, err)
	}
	return l, layout, nil
}

// Verify reads and hashes all files of the generation. The error is a
// *DamageError for the first that has changed. It is meant to run in the
// background, once after Open; Close waits for it, so end ctx before.
func (ix *Index) Verify(ctx context.Context) error {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.closed {
		return errClosed
	}
	return ix.g.verify(ctx)
}
