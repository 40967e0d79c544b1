package trash

import (
	"os"
	"path/filepath"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// beside brings back what stands beside the narinfos of store paths that are in
// the cache again: logs of what built them (drvs as well), realisations, links
// to debug information. Nothing breaks without it, so what cannot be read is
// passed over.
func (r *recovery) beside(paths, drvs []storepath.Path) error {
	files := r.besideFiles()
	if len(files) == 0 {
		return nil
	}
	needed, urls := make(map[storepath.Path]bool), make(map[string]bool)
	for _, drv := range drvs {
		needed[drv] = true
	}
	for _, p := range paths {
		if info, err := r.cache.Lookup(p); err == nil {
			needed[p], needed[info.Deriver], urls[info.URL] = true, true, true
		}
	}
	var moves []move
	taken := make(map[string]bool)
	for _, f := range files {
		to := filepath.Join(r.cache.Dir(), f.name)
		if _, err := os.Lstat(to); err == nil || taken[to] || !f.belongs(needed, urls) {
			continue
		}
		taken[to] = true
		moves = append(moves, move{f.file, to})
	}
	return r.moveAll(moves)
}

// A besideFile is a file in the trash that is neither a narinfo nor a NAR.
type besideFile struct {
	name string // below the cache
	file string
}

// besideFiles lists them, those that were taken out last first.
func (r *recovery) besideFiles() (files []besideFile) {
	for _, batch := range r.batches {
		top := filepath.Join(layout.TrashDir, batch.Name, layout.CacheDir)
		dirs := []string{bincache.LogDir, bincache.RealisationDir, bincache.DebugInfoDir}
		traces, _ := disk.ReadNames(filepath.Join(r.dir, top, bincache.BuildTraceDir)) // mostly there is none
		for _, drv := range traces {
			dirs = append(dirs, filepath.Join(bincache.BuildTraceDir, drv))
		}
		for _, dir := range dirs {
			names, _ := disk.ReadNames(filepath.Join(r.dir, top, dir))
			for _, name := range names {
				name = filepath.Join(dir, name)
				if layout.Plain(r.dir, filepath.Join(top, name)) == nil {
					files = append(files, besideFile{name, filepath.Join(r.dir, top, name)})
				}
			}
		}
	}
	return files
}

// belongs reports whether a file is about one of the store paths and
// derivations, or one of the NAR files.
func (f besideFile) belongs(needed map[storepath.Path]bool, urls map[string]bool) bool {
	dir, base := filepath.Split(f.name)
	if filepath.Clean(dir) == bincache.LogDir {
		p, ok := bincache.LoggedDerivation(base)
		return ok && needed[p]
	}
	text, err := layout.ReadFile(f.file)
	if err != nil {
		return false
	}
	if filepath.Clean(dir) == bincache.DebugInfoDir {
		url, err := bincache.DebugInfoNAR(text)
		return err == nil && urls[url]
	}
	p, err := bincache.RealisationPath(text)
	return err == nil && needed[p]
}
