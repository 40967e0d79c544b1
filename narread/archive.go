package narread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/spool"
)

// maxNarSize keeps offsets far from overflowing: no medium holds as much.
const maxNarSize = 1 << 60

// maxWhole is the largest NAR that is decoded into one block of the cache when
// its container cannot be entered in the middle. Larger ones go to a file.
const maxWhole = 8 << 20

// Options say what a container holds. NarSize and NarHash are required: they
// are what the content is verified against.
type Options struct {
	Name        string       // of the file, for errors
	Compression string       // as the narinfo has it
	NarSize     int64        // of the narinfo
	NarHash     narinfo.Hash // of the narinfo
	FileSize    int64        // of the narinfo; 0 when not known

	// Cache is where decoded blocks are kept; nil means a small one for this
	// archive alone.
	Cache *Cache
	// Layout, if not nil, is what Archive.Layout returned for this very file:
	// opening it then reads nothing. One that cannot be of this file is not used.
	// Where one is wrong all the same, reads return a DamageError.
	Layout []byte
	// Spool is where the NARs of archives that cannot be entered in the middle are
	// kept; nil means that they go when the archive is closed.
	Spool *spool.Dir
	// SpoolDir is where their temporary files go without a Spool; "" means
	// os.TempDir.
	SpoolDir string
	// Once says that Listing or WriteTo is all that will be wanted, once: nothing
	// is kept for later reads, which may take as long as the first.
	Once bool
	// Warn, if not nil, is told by Open what is wrong but can be read all the
	// same: a Compression that lies, a seek table that is damaged.
	Warn func(error)
}

// Archive is one NAR. Its methods may be called from any number of goroutines
// at a time.
//
// Errors are a *DamageError when the container is damaged. All others come from
// the medium or from making a temporary file, and trying again may help.
type Archive struct {
	file   file
	o      Options
	cache  *Cache
	format format
	random container // what can be entered anywhere, or nil
	direct bool      // random verifies what it decodes, or most of it, and is of the narinfo

	ready   lazy[blocks]
	sums    lazy[blockSums] // of the blocks of random, or those of blockSize if there is none
	listing lazy[nar.Listing]
	seq     sequences

	ctx        context.Context // ends when closing is set
	end        context.CancelFunc
	closing    atomic.Bool    // set first, so that long work gives up
	ahead      sync.WaitGroup // blocks being read ahead
	background sync.WaitGroup // passes into the spool
	mu         sync.RWMutex   // held for reading by all that use src
	closed     bool           // guarded by mu
}

// Open recognises the container of size bytes in src, and reads what it needs
// to enter it: a few bytes, the seek table, or the headers of all frames. It
// decodes nothing. Options.Compression that narread does not know, with content
// that it does not recognise, is errors.ErrUnsupported.
//
// The Archive owns src once Open has succeeded.
func Open(src Source, size int64, o Options) (*Archive, error) {
	a := &Archive{file: file{src: src, size: size, name: o.Name}, o: o, cache: o.Cache}
	if o.NarSize <= 0 || o.NarHash.IsZero() {
		return nil, fmt.Errorf("open %s: NarSize and NarHash must be known", o.Name)
	}
	if o.NarSize > maxNarSize {
		return nil, a.file.damage(-1, -1, fmt.Errorf("NarSize of %d", o.NarSize))
	}
	if a.cache == nil {
		a.cache = NewCache(defaultCache)
	}
	a.ctx, a.end = context.WithCancel(context.Background())
	if a.enterByLayout() {
		a.direct = !a.strange()
		return a, nil
	}
	if err := a.detect(); err != nil {
		return nil, err
	}
	if limit := maxContainer(o.NarSize); a.format != formatNone && a.format != formatZstd && size > limit {
		return nil, a.file.damage(-1, limit, fmt.Errorf("%d bytes, more than what %s makes of a NAR of %d bytes", size, a.format, o.NarSize))
	}
	if err := a.enterable(); err != nil {
		return nil, err
	}
	a.direct = a.direct && !a.strange()
	if a.random != nil {
		a.sums.val.Store(nil) // a smaller cache took it for one piece: they are of other blocks
	}
	return a, nil
}

