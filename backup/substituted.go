package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A SubstitutedStore is a Store that has what another one has, and takes what
// that one lacks from a binary cache, as Nix does from a substituter. Nothing
// gets into the store by it. Its methods may be called concurrently.
type SubstitutedStore struct {
	store Store
	cache *CacheStore

	mu    sync.Mutex
	lacks map[storepath.Path]bool // guarded by mu: whether the store lacks a path that was asked for
}

var _ Store = (*SubstitutedStore)(nil)

// Substituted returns store, which may be a SubstitutedStore itself, with cache as
// its substituter; both stay the caller's to close. They must be of the same store
// directory.
func Substituted(store Store, cache *CacheStore) (*SubstitutedStore, error) {
	if store.Dir() != cache.Dir() {
		return nil, fmt.Errorf("%s is of the store directory %s, the Nix store is %s: it has nothing that could be missing there",
			cache.source.Cache.Dir(), cache.Dir(), store.Dir())
	}
	return &SubstitutedStore{store: store, cache: cache, lacks: make(map[storepath.Path]bool)}, nil
}

// Dir returns the store directory.
func (s *SubstitutedStore) Dir() string { return s.store.Dir() }

// where names the places for messages.
func (s *SubstitutedStore) where() string { return placeOf(s.store) + ", nor " + s.cache.where() }

// split tells paths that the store has from those that it lacks. The former are
// locked by it: what is there now stays there.
func (s *SubstitutedStore) split(ctx context.Context, paths []storepath.Path) (here, there []storepath.Path, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unknown []storepath.Path
	for _, p := range paths {
		if _, known := s.lacks[p]; !known {
			unknown = append(unknown, p)
		}
	}
	if len(unknown) > 0 {
		err := s.store.Lock(ctx, unknown)
		var invalid *nixstore.InvalidPathsError
		if err != nil && !errors.As(err, &invalid) {
			return nil, nil, err
		}
		for _, p := range unknown {
			s.lacks[p] = false
		}
		if invalid != nil {
			for _, p := range invalid.Paths {
				s.lacks[p] = true
			}
		}
	}
	for _, p := range paths {
		if s.lacks[p] {
			there = append(there, p)
		} else {
			here = append(here, p)
		}
	}
	return here, there, nil
}

// Lacks reports whether the store lacks a path that was asked for before.
func (s *SubstitutedStore) Lacks(p storepath.Path) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lacks[p]
}

// of returns which of the two has a path that was asked for before.
func (s *SubstitutedStore) of(p storepath.Path) Store {
	if s.Lacks(p) {
		return s.cache
	}
	return s.store
}

// RealPath says where the content of a path is.
func (s *SubstitutedStore) RealPath(p storepath.Path) string { return s.of(p).RealPath(p) }

// Dump writes the NAR of a path from where it is.
func (s *SubstitutedStore) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	return s.of(p).Dump(ctx, w, p)
}

// packed opens the NAR file of a path if it is to be taken over as it is; nil
// if it is not.
func (s *SubstitutedStore) packed(p storepath.Path) (*packedNAR, error) {
	if from, ok := s.of(p).(packer); ok {
		return from.packed(p)
	}
	return nil, nil
}

// Lock locks paths in the store; those that it lacks have to be in the cache.
func (s *SubstitutedStore) Lock(ctx context.Context, paths []storepath.Path) error {
	_, there, err := s.split(ctx, paths)
	if err != nil {
		return err
	}
	return s.cache.Lock(ctx, there)
}

// Closure returns what roots refer to, in the store and in the cache, and with
// includeOutputs also the outputs of the derivations among them that either has.
func (s *SubstitutedStore) Closure(ctx context.Context, roots []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	closure := make(map[storepath.Path]bool)
	for next := roots; len(next) > 0; {
		found, refs, err := s.refer(ctx, next)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(p storepath.Path) bool { return closure[p] })
		for _, p := range found {
			closure[p] = true
		}
		if includeOutputs {
			outputs, _, err := s.outputs(ctx, derivations(found))
			if err != nil {
				return nil, err
			}
			refs = append(refs, outputs...)
		}
		slices.Sort(refs)
		next = slices.DeleteFunc(slices.Compact(refs), func(p storepath.Path) bool { return closure[p] })
	}
	return sortedKeys(closure), nil
}

