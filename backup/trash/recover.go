package trash

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A recovery brings store paths back that gc put into the trash: the NAR files
// first, then the narinfos, references before those that refer to them, as a
// backup writes them. It is called under the mutex, with a lock that keeps gc
// out.
type recovery struct {
	fsys    disk.FS
	dir     string // the backup
	cache   *bincache.Cache
	batches []Batch
	found   map[storepath.Path]*recovered
}

// A recovered is a store path in the trash that can be brought back.
type recovered struct {
	info    *narinfo.NarInfo
	narInfo string // its file in the trash
	narFile string // the same of its NAR, "" if that is in the cache
	narName string // what that is called, relative to the cache
}

// BringBack brings back those of paths that the cache lacks and that the trash
// has whole, if fits accepts the narinfo, and what stands beside them, logs of
// drvs among it. It returns how many paths these were.
func BringBack(fsys disk.FS, dir string, cache *bincache.Cache, paths, drvs []storepath.Path, fits func(*narinfo.NarInfo) bool) (int, error) {
	r := recovery{fsys: fsys, dir: dir, cache: cache, found: make(map[storepath.Path]*recovered)}
	var err error
	if r.batches, _, err = List(dir); err != nil || len(r.batches) == 0 {
		return 0, err
	}
	for _, p := range paths {
		if err := r.find(p, fits); err != nil {
			return 0, err
		}
	}
	order, err := storepath.SortByReferences(slices.Sorted(maps.Keys(r.found)), func(p storepath.Path) []storepath.Path { return r.found[p].info.References })
	if err != nil {
		return 0, err
	}
	if order, err = r.closed(order); err != nil {
		return 0, err
	}
	if err := r.restore(order); err != nil {
		return 0, err
	}
	return len(order), r.beside(paths, drvs)
}

// find looks for a store path that the cache lacks in the trash.
func (r *recovery) find(p storepath.Path, fits func(*narinfo.NarInfo) bool) error {
	if has, err := r.cache.Has(p.Hash()); has || err != nil {
		return err
	}
	for _, batch := range r.batches {
		name, err := r.file(batch, p.Hash()+bincache.NarInfoExt)
		if err != nil {
			continue
		}
		text, err := layout.ReadFile(name)
		if err != nil {
			continue // it is not there, or damaged: the backup has to do without
		}
		info, err := narinfo.Parse(text)
		if err != nil || info.StorePath != p || info.StoreDir != r.cache.StoreDir() || bincache.CheckURL(info.URL) != nil || !fits(info) {
			continue
		}
		if narFile, narName, ok := r.findNAR(info); ok {
			r.found[p] = &recovered{info: info, narInfo: name, narFile: narFile, narName: narName}
			return nil
		}
	}
	return nil
}

// findNAR looks for the NAR file of info, in the cache and in the trash, where it
// may be called as its URL without the query (bincache.Cache.NARName).
func (r *recovery) findNAR(info *narinfo.NarInfo) (file, name string, ok bool) {
	if r.cache.StatNAR(info) == nil {
		return "", "", true
	}
	names := []string{info.URL}
	if short, _, query := strings.Cut(info.URL, "?"); query && bincache.CheckURL(short) == nil {
		names = append(names, short)
	}
	for _, batch := range r.batches {
		for _, name := range names {
			file, err := r.file(batch, filepath.FromSlash(name))
			if err != nil {
				continue
			}
			st, err := os.Lstat(file)
			if err == nil && st.Mode().IsRegular() && (info.FileSize == 0 || st.Size() == info.FileSize) {
				return file, name, true
			}
		}
	}
	return "", "", false
}

// file returns the path of a file of the cache in a directory of the trash.
func (r *recovery) file(in Batch, name string) (string, error) {
	name = filepath.Join(layout.TrashDir, in.Name, layout.CacheDir, name)
	return filepath.Join(r.dir, name), layout.Plain(r.dir, name)
}

// closed leaves out what refers to something that is neither in the cache nor
// brought back.
func (r *recovery) closed(order []storepath.Path) (rest []storepath.Path, err error) {
	for _, p := range order {
		whole := true
		for _, ref := range r.found[p].info.References {
			if ref == p || r.found[ref] != nil {
				continue
			}
			has, err := r.cache.Has(ref.Hash())
			if err != nil {
				return nil, err
			}
			whole = whole && has
		}
		if whole {
			rest = append(rest, p)
		} else {
			delete(r.found, p)
		}
	}
	return rest, nil
}

// restore moves the files back.
func (r *recovery) restore(order []storepath.Path) error {
	var nars []move
	for _, p := range order {
		if f := r.found[p]; f.narFile != "" {
			nars = append(nars, move{f.narFile, filepath.Join(r.cache.Dir(), filepath.FromSlash(f.narName))})
		}
	}
	if err := r.moveAll(nars); err != nil {
		return err
	}
	for _, level := range storepath.Levels(order, func(p storepath.Path) []storepath.Path { return r.found[p].info.References }) {
		var infos []move
		for _, i := range level {
			f := r.found[order[i]]
			name := filepath.Join(r.cache.Dir(), order[i].Hash())
			listing := f.narInfo[:len(f.narInfo)-len(bincache.NarInfoExt)] + bincache.ListingExt
			infos = append(infos, move{listing, name + bincache.ListingExt}, move{f.narInfo, name + bincache.NarInfoExt})
		}
		if err := r.moveAll(infos); err != nil {
			return err
		}
	}
	return nil
}

type move struct{ from, to string }

// moveAll moves files and makes that durable. What is gone already was shared
// with one before, or is a listing that there never was.
func (r *recovery) moveAll(moves []move) error {
	sources, targets := make(map[string]bool), make(map[string]bool)
	for _, m := range moves {
		if dir := filepath.Dir(m.to); !targets[dir] {
			if err := disk.MkdirAll(r.fsys, r.dir, dir); err != nil {
				return err
			}
		}
		err := r.fsys.Rename(m.from, m.to)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("bring back %s from the trash: %w", path.Base(m.to), err)
		}
		sources[filepath.Dir(m.from)], targets[filepath.Dir(m.to)] = true, true
	}
	return disk.SyncDirs(r.fsys, targets, sources)
}
