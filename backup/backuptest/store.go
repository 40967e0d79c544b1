// Package backuptest is what the tests of packages around backup share: a store
// without Nix, a file system whose power fails, a backup to try things on, and
// how to see whether it is whole. It knows the files of a backup, and not the
// code that it tests.
package backuptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A Store is a store directory without Nix, for the tests that run a backup
// hundreds of times to stop it everywhere. (That the store is asked rightly is
// tested with real Nix.)
type Store struct {
	t     *testing.T
	Top   string // the store directory
	Valid map[storepath.Path]nixstore.PathInfo
}

// NewStore makes an empty one.
func NewStore(t *testing.T) *Store {
	return &Store{t: t, Top: t.TempDir(), Valid: make(map[storepath.Path]nixstore.PathInfo)}
}

// Add makes a store path: a directory with one file, or just the file when name
// ends in ".txt".
func (s *Store) Add(name, content string, refs ...storepath.Path) storepath.Path {
	s.t.Helper()
	digest := sha256.Sum256([]byte(name))
	p, err := storepath.Parse(nixbase32.EncodeToString(digest[:20]) + "-" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	file := s.RealPath(p)
	if !strings.HasSuffix(name, ".txt") {
		if err := os.Mkdir(file, 0o755); err != nil {
			s.t.Fatal(err)
		}
		file = filepath.Join(file, "content")
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.Register(p, refs)
	return p
}

// Register records the NAR hash that a path has now.
func (s *Store) Register(p storepath.Path, refs []storepath.Path) {
	s.t.Helper()
	var text bytes.Buffer
	if _, _, err := nar.Dump(s.t.Context(), &text, s.RealPath(p)); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(refs)
	s.Valid[p] = nixstore.PathInfo{Path: p, NarHash: sha256.Sum256(text.Bytes()), NarSize: int64(text.Len()), References: refs}
}

// Dir implements backup.Store.
func (s *Store) Dir() string { return s.Top }

// RealPath implements backup.Store.
func (s *Store) RealPath(p storepath.Path) string { return p.In(s.Top) }

// Dump implements backup.Store.
func (s *Store) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	return nar.Dump(ctx, w, s.RealPath(p))
}

// Lock implements backup.Store: what is not valid cannot be locked.
func (s *Store) Lock(_ context.Context, paths []storepath.Path) error {
	for _, p := range paths {
		if _, ok := s.Valid[p]; !ok {
			return &nixstore.InvalidPathsError{Paths: []storepath.Path{p}}
		}
	}
	return nil
}

// Closure implements backup.Store.
func (s *Store) Closure(_ context.Context, roots []storepath.Path, _ bool) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	for todo := slices.Clone(roots); len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		if !seen[p] {
			seen[p] = true
			todo = append(todo, s.Valid[p].References...)
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// Infos implements backup.Store.
func (s *Store) Infos(_ context.Context, paths []storepath.Path) ([]nixstore.PathInfo, error) {
	var infos []nixstore.PathInfo
	for _, p := range paths {
		info, ok := s.Valid[p]
		if !ok {
			return nil, fmt.Errorf("%s is not valid", p)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

var errNoDerivations = errors.New("the fake store has no derivations")

// Derivation implements backup.Store.
func (s *Store) Derivation(storepath.Path) (*nixstore.Derivation, error) {
	return nil, errNoDerivations
}

// MissingOutputs implements backup.Store.
func (s *Store) MissingOutputs(context.Context, []storepath.Path) ([]nixstore.MissingOutput, error) {
	return nil, errNoDerivations
}

// Realise implements backup.Store.
func (s *Store) Realise(context.Context, []storepath.Path) error { return errNoDerivations }