// refer returns paths with all that the store has them refer to, and what those
// of the cache refer to, which may be in the store again.
func (s *SubstitutedStore) refer(ctx context.Context, paths []storepath.Path) (found, refs []storepath.Path, err error) {
	here, there, err := s.split(ctx, paths)
	if err != nil {
		return nil, nil, err
	}
	if len(here) > 0 {
		if found, err = s.store.Closure(ctx, here, false); err != nil {
			return nil, nil, err
		}
	}
	infos, err := s.cache.Infos(ctx, there)
	for _, info := range infos {
		refs = append(refs, info.References...)
	}
	return append(found, there...), refs, err
}

// outputs returns the outputs of drvs that the store or the cache has, and those
// that neither has, in the order of drvs and by name.
func (s *SubstitutedStore) outputs(ctx context.Context, drvs []storepath.Path) (found []storepath.Path, missing []nixstore.MissingOutput, err error) {
	var outputs []nixstore.MissingOutput
	var paths []storepath.Path
	for _, drv := range drvs {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		d, err := s.Derivation(drv)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range d.OutputNames() {
			o := nixstore.MissingOutput{Drv: drv, Output: name, Path: d.Outputs[name]}
			outputs = append(outputs, o)
			if o.Path != "" {
				paths = append(paths, o.Path)
			}
		}
	}
	if _, _, err := s.split(ctx, paths); err != nil {
		return nil, nil, err
	}
	for _, o := range outputs {
		has := o.Path != ""
		if has && s.Lacks(o.Path) {
			if has, err = s.cache.has(o.Path); err != nil {
				return nil, nil, err
			}
		}
		if has {
			found = append(found, o.Path)
		} else {
			missing = append(missing, o)
		}
	}
	return found, missing, nil
}

// MissingOutputs returns the outputs of drvs that neither has.
func (s *SubstitutedStore) MissingOutputs(ctx context.Context, drvs []storepath.Path) ([]nixstore.MissingOutput, error) {
	_, missing, err := s.outputs(ctx, derivations(drvs))
	return missing, err
}

// Infos returns what the store knows about the paths that it has, and what the
// narinfos say about the others.
func (s *SubstitutedStore) Infos(ctx context.Context, paths []storepath.Path) ([]nixstore.PathInfo, error) {
	here, there, err := s.split(ctx, paths)
	if err != nil {
		return nil, err
	}
	local, err := s.store.Infos(ctx, here)
	if err != nil {
		return nil, err
	}
	cached, err := s.cache.Infos(ctx, there)
	if err != nil {
		return nil, err
	}
	infos := make([]nixstore.PathInfo, 0, len(paths))
	for _, p := range paths {
		from := &local
		if s.Lacks(p) {
			from = &cached
		}
		infos = append(infos, (*from)[0])
		*from = (*from)[1:]
	}
	return infos, nil
}

// Derivation reads a derivation from where it is.
func (s *SubstitutedStore) Derivation(p storepath.Path) (*nixstore.Derivation, error) {
	return s.of(p).Derivation(p)
}

// Realise is an error: what was collected is to be taken from the cache.
func (s *SubstitutedStore) Realise(ctx context.Context, drvs []storepath.Path) error {
	return s.cache.Realise(ctx, drvs)
}

// logFile is that of the cache, or of the store if that has any as files.
func (s *SubstitutedStore) logFile(drv storepath.Path) string {
	file := s.cache.logFile(drv)
	if store, ok := s.store.(logStore); ok && file == "" {
		return store.logFile(drv)
	}
	return file
}
