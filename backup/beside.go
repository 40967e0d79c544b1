package backup

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// debugInfoDir is where links from build ids to NAR files are, below cacheDir.
const debugInfoDir = "debuginfo"

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
		if info, err := r.b.Cache.Lookup(p); err == nil {
			needed[p], needed[info.Deriver], urls[info.URL] = true, true, true
		}
	}
	var moves []move
	taken := make(map[string]bool)
	for _, f := range files {
		to := r.b.cachePath(f.name)
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
		top := filepath.Join(trashDir, batch.name, cacheDir)
		dirs := []string{logDir, realisationsDir, debugInfoDir}
		traces, _ := readNames(r.b.path(top, buildTraceDir)) // mostly there is none
		for _, drv := range traces {
			dirs = append(dirs, filepath.Join(buildTraceDir, drv))
		}
		for _, dir := range dirs {
			names, _ := readNames(r.b.path(top, dir))
			for _, name := range names {
				name = filepath.Join(dir, name)
				if r.b.plain(filepath.Join(top, name)) == nil {
					files = append(files, besideFile{name, r.b.path(top, name)})
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
	if filepath.Clean(dir) == logDir {
		p, ok := loggedDerivation(base)
		return ok && needed[p]
	}
	text, err := readRegular(f.file)
	if err != nil {
		return false
	}
	if filepath.Clean(dir) == debugInfoDir {
		url, err := debugInfoURL(text)
		return err == nil && urls[url]
	}
	p, err := realisationPath(text)
	return err == nil && needed[p]
}

// loggedDerivation returns the derivation whose log a file is; the name of the
// file may say how it is compressed.
func loggedDerivation(base string) (storepath.Path, bool) {
	drv, _, _ := strings.Cut(base, ".drv")
	p, err := storepath.Parse(drv + ".drv")
	return p, err == nil
}

// debugInfoURL returns the URL of the NAR file that a link in debugInfoDir
// points to.
func debugInfoURL(text []byte) (string, error) {
	var link struct{ Archive string }
	if err := json.Unmarshal(text, &link); err != nil {
		return "", err
	}
	return path.Join(debugInfoDir, link.Archive), nil
}
