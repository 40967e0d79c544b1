package nixstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// Options say which store is meant. The zero value is the one that Nix's
// commands use by themselves.
type Options struct {
	// URL is handed to every Nix command as --store: a directory (a chroot
	// store), "daemon", "local?root=/mnt", ... "" leaves the choice to Nix's
	// environment and configuration (NIX_REMOTE, NIX_STORE_DIR, nix.conf).
	URL string
	// Env is the environment of every Nix command, PATH included; nil means
	// os.Environ().
	Env []string
	// Log gets what Realise's builds print while they print it; nil discards
	// it. It is used by one goroutine at a time.
	Log io.Writer
}

// A Store is the local Nix store. It is safe for concurrent use; questions are
// answered one after the other.
//
// When the context of a question ends, the child that answers it is killed: the
// question returns at once, later ones return the same error, and the locks are
// gone. The same goes for a child that dies or answers nonsense. Then the Store
// is good for nothing but Close.
type Store struct {
	life context.Context
	nix  commands
	log  io.Writer
	dir  string // logical store directory
	real string // where its files are
	phys string // real, without symlinks on the way to it

	// reached is set once a valid path was seen in real. Until then it may be
	// that real is another store's directory.
	reached atomic.Bool

	mu      sync.Mutex
	current *server   // answers questions
	retired []*server // only hold locks; see Realise
	closed  bool
}

// Open starts to talk to the store. ctx governs the Store's whole life, as in
// exec.CommandContext: when it ends, so do the locks. The caller must Close.
//
// Without Nix in PATH the error wraps exec.ErrNotFound and says what to do. A
// store whose files are not on this machine (ssh://, https://, ...) is
// ErrNotLocal. When Nix complains, it is a *CommandError with Nix's own words,
// and ErrNoRights as well if this user may not open the store.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{life: ctx, nix: commands{url: o.URL, env: o.Env}, log: o.Log}
	if s.nix.env == nil {
		s.nix.env = os.Environ()
	}
	if err := explained(s.open(ctx)); err != nil {
		s.Close()
		if o.URL != "" {
			return nil, fmt.Errorf("open Nix store %q: %w", o.URL, err)
		}
		return nil, fmt.Errorf("open Nix store: %w", err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if _, err := lookPath(s.nix.env, "nix-store"); err != nil {
		return err
	}
	setting := s.storeSetting(ctx)
	if err := checkLocal(setting); err != nil {
		return err
	}
	if s.dir, err = s.askDir(ctx); err != nil {
		return err
	}
	candidates, err := realDirs(setting, s.dir, s.nix.env)
	if err != nil {
		return err
	}
	if s.current, err = s.serve(); err != nil {
		return err
	}
	if s.real, err = s.chooseReal(ctx, candidates); err != nil {
		return err
	}
	s.phys = physical(s.real)
	return nil
}

// askDir returns the logical store directory. No command prints it and the
// serve protocol never mentions it, but the evaluator knows: it opens the store
// as every other command does, so --store, NIX_STORE_DIR, "?store=" and nix.conf
// are all heard, in Nix 2.8 as in the newest. It evaluates no file and touches
// no network.
func (s *Store) askDir(ctx context.Context) (string, error) {
	out, err := s.nix.output(ctx, "nix-instantiate", "--eval", "--json", "-E", "builtins.storeDir")
	if err != nil {
		return "", err
	}
	var dir string
	if err := json.Unmarshal(out, &dir); err != nil {
		return "", fmt.Errorf("nix-instantiate --eval: store directory: %v", err)
	}
	if !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" {
		return "", fmt.Errorf("nix-instantiate --eval: store directory is %q", dir)
	}
	return dir, nil
}

// serve starts a child that answers questions.
func (s *Store) serve() (*server, error) {
	cmd, err := s.nix.command(s.life, "nix-store", "--serve", "--write",
		// A Nix process remembers for an hour that a path is not valid, and for
		// a month that it is. We want to know what is true now: others build
		// and collect garbage while we run.
		"--option", "narinfo-cache-negative-ttl", "0",
		"--option", "narinfo-cache-positive-ttl", "0")
	if err != nil {
		return nil, err
	}
	return startServer(s.life, cmd, s.dir)
}

// Close releases all locks and ends the children. It waits for them, ten
// seconds each at most, and reports a child that did not exit 0, unless a
// question has already failed because of it. Further calls do nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, v := range append(s.retired, s.current) {
		if v != nil {
			errs = append(errs, v.close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close Nix store: %w", err)
	}
	return nil
}

// Dir returns the logical store directory, usually /nix/store: what store paths
// begin with, wherever their files are.
func (s *Store) Dir() string { return s.dir }

// RealPath returns where the files of a store path are. It differs from
// p.In(Dir()) in a chroot store.
func (s *Store) RealPath(p storepath.Path) string { return p.In(s.real) }

// Dump writes the NAR of a store path to w, as nar.Dump does. Lock the path
// first. Whether it still is what Nix registered, the hash of the NAR tells.
func (s *Store) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	return nar.Dump(ctx, w, s.RealPath(p))
}

// server returns the child that answers questions.
func (s *Store) server() *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// renew replaces the child that answers questions. The old one stays until
// Close because the locks are its.
func (s *Store) renew() error {
	next, err := s.serve()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		next.close()
		return fmt.Errorf("nix-store --serve: %w", os.ErrClosed)
	}
	s.retired = append(s.retired, s.current)
	s.current = next
	return nil
}