// strange reports whether the file is whole and yet not of the size that the
// narinfo says: it is another one than that is of. Its own checksums then prove
// nothing before the NarHash of the whole was verified. (Of one that was cut off,
// they are all there is.)
func (a *Archive) strange() bool {
	return a.o.FileSize > 0 && a.file.size != a.o.FileSize && a.intact()
}

// maxContainer bounds the containers that are read from one end to the other, in
// bytes: none makes a NAR larger by as much. Without it a file of zeros, which
// xz takes for padding, would keep a reader busy for hours.
func maxContainer(narSize int64) int64 { return 2*narSize + 1<<20 }

// detect sets the format.
func (a *Archive) detect() error {
	head := make([]byte, min(headLen, a.file.size))
	if err := a.file.read(head, 0); err != nil {
		return err
	}
	f, warn, err := choose(a.o.Compression, head)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("open %s: %w", a.file.name, err)
	case err != nil:
		return a.file.damage(-1, 0, err)
	case warn != nil:
		a.warn(fmt.Errorf("open %s: %w", a.file.name, warn))
	}
	a.format = f
	return nil
}

func (a *Archive) warn(err error) {
	if a.o.Warn != nil {
		a.o.Warn(err)
	}
}

// enterable sets random, if the container is of that kind.
func (a *Archive) enterable() error {
	switch a.format {
	case formatNone:
		if a.file.size != a.o.NarSize {
			return a.file.damage(-1, a.file.size, fmt.Errorf("%d bytes, NarSize is %d", a.file.size, a.o.NarSize))
		}
		a.random = &plain{fixed: fixed{size: a.o.NarSize, width: blockSize}, f: &a.file}
	case formatZstd:
		fs, err := openFrames(&a.file, &a.cache.dec, a.o.NarSize, a.frameLimit(), a.warn)
		if err == errNoFrames {
			return nil
		} else if err != nil {
			return err
		}
		a.random, a.direct = fs, fs.checked
	case formatXz:
		bs, err := openXzBlocks(&a.file, &a.cache.dec, a.o.NarSize, a.frameLimit(), a.warn)
		if err == errNoFrames {
			return nil
		} else if err != nil {
			return err
		}
		a.random, a.direct = bs, bs.check.Verified()
	}
	return nil
}

// frameLimit is the largest content of a frame for random access: one that is
// read in pieces and does not stay in the cache would be decoded for every piece.
func (a *Archive) frameLimit() int64 {
	return max(min(maxFrame, a.cache.max/2), blockSize)
}

// blocks returns the verified blocks, making them at the first call.
func (a *Archive) blocks() (*blocks, error) {
	return a.ready.get(func() (*blocks, error) {
		_, packed := a.random.(packed)
		switch {
		case a.direct:
			return a.randomBlocks(), nil
		case (a.random == nil || packed) && a.o.NarSize <= min(maxWhole, a.cache.max/2):
			w := &whole{fixed: fixed{size: a.o.NarSize, width: a.o.NarSize}, pass: a.boundedPass}
			return &blocks{container: w}, nil
		case a.random != nil:
			_, err := a.sum() // before a block of the cache is taken for what may last long
			return a.randomBlocks(), err
		}
		return a.spoolBlocks(), nil
	})
}

// RandomAccess reports whether any part of the NAR can be read, and verified,
// without the rest. If not, either the first read takes the whole archive, or a
// part of it is missing.
func (a *Archive) RandomAccess() bool { return a.direct && a.intact() }

// intact reports whether no part of the container is known to be missing.
func (a *Archive) intact() bool { return a.random == nil || missing(a.random, a.random.count()) == nil }

