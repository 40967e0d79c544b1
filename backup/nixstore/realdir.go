package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// ErrNotLocal is wrapped by errors about a store whose files cannot be read on
// this machine.
var ErrNotLocal = errors.New("the store's files are not on this machine")

// storeSetting returns which store Nix's commands will use: what --store is set
// to. nix.conf wins over NIX_REMOTE, so only Nix can tell. Where it will not (a
// build without the new command line), NIX_REMOTE is the best guess; it can only
// be wrong about a store that nix.conf moved, and Lock notices that.
func (s *Store) storeSetting(ctx context.Context) string {
	if s.nix.url != "" {
		return s.nix.url
	}
	feature := []string{"--extra-experimental-features", "nix-command"}
	// "config show" is newer than Nix 2.8, which says "show-config".
	out, err := s.nix.output(ctx, "nix", append(feature, "config", "show", "store")...)
	if err == nil {
		return strings.TrimSpace(string(out))
	}
	if out, err = s.nix.output(ctx, "nix", append(feature, "show-config")...); err == nil {
		for line := range strings.Lines(string(out)) {
			if setting, ok := strings.CutPrefix(line, "store = "); ok {
				return strings.TrimSpace(setting)
			}
		}
	}
	return getenv(s.nix.env, "NIX_REMOTE")
}

// A reference is a store URL taken apart as Nix does (store-reference.cc): a URL,
// or a path, or one of a few words, each with parameters after a question mark.
type reference struct {
	scheme string // "" when it is no URL
	base   string // what follows the scheme, without parameters
	params map[string]string
}

func parseReference(setting string) reference {
	r := reference{params: map[string]string{}}
	base, query, _ := strings.Cut(setting, "?")
	for _, pair := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		r.params[key] = unescape(value)
	}
	if scheme, rest, isURL := strings.Cut(base, "://"); isURL {
		r.scheme, r.base = scheme, unescape(rest)
	} else {
		r.base = base
	}
	return r
}

func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// checkLocal refuses the stores that have no files here, before any of them is
// connected to.
func checkLocal(setting string) error {
	switch parseReference(setting).scheme {
	case "", "local", "unix", "local-overlay", "mounted-ssh-ng":
		return nil
	}
	return fmt.Errorf("%w: run narvault where they are, or copy the paths here with nix copy", ErrNotLocal)
}

// realDirs returns where the files of the store may be, the likeliest first.
// The rules are those of Nix's LocalFSStoreConfig: "real" wins, then "root" with
// /nix/store below it (whatever the logical directory is), then the logical
// directory.
func realDirs(setting, storeDir string, env []string) ([]string, error) {
	r := parseReference(setting)
	if dir := r.params["real"]; dir != "" {
		return absolute(dir)
	}
	root := r.params["root"]
	switch {
	case r.scheme == "local" && r.base != "":
		root = r.base
	case r.scheme == "" && strings.Contains(r.base, "/"):
		root = r.base
	}
	if root != "" {
		return absolute(filepath.Join(root, "nix/store"))
	}
	dirs := []string{storeDir}
	if r.scheme == "" && (r.base == "" || r.base == "auto") {
		dirs = append(dirs, rootlessDir(env))
	}
	return dirs, nil
}

func absolute(dir string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	return []string{dir}, err
}

// rootlessDir is where Nix from 2.10 on puts the store of a user on a machine
// without /nix.
func rootlessDir(env []string) string {
	data := getenv(env, "XDG_DATA_HOME")
	if data == "" {
		data = filepath.Join(getenv(env, "HOME"), ".local/share")
	}
	return filepath.Join(data, "nix/root/nix/store")
}

// chooseReal returns the first candidate that holds a valid path. A store
// without any, or whose directory may not be listed, is taken on trust until
// Lock has seen a path.
func (s *Store) chooseReal(ctx context.Context, candidates []string) (string, error) {
	var exists, why = "", error(nil)
	for _, dir := range candidates {
		found, err := s.holdsValid(ctx, dir)
		switch {
		case found:
			s.reached.Store(true)
			return dir, nil
		case err == nil, errors.Is(err, fs.ErrPermission):
			if exists == "" {
				exists = dir
			}
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case why == nil:
			why = err
		}
	}
	if exists == "" {
		return "", fmt.Errorf("%w: %v", ErrNotLocal, why)
	}
	return exists, nil
}

// listBatch is how many names are read from the store directory at a time.
const listBatch = 512

// holdsValid reports whether dir has an entry that is a valid path.
func (s *Store) holdsValid(ctx context.Context, dir string) (bool, error) {
	found := false
	err := eachBatch(dir, func(paths []storepath.Path) (bool, error) {
		valid, err := s.valid(ctx, paths, false)
		found = len(valid) > 0
		return !found, err
	})
	return found, err
}

// eachBatch calls f with the store paths that dir lists, some at a time, until
// f returns false.
func eachBatch(dir string, f func([]storepath.Path) (more bool, err error)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(listBatch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var paths []storepath.Path
		for _, name := range names {
			if p, err := storepath.Parse(name); err == nil {
				paths = append(paths, p)
			}
		}
		if more, err := f(paths); err != nil || !more {
			return err
		}
	}
}

// physical returns dir without symlinks on the way to it, or dir.
func physical(dir string) string {
	if phys, err := filepath.EvalSymlinks(dir); err == nil {
		return phys
	}
	return dir
}
