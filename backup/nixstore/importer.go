package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
)

// An Importer adds store paths to the store, as they were in another one, with
// signatures and content addresses. It is a child of its own, "nix-store --serve
// --write", so that a NAR that breaks off costs nobody else's locks:
//
//	9  AddToStoreNar  string path, string deriver or "", string NAR hash,
//	                  paths references, u64 registration time, u64 NAR size,
//	                  u64 ultimate, u64 n, n signatures, string ca or "", NAR
//	               -> u64 1
//
// Nix reads the NAR while it writes the files, and makes the path valid only if
// the NAR has the hash. Nix 2.2 and later know it; LegacySSHStore::addToStore is
// its client in all of them. Nothing is ever built or substituted.
//
// An Importer is not safe for concurrent use.
type Importer struct {
	s     *Store
	v     *server // nil: none is running
	added bool
}

// addToStoreNar is the number of the question.
const addToStoreNar = 9

// NewImporter returns an Importer. The caller closes it.
func (s *Store) NewImporter() *Importer { return &Importer{s: s} }

// Errors that Nix has words for, but no types.
var (
	// ErrUntrusted is wrapped by errors about a path that Nix does not take: the
	// user is not trusted, and no key that Nix trusts has signed it.
	ErrUntrusted = errors.New("this user may not have Nix take what no key that it trusts has signed")
	// ErrNoRights is wrapped by errors about a store that this user cannot write.
	ErrNoRights = errors.New("this user may not write to the Nix store")
)

// Add adds a path whose references are valid. The NAR is what WriteTo writes:
// if that fails, its error is returned wrapped and the path is not added. A path
// that is valid already stays as it is.
func (m *Importer) Add(ctx context.Context, info PathInfo, archive io.WriterTo) error {
	if err := m.add(ctx, info, archive); err != nil {
		return fmt.Errorf("add %s to the Nix store: %w", info.Path, err)
	}
	return nil
}

func (m *Importer) add(ctx context.Context, info PathInfo, archive io.WriterTo) (err error) {
	if m.v == nil {
		if m.v, err = m.s.serve(); err != nil {
			return err
		}
	}
	v := m.v
	var broken error // of the archive
	err = v.do(ctx, func() error {
		v.q.addToStoreNar(m.s.dir, info)
		w := &written{w: v.q}
		if _, err := archive.WriteTo(w); err != nil && w.err == nil {
			broken = err
			v.stop(waitDelay) // it meets the end of its input, and tidies up
			return err
		}
		if err := v.q.Flush(); err != nil {
			return err
		}
		_, err := v.a.uint64()
		return err
	})
	if err == nil {
		m.added = true
		return nil
	}
	m.v = nil // it is dead
	if broken != nil && ctx.Err() == nil {
		return broken
	}
	return explained(err)
}

// addToStoreNar asks the question, up to the NAR.
func (q question) addToStoreNar(storeDir string, info PathInfo) {
	q.uint64(addToStoreNar)
	q.string(info.Path.In(storeDir))
	deriver := ""
	if info.Deriver != "" {
		deriver = info.Deriver.In(storeDir)
	}
	q.string(deriver)
	q.string(info.NarHash.String())
	q.paths(storeDir, info.References)
	q.uint64(0) // registration time: now
	q.uint64(uint64(info.NarSize))
	q.bool(false) // ultimate: it was not built here
	q.uint64(uint64(len(info.Sigs)))
	for _, sig := range info.Sigs {
		q.string(sig)
	}
	q.string(info.CA)
}

// Close ends the child. Questions to the Store that follow see what was added:
// the daemon may remember for the old child that it is not valid (see serve).
// Further calls do nothing.
func (m *Importer) Close() error {
	var errs []error
	if m.v != nil {
		errs = append(errs, m.v.close())
	}
	if m.added {
		errs = append(errs, m.s.renew())
	}
	m.v, m.added = nil, false
	return errors.Join(errs...)
}

