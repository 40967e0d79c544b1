package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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

// A fakeStore is a store directory without Nix, for the tests that run a backup
// hundreds of times to stop it everywhere. (That the store is asked rightly is
// tested with real Nix.)
type fakeStore struct {
	t     *testing.T
	dir   string
	infos map[storepath.Path]nixstore.PathInfo
}

func newFakeStore(t *testing.T) *fakeStore {
	return &fakeStore{t: t, dir: t.TempDir(), infos: make(map[storepath.Path]nixstore.PathInfo)}
}

// add makes a store path: a directory with one file, or just the file when name
// ends in ".txt".
func (s *fakeStore) add(name, content string, refs ...storepath.Path) storepath.Path {
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
	s.register(p, refs)
	return p
}

// register records the NAR hash that a path has now.
func (s *fakeStore) register(p storepath.Path, refs []storepath.Path) {
	s.t.Helper()
	sum := newSum()
	if _, _, err := nar.Dump(s.t.Context(), sum, s.RealPath(p)); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(refs)
	s.infos[p] = nixstore.PathInfo{Path: p, NarHash: sum.sum(), NarSize: sum.size, References: refs}
}

func (s *fakeStore) Dir() string                      { return s.dir }
func (s *fakeStore) RealPath(p storepath.Path) string { return p.In(s.dir) }

func (s *fakeStore) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	return nar.Dump(ctx, w, s.RealPath(p))
}

func (s *fakeStore) Lock(_ context.Context, paths []storepath.Path) error {
	for _, p := range paths {
		if _, ok := s.infos[p]; !ok {
			return &nixstore.InvalidPathsError{Paths: []storepath.Path{p}}
		}
	}
	return nil
}

func (s *fakeStore) Closure(_ context.Context, roots []storepath.Path, _ bool) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	for todo := slices.Clone(roots); len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		if !seen[p] {
			seen[p] = true
			todo = append(todo, s.infos[p].References...)
		}
	}
	return sortedKeys(seen), nil
}

func (s *fakeStore) Infos(_ context.Context, paths []storepath.Path) ([]nixstore.PathInfo, error) {
	var infos []nixstore.PathInfo
	for _, p := range paths {
		info, ok := s.infos[p]
		if !ok {
			return nil, fmt.Errorf("%s is not valid", p)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

var errNoDerivations = errors.New("the fake store has no derivations")

func (s *fakeStore) Derivation(storepath.Path) (*nixstore.Derivation, error) {
	return nil, errNoDerivations
}

func (s *fakeStore) MissingOutputs(context.Context, []storepath.Path) ([]nixstore.MissingOutput, error) {
	return nil, errNoDerivations
}

func (s *fakeStore) Realise(context.Context, []storepath.Path) error { return errNoDerivations }
