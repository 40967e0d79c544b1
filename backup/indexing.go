package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// identity tells this backup's index from those of others.
func (b *Backup) identity() (string, error) { return index.Identity(b.Cache, b.config.ID) }

// IndexDir returns where the index of this backup is to be built: in it, if it
// is a backup, on a file system where the index can live, and writable; else in
// the user's cache directory.
func (b *Backup) IndexDir() (string, error) {
	own := b.Path(layout.IndexDir)
	if !b.foreign && index.Suits(own, true) == nil {
		return own, nil
	}
	return b.userIndexDir()
}

func (b *Backup) userIndexDir() (string, error) {
	id, err := b.identity()
	if err != nil {
		return "", err
	}
	return index.UserDir(id, "")
}

// IndexDirs returns where there may be an index of this backup, in the order in
// which they are used: in it, and in the user's cache directory.
func (b *Backup) IndexDirs() []string {
	var dirs []string
	if !b.foreign {
		dirs = append(dirs, b.Path(layout.IndexDir))
	}
	if dir, err := b.userIndexDir(); err == nil {
		dirs = append(dirs, dir)
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return index.Suits(dir, false) != nil })
}

// OpenIndex opens the index in dir. The errors are those of index.Open; what
// belongs to another cache is damage. The caller closes it.
func (b *Backup) OpenIndex(dir string) (*index.Index, error) {
	id, err := b.identity()
	if err != nil {
		return nil, err
	}
	return index.Open(dir, index.Options{Cache: id})
}

// BuildIndex brings the index in dir up to date with the cache's files. With
// deep, every archive is read that has to be to know what is in it; without,
// only those are that cost little because any block of them can be read alone.
func (b *Backup) BuildIndex(ctx context.Context, dir string, deep bool, o index.BuildOptions) (*index.Stats, error) {
	var err error
	if o.Cache, err = b.identity(); err != nil {
		return nil, err
	}
	o.Shallow = !deep
	return index.Build(ctx, dir, b.Cache, o)
}

// PublishIndex brings the index of a backup up to date after a change. The index
// is derived: the backup is complete without it, so its errors are warnings.
func PublishIndex(ctx context.Context, dir string, o bincache.Options) (warning string) {
	b, err := Open(dir, o)
	if err != nil {
		return fmt.Sprintf("index: %v", err)
	}
	defer b.Close()
	own := b.Path(layout.IndexDir)
	if index.Suits(own, true) != nil {
		return "" // whoever mounts the backup makes one elsewhere
	}
	var damaged error
	_, err = b.BuildIndex(ctx, own, false, index.BuildOptions{Warn: func(err error) {
		var damage *index.DamageError
		if errors.As(err, &damage) { // what is wrong in the cache was said by the run
			damaged = err
		}
	}})
	switch {
	case err != nil:
		return fmt.Sprintf("the index could not be brought up to date (\"narvault index %s\" does it later): %v", dir, err)
	case damaged != nil:
		return fmt.Sprintf("the index was built anew: %v", damaged)
	}
	return ""
}

// An indexReader answers a Live from an index. It only saves work. Which store paths there are, and what their
// narinfos say, is read from the files as ever; the name that belongs to a hash
// part and the listing that belongs to a narinfo come from the index. Nil is no
// index.
type indexReader struct {
	dir  string
	own  bool // it is the backup's, and kept up to date by every backup
	live *index.Live
	warn func(error)
}

// UseIndex lets l ask the index of the backup: its own if that can be used,
// else the one in the user's cache directory, which need not be there yet. It
// must be called before the first question. CloseIndex ends it.
func (l *Live) UseIndex() error {
	id, err := l.identity()
	if err != nil {
		return err
	}
	o := index.LiveOptions{Options: index.Options{Cache: id}, Warn: l.warn}
	if live := l.ownIndex(o); live != nil {
		l.index = &indexReader{dir: l.Path(layout.IndexDir), own: true, warn: l.warn, live: live}
		return nil
	}
	dir, err := l.userIndexDir()
	if err != nil {
		return err
	}
	if err := index.Suits(dir, false); err != nil {
		return err
	}
	l.index = &indexReader{dir: dir, warn: l.warn, live: index.NewLive(dir, o)}
	return nil
}

// ownIndex opens the index that the backup keeps; nil if it has none, or none
// that can be used here, which is said if it is damaged.
func (l *Live) ownIndex(o index.LiveOptions) *index.Live {
	dir := l.Path(layout.IndexDir)
	if l.foreign || index.Suits(dir, false) != nil {
		return nil
	}
	live := index.NewLive(dir, o)
	ix, err := live.Acquire()
	if err == nil {
		ix.Close()
		return live
	}
	live.Close()
	if !errors.Is(err, fs.ErrNotExist) {
		l.warn(fmt.Errorf("%w; an index in your own cache directory is used until the next backup, or \"narvault index\", makes a new one", err))
	}
	return nil
}

// TendIndex does what the index in use needs, and may take long: one that
// every backup brings up to date is read and verified, the one in the user's
// cache directory is built, or brought up to date. Indexes of other caches there
// that nobody used for long are removed.
func (l *Live) TendIndex(ctx context.Context) error {
	if l.index == nil {
		return nil
	}
	if !l.index.own {
		_, err := l.BuildIndex(ctx, l.index.dir, false, index.BuildOptions{})
		return errors.Join(err, index.Prune(l.index.dir))
	}
	ix, err := l.index.live.Acquire()
	if err != nil {
		return err
	}
	defer ix.Close()
	return ix.Verify(ctx)
}

// IndexGeneration returns the name of the generation of the index that is in use,
// "" if there is none.
func (l *Live) IndexGeneration() (name string) {
	l.index.with(func(ix *index.Index) { name = fmt.Sprintf("gen-%d", ix.Generation()) })
	return name
}

// CloseIndex lets go of the index.
func (l *Live) CloseIndex() error {
	if l.index == nil {
		return nil
	}
	return l.index.live.Close()
}

// with runs use with the newest generation; without an index that can be used,
// it returns false.
func (r *indexReader) with(use func(*index.Index)) bool {
	if r == nil {
		return false
	}
	ix, err := r.live.Acquire()
	if err != nil {
		return false // Live has warned
	}
	defer ix.Close()
	use(ix)
	return true
}

// named returns the store paths of the hash parts that the index knows, and the
// other hash parts. Both hashes and paths are sorted.
func (r *indexReader) named(hashes []string) (found []storepath.Path, rest []string) {
	rest = hashes
	if len(hashes) == 0 {
		return nil, nil
	}
	r.with(func(ix *index.Index) { found, rest = ix.Named(hashes) })
	return found, rest
}

// contents returns the listing of a NAR, and how its container is laid out, if
// the index has them for the narinfo as it is now, which text is.
func (r *indexReader) contents(p storepath.Path, text []byte) (l *nar.Listing, layout []byte) {
	r.with(func(ix *index.Index) {
		var err error
		if l, layout, err = ix.Contents(p, text); err != nil {
			r.warn(err)
		}
	})
	return l, layout
}