// written tells errors of a writer from those of what writes to it.
type written struct {
	w   io.Writer
	err error
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// explained wraps those of Nix's errors that need a remedy: they differ by their
// words only.
func explained(err error) error {
	var command *CommandError
	if !errors.As(err, &command) {
		return err
	}
	for _, known := range []struct {
		words string
		err   error
	}{
		{"lacks a valid signature", ErrUntrusted}, // Nix 2.0 to 2.10
		{"lacks a signature by a trusted key", ErrUntrusted},
		{"No space left on device", syscall.ENOSPC},
		{"Permission denied", ErrNoRights},
		{"Operation not permitted", ErrNoRights},
		{"Read-only file system", ErrNoRights},
		{"readonly database", ErrNoRights},
	} {
		if strings.Contains(command.Stderr, known.words) {
			return &refusal{known.err, command}
		}
	}
	return err
}

// A refusal is an error of Nix that one sentence can say: ErrUntrusted, ErrNoRights
// or syscall.ENOSPC. What else Nix wrote, warnings about settings for example, is in
// the *CommandError that it wraps.
type refusal struct {
	kind    error
	command *CommandError
}

func (r *refusal) Error() string {
	if r.kind == ErrUntrusted || r.kind == syscall.ENOSPC {
		return r.kind.Error()
	}
	return fmt.Sprintf("%v (%s)", r.kind, complaint(r.command.Stderr))
}

func (r *refusal) Unwrap() []error { return []error{r.kind, r.command} }

// complaint returns what Nix says last of what went wrong: newer versions tell
// the circumstances before it, in several lines.
func complaint(stderr string) string {
	_, text, found := strings.Cut(stderr, "error: ")
	for found {
		var rest string
		if _, rest, found = strings.Cut(text, "error: "); found {
			text = rest
		}
	}
	if text == "" {
		text = stderr
	}
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// Reserve adds temporary roots for paths that are going to be added: from when
// they are there, they stay until Close. It returns those that are valid
// already, sorted.
func (s *Store) Reserve(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	found, err := s.valid(ctx, paths, true)
	if err != nil {
		return nil, fmt.Errorf("lock store paths: %w", explained(err))
	}
	return found, nil
}

// Gone returns which of the paths, valid in Nix's database, have no files.
func (s *Store) Gone(paths []storepath.Path) ([]storepath.Path, error) { return s.gone(paths) }

// AddRoot makes the symlink link to a valid path, and a root of the garbage
// collector. Directories on the way are made. What is at link is replaced if it
// is a symlink into the store.
func (s *Store) AddRoot(ctx context.Context, p storepath.Path, link string) error {
	if err := s.addRoot(ctx, p, link); err != nil {
		return fmt.Errorf("make %s a GC root for %s: %w", link, p, explained(err))
	}
	return nil
}

func (s *Store) addRoot(ctx context.Context, p storepath.Path, link string) error {
	link, err := filepath.Abs(link)
	if err != nil {
		return err
	}
	if st, err := os.Lstat(link); err == nil && st.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("it is there and no symlink: move it away")
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o777); err != nil {
		return err
	}
	if p.IsDerivation() {
		// Realise would build it. A derivation that "was just instantiated" is what
		// nix-instantiate makes a root.
		expr := fmt.Sprintf("{ type = \"derivation\"; name = \"root\"; outputName = \"out\"; drvPath = builtins.storePath %s; }", nixString(p.In(s.dir)))
		_, err = s.nix.output(ctx, "nix-instantiate", "--expr", expr, "--add-root", link, "--indirect")
		return err
	}
	// The path is valid, so there is nothing to do but the root; should it have
	// vanished, nothing is fetched or built.
	_, err = s.nix.output(ctx, "nix-store", "--realise", p.In(s.dir), "--add-root", link, "--indirect",
		"--option", "substitute", "false", "--max-jobs", "0")
	return err
}

// nixString is a string literal of the Nix language. A store directory may have
// any character.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`).Replace(s) + `"`
}
