package nixstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
)

// ErrNotInStore is wrapped by Resolve's error for a path that is outside of the
// store and leads to nowhere inside.
var ErrNotInStore = errors.New("is not in the Nix store")

// ErrAmbiguous is wrapped by Resolve's error for a hash that several paths have.
var ErrAmbiguous = errors.New("is ambiguous")

// maxLinks bounds how many symlinks Resolve follows; Linux itself stops at 40.
const maxLinks = 100

// Resolve returns the store path that a command line argument means:
//
//   - an absolute store path, or a path below one: that store path. In a chroot
//     store both the logical and the real path are understood.
//   - a path, relative or absolute, of a symlink that leads into the store:
//     result, profiles, /run/current-system. As in Nix, links are followed one
//     step at a time and only until the path is inside the store; a store path
//     that is a symlink itself is not followed.
//   - a hash, or the base name of a store path.
//
// An argument without a slash is a hash or a base name if it looks like one. The
// files must exist, but whether the path is valid is for Lock to say. Errors
// name the argument; they wrap ErrNotInStore, ErrAmbiguous or fs.ErrNotExist.
func (s *Store) Resolve(arg string) (storepath.Path, error) {
	p, err := s.resolve(arg)
	if err != nil {
		return "", fmt.Errorf("store path argument %q: %w", arg, err)
	}
	return p, nil
}

func (s *Store) resolve(arg string) (storepath.Path, error) {
	if arg == "" {
		return "", fmt.Errorf("is empty: %w", ErrNotInStore)
	}
	if storepath.ValidHash(arg) {
		return s.byHash(arg)
	}
	if p, err := storepath.Parse(arg); err == nil {
		return s.existing(p)
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	return s.follow(path)
}

// byHash looks the hash up in the directory, where also lock files and what a
// build left behind may begin with it: Nix's database decides then.
func (s *Store) byHash(hash string) (storepath.Path, error) {
	var found []storepath.Path
	err := eachBatch(s.real, func(paths []storepath.Path) (bool, error) {
		for _, p := range paths {
			if p.Hash() == hash {
				found = append(found, p)
			}
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		valid, err := s.valid(s.life, found, false)
		if err != nil {
			return "", err
		}
		if len(valid) > 0 {
			found = valid
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no store path in %s has this hash: %w", s.real, fs.ErrNotExist)
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	return "", fmt.Errorf("%w: %s", ErrAmbiguous, found)
}

// existing returns p if it has files.
func (s *Store) existing(p storepath.Path) (storepath.Path, error) {
	if _, err := os.Lstat(s.RealPath(p)); err != nil {
		return "", fmt.Errorf("%s does not exist: %w", s.RealPath(p), err)
	}
	return p, nil
}

// follow expands symlinks until the text of the path is inside the store.
func (s *Store) follow(path string) (storepath.Path, error) {
	for range maxLinks {
		base, inside, err := s.inside(path)
		if err != nil {
			return "", err
		}
		if inside {
			return s.existing(base)
		}
		next, err := step(path)
		if err != nil {
			return "", err
		}
		if next == "" {
			return "", fmt.Errorf("%s %w %s", path, ErrNotInStore, s.dir)
		}
		path = next
	}
	return "", syscall.ELOOP
}

// inside returns the store path that the text of path is in.
func (s *Store) inside(path string) (p storepath.Path, inside bool, err error) {
	for _, dir := range []string{s.dir, s.real, s.phys} {
		if path == dir {
			return "", false, fmt.Errorf("is the store directory itself: %w", ErrNotInStore)
		}
		if below, ok := strings.CutPrefix(path, dir+"/"); ok {
			base, _, _ := strings.Cut(below, "/")
			if p, err = storepath.Parse(base); err != nil {
				return "", false, fmt.Errorf("%w: %v", ErrNotInStore, err)
			}
			return p, true, nil
		}
	}
	return "", false, nil
}

// step expands one symlink of a clean absolute path: the last component if it
// is one, as Nix does, so that ~/.nix-profile/bin/hello is the package hello and
// not the profile; otherwise the first one on the way, which Nix refuses, so
// that /run/current-system/sw is something as well. "" means that there is none.
func step(path string) (string, error) {
	target, err := os.Readlink(path)
	if err == nil {
		// ".." is relative to where the link really is.
		if !slices.Contains(strings.Split(target, "/"), "..") {
			return join(path, target), nil
		}
		if next := stepAbove(path); next != "" {
			return next, nil
		}
		return join(path, target), nil
	}
	if next := stepAbove(path); next != "" {
		return next, nil
	}
	if errors.Is(err, syscall.EINVAL) { // it exists and is no symlink
		return "", nil
	}
	return "", err
}

// stepAbove expands the first symlink among the directories above path.
func stepAbove(path string) string {
	for i, c := range path {
		if c != '/' || i == 0 {
			continue
		}
		if target, err := os.Readlink(path[:i]); err == nil {
			return filepath.Join(join(path[:i], target), path[i:])
		}
	}
	return ""
}

// join returns where the symlink at path points to.
func join(path, target string) string {
	if filepath.IsAbs(target) {
		return filepath.Clean(target)
	}
	return filepath.Join(filepath.Dir(path), target)
}
