package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A CacheStore is the Store that a backup or binary cache makes: its store
// paths can be backed up elsewhere without a Nix store. It can build nothing.
// Its methods may be called concurrently.
type CacheStore struct {
	source *Backup
	asIs   bool

	realisedOnce sync.Once // makes the next two
	realised     map[storepath.Path][]string
	realisedErr  error
}

var _ Store = (*CacheStore)(nil)

// FromCache returns the store of source, which stays the caller's to close.
//
// Unless a compression is asked for, NAR files are taken over as they are where
// any part of them can be read without the rest, with asIs all of them; the
// others are packed anew.
func FromCache(source *Backup, asIs bool) *CacheStore { return &CacheStore{source: source, asIs: asIs} }

// Dir returns the store directory of the cache.
func (s *CacheStore) Dir() string { return s.source.Cache.StoreDir() }

// where names the place for messages.
func (s *CacheStore) where() string { return "in the cache " + s.source.Cache.Dir() }

// RealPath names the NAR file of a path, or its narinfo if that cannot be read.
func (s *CacheStore) RealPath(p storepath.Path) string {
	if info, err := s.source.Cache.Lookup(p); err == nil {
		return s.source.cachePath(filepath.FromSlash(info.URL))
	}
	return s.source.cachePath(p.Hash() + ".narinfo")
}

