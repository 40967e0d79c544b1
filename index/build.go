package index

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
)

// BuildOptions say how an index is built. The zero value works.
type BuildOptions struct {
	// Cache is the identity of the cache (Identity makes one): an index that was
	// built of another one is not used.
	Cache string
	// Listing returns the listing of a NAR, for whoever knows it already. Neither
	// listing nor error means: leave it out for now. It is called by several
	// goroutines at a time. Nil reads the listing from the NAR, which for archives
	// without random access decodes all of it, and keeps the container's layout.
	Listing func(context.Context, *narinfo.NarInfo) (*nar.Listing, error)
	// Shallow leaves out the listings of archives without random access, unless
	// they are known from the generation before.
	Shallow bool
	// Workers is how many store paths are worked on at a time; 0: GOMAXPROCS.
	Workers int
	// Progress is told, by one goroutine, how many store paths are done.
	Progress func(done, total int)
	// Warn is told, by one goroutine, of narinfos and archives that are damaged,
	// and of damage of the generation before. The build goes on: what is not known
	// about a store path is left out.
	Warn func(error)

	disk     disk // for tests
	contents func(context.Context, *narinfo.NarInfo) (*nar.Listing, []byte, error)
}

func (o *BuildOptions) applyDefaults(c *bincache.Cache) {
	o.contents = func(ctx context.Context, info *narinfo.NarInfo) (*nar.Listing, []byte, error) {
		if o.Listing == nil {
			return readContents(ctx, c, info, o.Shallow)
		}
		l, err := o.Listing(ctx, info)
		return l, nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
}

// readContents reads the listing of one archive and the layout of its
// container. It gives up when ctx ends, also while a whole container is being
// decoded.
func readContents(ctx context.Context, c *bincache.Cache, info *narinfo.NarInfo, shallow bool) (*nar.Listing, []byte, error) {
	a, err := c.ArchiveOnce(info)
	if err != nil {
		return nil, nil, err
	}
	if shallow && !a.RandomAccess() {
		return nil, nil, a.Close()
	}
	stop := context.AfterFunc(ctx, func() { a.Close() })
	l, err := a.Listing()
	layout := a.Layout()
	if !stop() {
		return nil, nil, ctx.Err()
	}
	return l, layout, errors.Join(err, a.Close())
}

// Stats say what Build did.
type Stats struct {
	Generation uint64 // the newest now
	Unchanged  bool   // nothing changed since it was built: there is no new one
	Paths      int    // in it
	Reused     int    // of these, taken from the generation before
	NoListing  int    // of these, without a listing
	Damaged    int    // narinfos that cannot be read
	Entries    int64  // in all listings
	Size       int64  // bytes of its files
}

// Build makes a new generation of the index in dir, which it creates if need
// be, of the store paths that c has. Records of narinfos that did not change
// since the generation before are taken from it, unless they lack a listing. If
// nothing changed at all, there is no new generation.
//
// It waits for another build in the same directory. Readers are not disturbed;
// generations that nobody reads any more are removed. When it fails or is
// interrupted, the generation before stays the newest.
//
// Memory is bounded: about 500 bytes for each store path, and the records and
// listings that are being worked on.
func Build(ctx context.Context, dir string, c *bincache.Cache, o BuildOptions) (*Stats, error) {
	o.applyDefaults(c)
	b := &builder{dir: dir, cache: c, o: o, disk: o.disk}
	stats, err := b.build(ctx)
	if err != nil {
		return nil, fmt.Errorf("build index %s: %w", dir, err)
	}
	return stats, nil
}

// A builder makes one generation.
type builder struct {
	dir   string
	cache *bincache.Cache
	o     BuildOptions
	disk  disk
	root  *os.Root // of the cache
	codec *codec
	prev  *generation // or nil

	manifest manifest // of what is being made
	temp     string   // where
	writer   *storeWriter
	space    space
	kept     []Entry       // reused, but not yet copied, as long as there is no writer
	all      []Entry       // what the new generation has
	refs     referenceList // of all
	late     []string
	stats    Stats
	done     int
	total    int
}

func (b *builder) build(ctx context.Context) (*Stats, error) {
	lock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if b.root, err = os.OpenRoot(b.cache.Dir()); err != nil {
		return nil, err
	}
	defer b.root.Close()
	if b.codec, err = newCodec(); err != nil {
		return nil, err
	}
	if err := b.begin(); err != nil {
		return nil, err
	}
	defer b.end()
	if err := b.fill(ctx); err != nil {
		return nil, err
	}
	if b.unchanged(ctx) {
		return b.keep(), nil
	}
	if err := b.startWriter(); err != nil {
		return nil, err
	}
	if err := b.complete(ctx); err != nil {
		return nil, err
	}
	return &b.stats, b.publish()
}

// lock makes the directory and waits until nobody else builds in it.
func (b *builder) lock(ctx context.Context) (*os.File, error) {
	for {
		f, err := b.tryLock()
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLock returns nil if somebody else has the lock, or took the directory away
// before it was held (Prune).
func (b *builder) tryLock() (*os.File, error) {
	f, err := b.openLock()
	if err != nil {
		return nil, err
	}
	return claim(f)
}

// openLock opens the file for the lock, in a directory that is made if need be.
func (b *builder) openLock() (*os.File, error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(b.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
}

// claim takes the lock for tryLock.
func claim(f *os.File) (*os.File, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil && isPath(f, f.Name()) {
		return f, nil
	}
	f.Close()
	if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil, nil
}

// begin opens the generation before, as far as it can be used, and clears away
// what a crash left.
func (b *builder) begin() error {
	p, err := readCurrent(b.dir)
	if err == nil {
		b.prev = b.openPrevious(p)
	} else if !isNotExist(err) {
		b.o.Warn(err)
	}
	highest, err := b.clean(p, err == nil)
	if err != nil {
		return err
	}
	b.manifest = manifest{
		Version:    formatVersion,
		Generation: highest + 1,
		Created:    time.Now().UTC().Truncate(time.Second),
		Cache:      b.o.Cache,
		StoreDir:   b.cache.StoreDir(),
		Numbering:  rand.Text(),
		NextNumber: 1,
	}
	if b.prev != nil {
		b.manifest.Numbering, b.manifest.NextNumber = b.prev.manifest.Numbering, b.prev.manifest.NextNumber
	}
	b.temp = filepath.Join(b.dir, genName(b.manifest.Generation)+tempSuffix)
	return nil
}

// openPrevious opens the generation before; nil if its names are damaged. The
// records may be damaged then, all of them or some.
func (b *builder) openPrevious(p pointer) *generation {
	g, err := lockGeneration(b.dir, p)
	if err != nil {
		b.o.Warn(damage(filepath.Join(b.dir, currentFile), "names a generation that is not there: %v", err))
		return nil
	}
	if err = g.open(b.o.Cache); err != nil {
		b.o.Warn(err)
	}
	if g.names == nil || g.manifest.StoreDir != b.cache.StoreDir() || g.manifest.Cache != b.o.Cache {
		g.close()
		return nil
	}
	return g
}

// end releases what begin opened, and removes what was not published.
func (b *builder) end() {
	if b.writer != nil {
		b.writer.abandon()
		_ = b.disk.RemoveAll(b.temp)
	}
	if b.prev != nil {
		b.prev.close()
	}
}

// fill goes through all store paths: those that have a number in the order of
// their numbers, then the new ones in their own order.
func (b *builder) fill(ctx context.Context) error {
	hashes, err := b.cache.Hashes()
	if err != nil {
		return err
	}
	b.total = len(hashes)
	var known []Entry
	if b.prev != nil {
		known = b.prev.names.entries()
	}
	old, fresh := merge(known, hashes)
	if int(b.manifest.NextNumber)+len(fresh) > maxNumber {
		b.renumber()
		old, fresh = nil, hashes
	}
	slices.SortFunc(old, func(x, y Entry) int { return int(x.Number) - int(y.Number) })
	if err := b.run(ctx, old); err != nil {
		return err
	}
	// Store paths that are now another one of the same hash part.
	fresh = append(fresh, b.late...)
	slices.Sort(fresh)
	b.late = nil
	tasks := make([]Entry, len(fresh))
	for i, hash := range fresh {
		tasks[i].Path = hashOnly(hash)
	}
	if err := b.run(ctx, tasks); err != nil {
		return err
	}
	// If the medium vanished, all its files were damaged for us.
	return b.cache.Present()
}

// renumber forgets the generation before: there are no numbers left.
func (b *builder) renumber() {
	if b.prev != nil {
		b.prev.close()
		b.prev = nil
	}
	b.manifest.Numbering, b.manifest.NextNumber = rand.Text(), 1
}

// merge splits hashes into what is known by name and number, and what is new.
// Both are sorted.
func merge(known []Entry, hashes []string) (old []Entry, fresh []string) {
	for _, hash := range hashes {
		for len(known) > 0 && known[0].Path.Hash() < hash {
			known = known[1:]
		}
		if len(known) > 0 && known[0].Path.Hash() == hash {
			old = append(old, known[0])
		} else {
			fresh = append(fresh, hash)
		}
	}
	return old, fresh
}

// unchanged reports whether the new generation would be like the one before,
// and that is undamaged.
func (b *builder) unchanged(ctx context.Context) bool {
	if b.prev == nil || b.prev.store == nil || b.writer != nil || len(b.all) != b.prev.names.count() {
		return false
	}
	return b.prev.verify(ctx) == nil
}

// keep returns the Stats of the generation before.
func (b *builder) keep() *Stats {
	m := b.prev.manifest
	b.stats.Unchanged, b.stats.Generation, b.stats.Entries = true, m.Generation, m.Entries
	for _, f := range m.Files {
		b.stats.Size += f.Size
	}
	return &b.stats
}

// clean removes what a crash left and generations that nobody holds. It returns
// the highest number that a generation has.
func (b *builder) clean(current pointer, known bool) (highest uint64, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		name := e.Name()
		base, isTemp := strings.CutSuffix(name, tempSuffix)
		n, ok := parseGen(base)
		if !ok {
			continue
		}
		highest = max(highest, n)
		switch {
		case isTemp:
			err = b.disk.RemoveAll(filepath.Join(b.dir, name))
		case known && n != current.gen:
			err = b.remove(name)
		}
		if err != nil {
			return 0, err
		}
	}
	return highest, nil
}

// remove removes a generation unless somebody holds it.
func (b *builder) remove(name string) error {
	dir := filepath.Join(b.dir, name)
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if flock(d, syscall.LOCK_EX) != nil {
		return nil
	}
	// Whoever opened it and waits for the lock sees then that it is gone, and a
	// crash leaves what the next build removes.
	if err := b.disk.Rename(dir, dir+tempSuffix); err != nil {
		return err
	}
	return b.disk.RemoveAll(dir + tempSuffix)
}

// isNotExist is for files of a cache that may vanish at any time.
func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
