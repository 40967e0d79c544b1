package narread

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/narvault/narvault/narread/spool"
)

// spooled is a NAR that is decoded, in the background, to a file of package
// spool, or that was found there.
//
// What a reader gets must have been verified, and a container in one piece has
// no checksum before its end: xz, zstd, gzip and lz4 have one there, brotli has
// none, and that of a bzip2 block comes behind up to 46 MB of content. The
// NarHash, too, says nothing before the last byte. So when a NAR is decoded for
// the first time, readers wait until all of it is and its NarHash is right.
// There is no way round that but to serve bytes that may be wrong. It happens
// once: after that the hash of every block is known, to the spool and to the
// index, and if the NAR has to be decoded again each reader waits for its own
// block only.
type spooled struct {
	fixed

	mu      sync.Mutex
	grown   chan struct{} // guarded by mu: closed, and replaced, when what follows changes
	avail   int           // guarded by mu: how many blocks can be read
	sums    blockSums     // guarded by mu: of these blocks, at least
	source  io.ReaderAt   // guarded by mu: where they are, nil before the first
	err     error         // guarded by mu: why there will be no more
	kept    *spool.File   // guarded by mu: the whole, nil before the end
	filling bool          // guarded by mu: more is being decoded to source
	dropped bool          // guarded by mu: source is bad, whoever fills it closes it

	using  sync.RWMutex // held for reading while source is read
	closed bool         // guarded by using
}

// spoolError says that a spool file cannot be read, or is not what was written
// to it. The container may be as good as ever.
type spoolError struct {
	blocks *blocks
	err    error
}

func (e *spoolError) Error() string { return e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

func (s *spooled) decode(i int, dst []byte) (bool, error) {
	s.mu.Lock()
	source, avail, err := s.source, s.avail, s.err
	s.mu.Unlock()
	if i >= avail {
		return false, errors.Join(err, fmt.Errorf("block %d is not decoded yet", i)) // await was not called
	}
	s.using.RLock()
	defer s.using.RUnlock()
	if s.closed {
		return false, os.ErrClosed
	}
	_, err = source.ReadAt(dst, s.start(i))
	return false, err
}

// available reports whether block i can be read.
func (s *spooled) available(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i < s.avail
}

// await returns when block i can be read, or never will be.
func (s *spooled) await(i int) error {
	for {
		s.mu.Lock()
		avail, err, grown := s.avail, s.err, s.grown
		s.mu.Unlock()
		switch {
		case i < avail:
			return nil
		case err != nil:
			return err
		}
		<-grown
	}
}

// update changes what is guarded by mu, and wakes who waits.
func (s *spooled) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.grown)
	s.grown = make(chan struct{})
}

// complete makes all blocks those of f.
func (s *spooled) complete(f *spool.File) {
	s.update(func() { s.source, s.kept, s.sums, s.avail = f, f, blockSums(f.Sums()), s.count() })
}

func (s *spooled) blockSums() (blockSums, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sums, nil
}

// whole returns the file if all of the NAR is in it.
func (s *spooled) whole() *spool.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// close closes the file, when nobody reads it any more.
func (s *spooled) close() error {
	s.using.Lock()
	defer s.using.Unlock()
	s.mu.Lock()
	source := s.source
	s.mu.Unlock()
	if s.closed || source == nil {
		return nil
	}
	s.closed = true
	if w, ok := source.(*spool.Writer); ok {
		return w.Abort()
	}
	return source.(*spool.File).Close()
}

// spoolKey is under what the NAR is in the spool.
func (a *Archive) spoolKey() spool.Key { return spool.Key{Hash: a.o.NarHash, Size: a.o.NarSize} }

// newSpooled returns blocks of which none is there yet.
func (a *Archive) newSpooled() *blocks {
	s := &spooled{fixed: fixed{size: a.o.NarSize, width: blockSize}, grown: make(chan struct{})}
	b := &blocks{container: s, sums: s.blockSums, close: s.close}
	b.fail = func(i int, err error) error {
		return &spoolError{b, fmt.Errorf("read block %d of the spool of %s: %w", i, a.file.name, err)}
	}
	return b
}

// spoolBlocks begins to decode the container into the spool, unless the NAR is
// there.
func (a *Archive) spoolBlocks() *blocks {
	b := a.newSpooled()
	s := b.container.(*spooled)
	if f := a.o.Spool.Open(a.spoolKey()); f != nil {
		s.complete(f)
		return b
	}
	s.filling = true
	a.background.Add(1) // the caller is between enter and leave
	go func() {
		defer a.background.Done()
		s.filled(guard(func() error { return a.fillSpool(s) }))
	}()
	return b
}

