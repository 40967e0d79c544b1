package backup

import (
	"fmt"
	"io/fs"
	"sync"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A Tree is an archived store path, open for reading: what fusefs wants of one.
// If an index has its listing, its NAR file is opened only when a content is
// read. Its methods may be called concurrently, Close when no other is running.
type Tree struct {
	listing *nar.Listing // nil if the index has it not
	size    int64
	narHash narinfo.Hash
	open    func() (*narread.Archive, error)

	mu      sync.Mutex
	archive *narread.Archive // guarded by mu, nil until it is needed
}

// OpenTree opens a store path. The caller closes it.
func (l *Live) OpenTree(p storepath.Path) (*Tree, error) {
	if t, err := l.indexedTree(p); t != nil || err != nil {
		return t, err
	}
	info, err := l.Cache.Lookup(p)
	if err != nil {
		return nil, err
	}
	t := &Tree{
		size: info.NarSize, narHash: info.NarHash,
		open: func() (*narread.Archive, error) { return l.there(p, info, nil) },
	}
	_, err = t.opened()
	return t, err
}

// indexedTree opens a store path whose listing the index has, nil if it has not.
// It takes nothing apart that is not needed to look around.
func (l *Live) indexedTree(p storepath.Path) (*Tree, error) {
	text, err := l.Cache.ReadNarInfo(p.Hash())
	if err != nil {
		return nil, err
	}
	listing, layout := l.index.contents(p, text)
	narHash, ok := narinfo.FindNarHash(text)
	if listing == nil || !ok {
		return nil, nil
	}
	open := func() (*narread.Archive, error) {
		info, err := narinfo.Parse(text)
		if err != nil {
			return nil, err
		}
		return l.there(p, info, layout)
	}
	return &Tree{listing: listing, size: listing.NarSize(), narHash: narHash, open: open}, nil
}

// there opens the archive of a store path. One that lost its NAR file after its
// narinfo was not damaged, but taken out of the backup.
func (l *Live) there(p storepath.Path, info *narinfo.NarInfo, layout []byte) (*narread.Archive, error) {
	archive, err := l.Cache.ArchiveByLayout(info, layout)
	if isDamage(err) {
		if has, hasErr := l.Cache.Has(p.Hash()); !has && hasErr == nil {
			return nil, fmt.Errorf("%s was taken out of the backup: %w", p, fs.ErrNotExist)
		}
	}
	return archive, err
}

func (t *Tree) opened() (*narread.Archive, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.archive != nil {
		return t.archive, nil
	}
	archive, err := t.open()
	if err == nil {
		t.archive = archive
	}
	return archive, err
}

// ReadAt reads bytes of the NAR, as narread.Archive does.
func (t *Tree) ReadAt(p []byte, off int64) (int, error) {
	archive, err := t.opened()
	if err != nil {
		return 0, err
	}
	return archive.ReadAt(p, off)
}

// Listing returns what is in the NAR.
func (t *Tree) Listing() (*nar.Listing, error) {
	if t.listing != nil {
		return t.listing, nil
	}
	archive, err := t.opened()
	if err != nil {
		return nil, err
	}
	return archive.Listing()
}

// RandomAccess reports whether the listing can be had without decoding the whole
// NAR.
func (t *Tree) RandomAccess() bool {
	if t.listing != nil {
		return true
	}
	archive, err := t.opened()
	return err != nil || archive.RandomAccess() // Listing returns the error
}

// Size returns the size of the NAR in bytes.
func (t *Tree) Size() int64 { return t.size }

// NarHash returns the hash of the NAR, as its narinfo has it.
func (t *Tree) NarHash() narinfo.Hash { return t.narHash }

// Close closes the NAR file if it was opened.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.archive == nil {
		return nil
	}
	return t.archive.Close()
}
