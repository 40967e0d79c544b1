package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
)

// An archiver carries out the jobs of a plan. Jobs are started in the order of
// the plan, several at once, and committed in that order, in groups (commit).
type archiver struct {
	fsys     disk.FS
	backup   *Backup
	lock     *lock.Lock
	keys     []SignKey // sign what is written
	store    Store
	packer   *narPacker
	repack   bool // never take over NAR files of another cache as they are
	journal  *journal
	progress *Progress
	// These are of commitAll's goroutine until run returns.
	written   int64      // bytes of NAR files committed
	conflicts []Conflict // with what another backup archived meanwhile
}

const (
	// maxGroup and maxAhead bound the temporary files, and with them what a
	// crash may cost: up to maxAhead finished jobs wait to be committed, and at
	// most maxGroup are committed by one round of fsyncs.
	maxGroup = 128
	maxAhead = 256
	// dumpers read and hash store paths; compression is spread over the cores
	// by the pool, so these mostly wait for it or for the disk.
	minDumpers = 4
)

// run carries out all jobs. After an error no temporary file is left, and
// everything that was committed stays.
func (a *archiver) run(ctx context.Context, jobs []*job) error {
	group, ctx := errgroup.WithContext(ctx)
	ahead := make(chan struct{}, maxAhead)
	work := make(chan *job)
	group.Go(func() error {
		defer close(work)
		for _, j := range jobs {
			select {
			case ahead <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case work <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range max(minDumpers, runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			for j := range work {
				j.err = a.do(ctx, j)
				close(j.done)
				if j.err != nil {
					return j.err
				}
			}
			return nil
		})
	}
	group.Go(func() error { return a.commitAll(ctx, jobs, ahead) })
	err := group.Wait()
	if err != nil {
		a.salvage(jobs)
	}
	return errors.Join(err, a.discard(jobs))
}

// salvage keeps the NAR files that were finished when a run failed: with the
// journal, the next run uses them. What cannot be kept is left to discard; the
// error that counts is the one that led here.
func (a *archiver) salvage(jobs []*job) {
	var finished []*job
	for _, j := range jobs {
		select {
		case <-j.done:
			if j.err == nil && j.temp != nil {
				finished = append(finished, j)
			}
		default:
		}
	}
	a.commitNARs(finished)
}

// discard removes the temporary files of jobs that were not committed.
func (a *archiver) discard(jobs []*job) error {
	var errs []error
	for _, j := range jobs {
		if j.temp != nil {
			errs = append(errs, j.temp.discard(a.fsys))
			j.temp = nil
		}
	}
	return errors.Join(errs...)
}

// do prepares one job: after it everything but the names is there.
func (a *archiver) do(ctx context.Context, j *job) error {
	if j.sameAs != nil {
		return nil
	}
	if j.content != nil {
		err := a.verifyContent(ctx, j)
		if !isDamage(err) {
			return err
		}
		// The store has what the cache has lost.
		j.content, j.healed = nil, err.Error()
	}
	if taken, err := a.takeOver(ctx, j); taken || err != nil {
		return err
	}
	return a.dump(ctx, j)
}

// isDamage reports whether an error says that files of the backup are damaged.
func isDamage(err error) bool {
	var inNAR *narread.DamageError
	var inCache *bincache.DamageError
	return errors.As(err, &inNAR) || errors.As(err, &inCache)
}

// verifyContent reads the NAR that a job is going to share with another store
// path, whole: what is damaged must not get another user. The listing falls
// out.
func (a *archiver) verifyContent(ctx context.Context, j *job) error {
	info := &narinfo.NarInfo{StorePath: j.info.Path}
	j.content.fill(info)
	archive, err := a.backup.Cache.Archive(info)
	if err != nil {
		return err
	}
	defer archive.Close()
	if _, err := archive.WriteTo(Interruptible(ctx, io.Discard)); err != nil {
		return err
	}
	listing, err := archive.Listing()
	if err != nil {
		return err
	}
	j.warnings = listing.Warnings(j.info.Path.In(a.store.Dir()))
	j.listing, err = listingJSON(listing)
	return err
}

// A tempNAR is a NAR file that has no name yet.
type tempNAR struct {
	file disk.File
	narFile
}

func (t *tempNAR) discard(fsys disk.FS) error {
	t.file.Close() // a second Close does no harm; the error was seen before
	return fsys.Remove(t.file.Name())
}

// dump writes the NAR of a store path to a temporary file. The NarHash that Nix
// recorded decides whether what was read is what was registered.
func (a *archiver) dump(ctx context.Context, j *job) error {
	file, err := a.fsys.CreateTemp(a.backup.cachePath(bincache.NARDir))
	if err != nil {
		return fmt.Errorf("archive %s: %w", j.info.Path, err)
	}
	j.temp = &tempNAR{file: file}
	narSum, fileSum := newSum(), newSum()
	out := a.packer.open(io.MultiWriter(file, fileSum))
	listing, warnings, err := a.store.Dump(ctx, io.MultiWriter(narSum, out, a.progress), j.info.Path)
	if err != nil {
		out.Abort()
	} else {
		err = out.Close()
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", j.info.Path, err)
	}
	if narSum.sum() != j.info.NarHash || narSum.size != j.info.NarSize {
		return &ChangedError{Path: a.store.RealPath(j.info.Path), Recorded: j.info.NarHash, Found: narSum.sum()}
	}
	j.temp.narFile = narFile{
		Compression: a.packer.compression,
		FileHash:    fileSum.sum(), FileSize: fileSum.size,
		NarHash: j.info.NarHash, NarSize: j.info.NarSize,
	}
	j.temp.URL = path.Join(bincache.NARDir, j.temp.FileHash.Nix32()+narExtension(a.packer.compression))
	j.warnings = warnings
	j.listing, err = listingJSON(listing)
	return err
}

// A ChangedError says that a store path is no longer what Nix registered.
type ChangedError struct {
	Path            string // where its files are
	Recorded, Found narinfo.Hash
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s was changed: Nix recorded the NAR hash %s, its files have %s; "+
		"\"nix-store --verify-path\" shows it, \"nix-store --repair-path\" may restore it", e.Path, e.Recorded, e.Found)
}

// listingJSON returns the .ls file, nil if the names in it cannot be JSON.
func listingJSON(l *nar.Listing) ([]byte, error) {
	var b bytes.Buffer
	err := l.WriteLS(&b)
	if errors.Is(err, nar.ErrNotUTF8) {
		return nil, nil
	}
	return b.Bytes(), err
}

func (b *Backup) cachePath(elem ...string) string {
	return filepath.Join(append([]string{b.Cache.Dir()}, elem...)...)
}

// A sum counts and hashes what is written to it.
type sum struct {
	hash hash.Hash
	size int64
}

func newSum() *sum { return &sum{hash: sha256.New()} }

func (s *sum) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	return s.hash.Write(p)
}

func (s *sum) sum() (h narinfo.Hash) {
	s.hash.Sum(h[:0])
	return h
}
