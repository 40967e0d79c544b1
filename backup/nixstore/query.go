package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// batch is how many paths go into one question. It bounds what Nix holds in
// memory for one (it reads a question whole before it answers), and how much is
// thrown away by a cancellation.
const batch = 1000

// A PathInfo is what Nix's database knows about a valid store path: all that a
// narinfo says about the NAR.
type PathInfo struct {
	Path       storepath.Path
	NarHash    narinfo.Hash
	NarSize    int64            // bytes; 0 when not known (paths from before Nix 1.0)
	References []storepath.Path // sorted, without duplicates; may include Path
	Deriver    storepath.Path   // "" when not known; it need not be valid
	Sigs       []string         // "key:base64", in Nix's order
	CA         string           // content address, "" when it is not content-addressed
}

// An InvalidPathsError names store paths that are not valid: Nix's database
// does not have them, or their files are gone.
type InvalidPathsError struct {
	Paths []storepath.Path // sorted
}

// namesShown bounds the text of errors that could name a whole closure.
const namesShown = 20

func (e *InvalidPathsError) Error() string {
	if len(e.Paths) == 1 {
		return fmt.Sprintf("store path %s is not valid", e.Paths[0])
	}
	var names []string
	for _, p := range e.Paths[:min(len(e.Paths), namesShown)] {
		names = append(names, string(p))
	}
	if more := len(e.Paths) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%d store paths are not valid: %s", len(e.Paths), strings.Join(names, ", "))
}

// invalid returns an *InvalidPathsError, or nil for none.
func invalid(paths []storepath.Path) error {
	if len(paths) == 0 {
		return nil
	}
	return &InvalidPathsError{Paths: unique(paths)}
}

// unique returns a sorted copy without duplicates.
func unique(paths []storepath.Path) []storepath.Path {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	return slices.Compact(paths)
}

// valid returns which of the paths are valid, sorted; with lock it adds
// temporary roots for all of them first, valid or not.
func (s *Store) valid(ctx context.Context, paths []storepath.Path, lock bool) ([]storepath.Path, error) {
	var found []storepath.Path
	v := s.server()
	for some := range slices.Chunk(unique(paths), batch) {
		err := v.do(ctx, func() error {
			v.q.uint64(queryValidPaths)
			v.q.bool(lock)
			v.q.bool(false) // never substitute
			v.q.paths(s.dir, some)
			if err := v.q.Flush(); err != nil {
				return err
			}
			got, err := v.a.paths()
			found = append(found, got...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// without returns the paths that are not in the sorted list.
func without(paths, list []storepath.Path) []storepath.Path {
	var rest []storepath.Path
	for _, p := range paths {
		if _, found := slices.BinarySearch(list, p); !found {
			rest = append(rest, p)
		}
	}
	return rest
}

// Lock keeps the paths, and with each all that it refers to, from being
// garbage-collected until Close (or until this process dies). Outputs of a
// derivation are not among what it refers to: lock the result of Closure.
//
// Paths that are not valid are an *InvalidPathsError that names them all; the
// others are locked then, too.
func (s *Store) Lock(ctx context.Context, paths []storepath.Path) error {
	found, err := s.valid(ctx, paths, true)
	if err != nil {
		return fmt.Errorf("lock store paths: %w", err)
	}
	gone, err := s.gone(found)
	if err != nil {
		return fmt.Errorf("lock store paths: %w", err)
	}
	if err := invalid(append(without(paths, found), gone...)); err != nil {
		return fmt.Errorf("lock store paths: %w", err)
	}
	return nil
}

// gone returns which of the paths, valid in the database, have no files. A
// daemon that does not trust us goes on remembering what was valid (see serve),
// and disks lose things. When not one has files, we look in the wrong place.
func (s *Store) gone(paths []storepath.Path) ([]storepath.Path, error) {
	var gone []storepath.Path
	for _, p := range paths {
		if _, err := os.Lstat(s.RealPath(p)); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, p)
		} else if err != nil {
			return nil, err
		}
	}
	if len(gone) < len(paths) {
		s.reached.Store(true)
	}
	if len(gone) > 0 && !s.reached.Load() {
		return nil, fmt.Errorf("%w: Nix says that %s is valid, but there is no %s",
			ErrNotLocal, gone[0].In(s.dir), s.RealPath(gone[0]))
	}
	return gone, nil
}

// Closure returns the paths that the roots refer to, directly or not, the roots
// among them, sorted; with includeOutputs also the valid outputs of every
// derivation in it. It equals nix-store --query --requisites
// [--include-outputs]. Roots that are not valid are an *InvalidPathsError.
// Nothing is locked by it: lock the roots before, the result after.
func (s *Store) Closure(ctx context.Context, roots []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	// A root that is not valid would end the child.
	found, err := s.valid(ctx, roots, false)
	if err == nil {
		err = invalid(without(roots, found))
	}
	if err != nil {
		return nil, fmt.Errorf("query closure: %w", err)
	}
	var closure []storepath.Path
	v := s.server()
	err = v.do(ctx, func() error {
		v.q.uint64(queryClosure)
		v.q.bool(includeOutputs)
		v.q.paths(s.dir, found)
		err := v.q.Flush()
		if err == nil {
			closure, err = v.a.paths()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("query closure: %w", err)
	}
	return closure, nil
}

// Infos returns what the database knows about each of the paths, in their
// order. Paths that are not valid are an *InvalidPathsError.
func (s *Store) Infos(ctx context.Context, paths []storepath.Path) ([]PathInfo, error) {
	infos := make([]PathInfo, 0, len(paths))
	var missing []storepath.Path
	for some := range slices.Chunk(paths, batch) {
		found, err := s.infos(ctx, unique(some))
		if err != nil {
			return nil, fmt.Errorf("query path infos: %w", err)
		}
		for _, p := range some {
			info, ok := found[p]
			if !ok {
				missing = append(missing, p)
			}
			infos = append(infos, info)
		}
	}
	if err := invalid(missing); err != nil {
		return nil, fmt.Errorf("query path infos: %w", err)
	}
	return infos, nil
}

// infos asks for one batch, which must be sorted and without duplicates.
func (s *Store) infos(ctx context.Context, paths []storepath.Path) (map[storepath.Path]PathInfo, error) {
	var found map[storepath.Path]PathInfo
	v := s.server()
	err := v.do(ctx, func() error {
		v.q.uint64(queryPathInfos)
		v.q.paths(s.dir, paths)
		err := v.q.Flush()
		if err == nil {
			found, err = v.a.infos(paths)
		}
		return err
	})
	return found, err
}

// infos reads the answer to QueryPathInfos for the sorted paths. Only they may
// be in it, each at most once, so an endless answer ends in an error.
func (a *answer) infos(paths []storepath.Path) (map[storepath.Path]PathInfo, error) {
	found := make(map[storepath.Path]PathInfo, min(len(paths), preallocate))
	for {
		info, ok, err := a.info()
		if err != nil || !ok {
			return found, err
		}
		if _, asked := slices.BinarySearch(paths, info.Path); !asked {
			return nil, protocolErrorf("information about %s, which was not asked for", info.Path)
		}
		if _, twice := found[info.Path]; twice {
			return nil, protocolErrorf("information about %s twice", info.Path)
		}
		found[info.Path] = info
	}
}
