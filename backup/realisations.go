package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// maxRealisation bounds what is read of a realisation, in bytes.
const maxRealisation = 1 << 20

// RealisationFiles returns the names of the files in the cache, relative to it, that
// say how the paths were realised, sorted. Those that cannot be read are passed
// over.
func (s *CacheStore) RealisationFiles(ctx context.Context, paths []storepath.Path) ([]string, error) {
	s.realisedOnce.Do(func() { s.realised, s.realisedErr = s.findRealisations(ctx) })
	if s.realisedErr != nil {
		return nil, s.realisedErr
	}
	var names []string
	for _, p := range paths {
		names = append(names, s.realised[p]...)
	}
	slices.Sort(names)
	return names, nil
}

// findRealisations reads all realisations of the cache.
func (s *CacheStore) findRealisations(ctx context.Context) (map[storepath.Path][]string, error) {
	dirs := []string{bincache.RealisationDir}
	traces, err := s.list(bincache.BuildTraceDir)
	if err != nil {
		return nil, err
	}
	for _, name := range traces {
		dirs = append(dirs, path.Join(bincache.BuildTraceDir, name))
	}
	found := make(map[storepath.Path][]string)
	for _, dir := range dirs {
		names, err := s.list(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if !strings.HasSuffix(name, bincache.RealisationExt) {
				continue
			}
			name = path.Join(dir, name)
			text, err := s.ReadRealisation(name)
			if err != nil {
				continue
			}
			if p, err := bincache.RealisationPath(text); err == nil {
				found[p] = append(found[p], name)
			}
		}
	}
	return found, nil
}

// list returns what is in a directory of the cache, nothing if it is none.
func (s *CacheStore) list(dir string) ([]string, error) {
	name := s.source.cachePath(filepath.FromSlash(dir))
	if st, err := os.Lstat(name); err != nil || !st.IsDir() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	return disk.ReadNames(name)
}

// ReadRealisation reads a file that RealisationFiles has named.
func (s *CacheStore) ReadRealisation(name string) ([]byte, error) {
	file := s.source.cachePath(filepath.FromSlash(name))
	st, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRealisation {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", file, maxRealisation)
	}
	return layout.ReadFile(file)
}

// A realisationFiler is a Store that has realisations as files; a CacheStore is.
type realisationFiler interface {
	RealisationFiles(ctx context.Context, paths []storepath.Path) ([]string, error)
	ReadRealisation(name string) ([]byte, error)
}

// A realisationStore is a Store that knows the realisations of derivations; the
// local one is.
type realisationStore interface {
	Realisations(ctx context.Context, drvs []storepath.Path) ([]nixstore.Realisation, error)
}

// A realisationFile is a realisation by the name that it has in a cache.
type realisationFile struct {
	name string
	read func() ([]byte, error)
}

// realisations returns those of the release's store paths that the store has.
func (r *runner) realisations(ctx context.Context, store Store) (files []realisationFile, err error) {
	switch from := store.(type) {
	case *SubstitutedStore:
		files, err := r.realisations(ctx, from.store)
		if err != nil {
			return nil, err
		}
		more, err := r.realisations(ctx, from.cache)
		return append(files, more...), err
	case realisationFiler:
		names, err := from.RealisationFiles(ctx, r.closure)
		if err != nil {
			return nil, fmt.Errorf("find realisations: %w", err)
		}
		for _, name := range names {
			files = append(files, realisationFile{name, func() ([]byte, error) { return from.ReadRealisation(name) }})
		}
	case realisationStore:
		found, err := from.Realisations(ctx, r.builders())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil { // "ca-derivations" is an experiment of Nix
			r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("realisations of content-addressed derivations are left out: %v", err))
		}
		for _, one := range found {
			if _, ours := slices.BinarySearch(r.closure, one.Path); ours {
				name := path.Join(bincache.RealisationDir, one.ID+bincache.RealisationExt)
				files = append(files, realisationFile{name, func() ([]byte, error) { return one.Text, nil }})
			}
		}
	}
	return files, nil
}

// builders returns the derivations that may have realisations of the release's
// store paths.
func (r *runner) builders() []storepath.Path {
	drvs := derivations(r.closure)
	for i := range r.infos {
		if info := &r.infos[i]; info.CA != "" && info.Deriver != "" {
			drvs = append(drvs, info.Deriver)
		}
	}
	return drvs
}

// archiveRealisations takes over the realisations of the release's store paths,
// byte for byte. Those that are there already stay. What
// cannot be taken over (FAT and exFAT have no colons in names) is a warning: the
// paths can be restored without.
func (r *runner) archiveRealisations(ctx context.Context, b *Backup) error {
	files, err := r.realisations(ctx, r.store)
	if err != nil {
		return err
	}
	dirs := make(map[string]bool)
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, err := r.archiveRealisation(b, file)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return fmt.Errorf("write realisation: %w", err)
		case err != nil:
			r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("realisation %s is left out: %v", file.name, err))
		default:
			dirs[dir] = true
		}
	}
	for _, dir := range sortedKeys(dirs) {
		if err := r.fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// archiveRealisation takes over one file and returns the directory that must be
// synced, also if it was there: who wrote it may have been killed before.
func (r *runner) archiveRealisation(b *Backup, file realisationFile) (dir string, err error) {
	target := b.cachePath(filepath.FromSlash(file.name))
	dir = filepath.Dir(target)
	if _, err := os.Lstat(target); err == nil {
		return dir, nil
	}
	text, err := file.read()
	if err != nil {
		return "", err
	}
	if err := disk.MkdirAll(r.fsys, b.Cache.Dir(), dir); err != nil {
		return "", err
	}
	// Beside the narinfos: there, leftovers of a crash are looked for.
	temp, err := disk.WriteTemp(r.fsys, b.Cache.Dir(), text)
	if err != nil {
		return "", err
	}
	if err := r.fsys.Rename(temp, target); err != nil {
		return "", errors.Join(err, r.fsys.Remove(temp))
	}
	return dir, nil
}