// Lock finds out whether the cache has the paths. It protects them from nobody;
// that is for who opened the source (Backup.Lock). What vanishes meanwhile is an
// error.
func (s *CacheStore) Lock(_ context.Context, paths []storepath.Path) error {
	var missing []storepath.Path
	for _, p := range paths {
		if has, err := s.has(p); err != nil {
			return err
		} else if !has {
			missing = append(missing, p)
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return fmt.Errorf("%s: %w", s.source.Cache.Dir(), &nixstore.InvalidPathsError{Paths: missing})
	}
	return nil
}

// has reports whether the cache has a store path by this name.
func (s *CacheStore) has(p storepath.Path) (bool, error) {
	_, err := s.source.Cache.Lookup(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Closure returns what roots refer to, through the References of the narinfos,
// and with includeOutputs also the outputs of the derivations among them that
// the cache has, with what these refer to.
func (s *CacheStore) Closure(ctx context.Context, roots []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	closure, err := s.source.PathClosure(roots)
	for err == nil && includeOutputs {
		var outputs []storepath.Path
		if outputs, err = s.outputs(ctx, closure); err != nil {
			break
		}
		more := subtract(outputs, closure)
		if len(more) == 0 {
			break
		}
		closure, err = s.source.PathClosure(slices.Concat(closure, more))
	}
	return closure, err
}

// outputs returns the outputs of the derivations among paths that the cache
// has, sorted.
func (s *CacheStore) outputs(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	var found []storepath.Path
	err := s.eachOutput(ctx, derivations(paths), func(o nixstore.MissingOutput, has bool) {
		if has {
			found = append(found, o.Path)
		}
	})
	slices.Sort(found)
	return slices.Compact(found), err
}

// eachOutput calls f for each output of drvs, in their order and by name.
func (s *CacheStore) eachOutput(ctx context.Context, drvs []storepath.Path, f func(o nixstore.MissingOutput, has bool)) error {
	for _, drv := range drvs {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := s.Derivation(drv)
		if err != nil {
			return err
		}
		for _, name := range d.OutputNames() {
			o := nixstore.MissingOutput{Drv: drv, Output: name, Path: d.Outputs[name]}
			has := false
			if o.Path != "" {
				if has, err = s.has(o.Path); err != nil {
					return err
				}
			}
			f(o, has)
		}
	}
	return nil
}

// Infos returns what the narinfos say.
func (s *CacheStore) Infos(ctx context.Context, paths []storepath.Path) ([]nixstore.PathInfo, error) {
	infos := make([]nixstore.PathInfo, 0, len(paths))
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		info, err := s.source.Cache.Lookup(p)
		if err != nil {
			return nil, s.source.promised(p, err)
		}
		refs := slices.Clone(info.References)
		slices.Sort(refs)
		infos = append(infos, nixstore.PathInfo{
			Path: p, NarHash: info.NarHash, NarSize: info.NarSize, References: slices.Compact(refs),
			Deriver: info.Deriver, Sigs: info.Sigs, CA: info.CA,
		})
	}
	return infos, nil
}

// Derivation reads a derivation out of its NAR.
func (s *CacheStore) Derivation(p storepath.Path) (*nixstore.Derivation, error) {
	node, err := s.source.openNode(p)
	if err != nil {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	defer node.Close()
	e := node.Listing.Entry(0)
	if e.Type != nar.Regular || e.Size > nixstore.MaxDerivation {
		return nil, fmt.Errorf("read derivation %s: not a file of at most %d bytes", p, nixstore.MaxDerivation)
	}
	text := make([]byte, e.Size)
	if _, err := node.Archive.ReadAt(text, e.Offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	return nixstore.ParseDerivation(text, s.Dir(), p)
}

// MissingOutputs returns the outputs of drvs that the cache lacks.
func (s *CacheStore) MissingOutputs(ctx context.Context, drvs []storepath.Path) (missing []nixstore.MissingOutput, err error) {
	err = s.eachOutput(ctx, derivations(drvs), func(o nixstore.MissingOutput, has bool) {
		if !has {
			missing = append(missing, o)
		}
	})
	return missing, err
}

// Realise is an error: a binary cache cannot build.
func (s *CacheStore) Realise(context.Context, []storepath.Path) error {
	return fmt.Errorf("%s is a binary cache, which cannot build: leave out --force-realise", s.source.Cache.Dir())
}

// Dump unpacks the NAR of a path, and verifies it.
func (s *CacheStore) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	info, err := s.source.Cache.Lookup(p)
	if err != nil {
		return nil, nil, s.source.promised(p, err)
	}
	archive, err := s.source.Cache.Archive(info)
	if err != nil {
		return nil, nil, err
	}
	defer archive.Close()
	return unpackNAR(ctx, w, archive, p.In(s.Dir()))
}

// packed opens the NAR file of a path if it is to be taken over as it is; nil
// if it is not.
func (s *CacheStore) packed(p storepath.Path) (*packedNAR, error) {
	info, err := s.source.Cache.Lookup(p)
	if err != nil {
		return nil, s.source.promised(p, err)
	}
	archive, err := s.source.Cache.Archive(info)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	if !s.asIs && !archive.RandomAccess() {
		return nil, nil
	}
	f, _, err := s.source.Cache.OpenNAR(info)
	if err != nil {
		return nil, err
	}
	return &packedNAR{f, s.RealPath(p), archive.Compression(), info.FileHash}, nil
}

// unpackNAR writes the NAR in an archive to w, verified, and makes its listing
// on the way. The warnings are those of Listing.Warnings, below root.
func unpackNAR(ctx context.Context, w io.Writer, archive *narread.Archive, root string) (*nar.Listing, []string, error) {
	pr, pw := io.Pipe()
	lister := newLister(pr)
	_, err := archive.WriteTo(io.MultiWriter(Interruptible(ctx, w), pw))
	pw.Close()
	listing, listErr := lister.wait()
	if err != nil {
		return nil, nil, err
	}
	if listErr != nil { // verified, and yet no NAR
		return nil, nil, listErr
	}
	return listing, listing.Warnings(root), nil
}

// A lister makes the listing of a NAR that is streamed by.
type lister struct {
	done    chan struct{}
	listing *nar.Listing
	err     error
}

func newLister(r io.Reader) *lister {
	l := &lister{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.listing, l.err = nar.NewReader(r, nar.ReaderOptions{}).Listing()
		io.Copy(io.Discard, r) // whoever writes must not wait for us
	}()
	return l
}

func (l *lister) wait() (*nar.Listing, error) {
	<-l.done
	return l.listing, l.err
}