// Compression returns what the container is, by the name that narinfos use,
// whatever the narinfo of this one says.
func (a *Archive) Compression() string { return string(a.format) }

// Size returns the size of the NAR.
func (a *Archive) Size() int64 { return a.o.NarSize }

// ReadAt reads bytes of the NAR, all of them verified. It implements
// io.ReaderAt.
func (a *Archive) ReadAt(p []byte, off int64) (int, error) {
	if err := a.enter(); err != nil {
		return 0, err
	}
	defer a.leave()
	return a.readAt(p, off)
}

// respools is how often a read goes on after a spool file turned out to be bad.
const respools = 2

func (a *Archive) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset %d", a.file.name, off)
	}
	if off >= a.o.NarSize {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), a.o.NarSize-off)]
	n, err := a.readBlocks(want, off)
	for range respools {
		if err == nil || !a.respool(err) {
			break
		}
		n, err = a.readBlocks(want, off)
	}
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// readBlocks fills p from off on.
func (a *Archive) readBlocks(p []byte, off int64) (n int, err error) {
	b, err := a.blocks()
	if err != nil {
		return 0, err
	}
	if len(p) > 0 {
		a.anticipate(b, off, int64(len(p)))
	}
	for i := b.find(off); n < len(p); i++ {
		c, err := a.copyBlock(b, i, p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		n += c
	}
	return n, nil
}

// copyBlock copies from block i what it has of the NAR from off on.
func (a *Archive) copyBlock(b *blocks, i int, p []byte, off int64) (int, error) {
	if err := b.await(i); err != nil {
		a.retry(b)
		return 0, err
	}
	e, err := a.cache.get(blockKey{a, i}, b.length(i), func(dst []byte) error {
		return a.cache.asked(func() error { return b.read(i, dst) })
	})
	if err != nil {
		a.retry(b)
		return 0, err
	}
	defer a.cache.release(e)
	return copy(p, e.buf.b[off-b.start(i):]), nil
}

// Listing returns the listing of the NAR, made at the first call. It must not
// be changed. Asking for it may decode the whole container if that cannot be
// entered in the middle.
func (a *Archive) Listing() (*nar.Listing, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	return a.listing.get(func() (*nar.Listing, error) {
		if a.o.Once && !a.direct {
			return a.listInOrder()
		}
		r := &errorKeeper{a: a}
		l, err := nar.ReadListing(r, a.o.NarSize)
		switch {
		case r.err != nil:
			return nil, fmt.Errorf("list %s: %w", a.file.name, r.err)
		case err != nil: // verified, and yet no NAR
			return nil, a.file.damage(-1, -1, err)
		}
		return l, nil
	})
}

// errorKeeper reads an archive and remembers its error, to tell it from one of
// the format.
type errorKeeper struct {
	a   *Archive
	err error
}

func (r *errorKeeper) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.a.readAt(p, off)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// Close ends all use of the archive. Reads under way are waited for, those that
// decode a whole container give up early; a WriteTo ends once its writer has
// taken the block at hand. Later calls return os.ErrClosed. The Source is
// closed if it is an io.Closer, and its error returned.
func (a *Archive) Close() error {
	a.closing.Store(true)
	a.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return fmt.Errorf("close %s: %w", a.file.name, os.ErrClosed)
	}
	a.closed = true
	a.ahead.Wait()
	a.background.Wait()
	a.cache.forget(a)
	var err error
	if b := a.ready.val.Load(); b != nil && b.close != nil {
		err = b.close()
	}
	if c, ok := a.file.src.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}

// enter begins a use of src, which ends with leave.
func (a *Archive) enter() error {
	a.mu.RLock()
	if a.closed || a.closing.Load() {
		a.mu.RUnlock()
		return fmt.Errorf("read %s: %w", a.file.name, os.ErrClosed)
	}
	return nil
}

func (a *Archive) leave() { a.mu.RUnlock() }