// filled ends what spoolBlocks began. After damage, what comes before it can still
// be read.
func (s *spooled) filled(err error) {
	var unused bool
	s.update(func() {
		s.filling, s.err = false, cmp.Or(s.err, err)
		unused = s.dropped || err != nil && !isDamage(err)
	})
	if unused {
		s.close()
	}
}

// drop gives up a file that turned out to be bad, because of err. Whoever is still
// decoding to it gives up, too: it must not be closed, nor its name be used by
// the next one, before that.
func (s *spooled) drop(err error) {
	var filling bool
	s.update(func() { s.err, s.dropped, filling = cmp.Or(s.err, err), true, s.filling })
	if !filling {
		s.close()
	}
}

// fillSpool decodes the container, in the spool or, when that takes no more, to
// a temporary file.
func (a *Archive) fillSpool(s *spooled) error {
	f, w, err := a.acquireSpool()
	switch {
	case err != nil:
		return fmt.Errorf("decode %s: %w", a.file.name, err)
	case f != nil:
		s.complete(f)
		return nil
	}
	err = a.decodeTo(s, w)
	var full *spool.WriteError
	if a.o.Spool != nil && errors.As(err, &full) && !s.available(0) {
		w, terr := spool.Temporary("", a.spoolKey())
		if terr != nil {
			return fmt.Errorf("decode %s: %w", a.file.name, err)
		}
		err = a.decodeTo(s, w)
	}
	return err
}

func (a *Archive) acquireSpool() (*spool.File, *spool.Writer, error) {
	if a.o.Spool == nil {
		w, err := spool.Temporary(a.o.SpoolDir, a.spoolKey())
		return nil, w, err
	}
	return a.o.Spool.Acquire(a.ctx, a.spoolKey())
}

// decodeTo decodes the container to w. Where the sums of the blocks are known,
// each of them can be read as soon as it is there.
func (a *Archive) decodeTo(s *spooled, w *spool.Writer) error {
	known := a.knownSums()
	sums := make(spool.Sums, 0, min(s.count(), 1<<16))
	err := a.boundedPass(func(p []byte) error {
		if err := s.failure(); err != nil {
			return err // it was dropped
		}
		i, sum := len(sums), xxhash.Sum64(p)
		if known != nil && known[i] != sum {
			return a.file.damage(-1, -1, errChanged)
		}
		if _, err := w.Write(p); err != nil {
			return fmt.Errorf("decode %s: %w", a.file.name, err)
		}
		sums = append(sums, sum)
		if known != nil {
			s.update(func() { s.source, s.sums, s.avail = w, known, i+1 })
		}
		return nil
	})
	if err == nil {
		s.complete(w.Commit(sums))
		return nil
	}
	if !s.available(0) {
		w.Abort()
	} else {
		w.Forsake()
	}
	return err
}

// spooledWhole returns the blocks of the NAR if it is in the spool, and what
// closes them, else nil.
func (a *Archive) spooledWhole() (b *blocks, done func() error) {
	if b := a.ready.val.Load(); b != nil && b.whole() {
		return b, func() error { return nil }
	}
	if a.random != nil || a.o.Spool == nil {
		return nil, nil
	}
	f := a.o.Spool.Open(a.spoolKey())
	if f == nil {
		return nil, nil
	}
	b = a.newSpooled()
	b.container.(*spooled).complete(f)
	return b, b.close
}

// knownSums returns the hashes of the blocks of a container in one piece, if they
// are known from the time before.
func (a *Archive) knownSums() blockSums {
	if sums := a.sums.val.Load(); sums != nil {
		return *sums
	}
	return blockSums(a.o.Spool.Sums(a.spoolKey()))
}

// failure returns why there will be no more blocks, nil as long as there may.
func (s *spooled) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// retry lets the next reader try again if b failed because of something that may
// pass.
func (a *Archive) retry(b *blocks) {
	if s, ok := b.container.(*spooled); ok && s.failure() != nil && !isDamage(s.failure()) {
		a.ready.forget(b)
	}
}

// respool discards the spool file that err is about, and reports whether it was
// about one: then the NAR can be read again, from another.
func (a *Archive) respool(err error) bool {
	var e *spoolError
	if !errors.As(err, &e) {
		return false
	}
	s := e.blocks.container.(*spooled)
	if f := s.whole(); f != nil {
		f.Discard()
	}
	a.ready.forget(e.blocks)
	s.drop(err)
	return true
}
