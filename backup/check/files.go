package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

const (
	maxSmall   = 4 << 20 // bytes of small files that are read whole
	maxNesting = 16      // directories in a cache that are looked into
)

// files are the names in a cache, without those that the table has.
type files struct {
	nars     []string // looks like a NAR file, relative to the cache
	listings []string // hash parts
	unknown  []string // belongs to no cache
	leftover []string
	dirs     []string // at the top
}

// opened takes in what was found out by opening the backup.
func (c *checker) opened(damage []*bincache.DamageError) {
	for _, d := range damage {
		f := Finding{Kind: Config, Severity: Damage, File: c.relative(d.File), Message: d.Err.Error(),
			Remedy: "write it anew: id, created, compression and level as it was (README.md), or remove it, and the next backup does"}
		if strings.HasSuffix(d.File, bincache.InfoFile) {
			f.Kind = CacheInfo
			f.Remedy = fmt.Sprintf("write it anew: \"StoreDir: %s\" is all that it needs", c.cache.StoreDir())
		}
		c.add(f)
	}
}

// list reads the names in the cache.
func (c *checker) list(context.Context) error {
	entries, err := c.cache.ReadDir(".")
	if err != nil {
		return err
	}
	c.files = new(files)
	var hashes []string
	for _, e := range entries {
		if hash, ok := strings.CutSuffix(e.Name(), bincache.NarInfoExt); ok && storepath.ValidHash(hash) {
			hashes = append(hashes, hash)
			continue
		}
		c.sort(e)
	}
	slices.Sort(hashes)
	c.table = newTable(hashes)
	c.checkDirs()
	c.checkCacheInfo()
	c.walk(bincache.NARDir, 0)
	return nil
}

// sort puts a name at the top of the cache where it belongs.
func (c *checker) sort(e fs.DirEntry) {
	name := e.Name()
	hash, isListing := strings.CutSuffix(name, bincache.ListingExt)
	switch {
	case name == bincache.InfoFile:
	case e.IsDir():
		c.files.dirs = append(c.files.dirs, name)
	case backup.Temporary(name):
		c.files.leftover = append(c.files.leftover, name)
	case isListing && storepath.ValidHash(hash):
		c.files.listings = append(c.files.listings, hash)
	case strings.Contains(name, ".nar"):
		c.files.nars = append(c.files.nars, name)
	case slices.Contains(bincache.Dirs(), name):
		// checkDirs says what it is.
	default:
		c.files.unknown = append(c.files.unknown, name)
	}
}

// walk lists NAR files in a directory and those in it. Symlinks to directories
// are not followed: they may lead round in circles.
func (c *checker) walk(dir string, depth int) {
	entries, err := c.cache.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.add(trouble(CacheDir, c.fileName(dir), err, "make it a directory again"))
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && depth < maxNesting:
			c.walk(name, depth+1)
		case backup.Temporary(e.Name()):
			c.files.leftover = append(c.files.leftover, name)
		default:
			c.files.nars = append(c.files.nars, name)
		}
	}
}

// checkDirs looks for the directories that Nix makes when it opens a cache, and
// cannot on a read-only medium. Only for a backup of ours is it odd if one is
// missing: Nix makes those that its version knows.
func (c *checker) checkDirs() {
	for _, dir := range bincache.Dirs() {
		_, err := c.cache.Lstat(dir)
		f := Finding{Kind: CacheDir, Severity: Warning, File: c.fileName(dir), Remedy: "mkdir it; the next backup does so, too"}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.Message = "is missing: Nix cannot open the cache on a read-only medium without it"
			if c.b.Config().Version == 0 {
				f.Severity = Note
			}
		case err != nil:
			f = trouble(CacheDir, f.File, err, "")
		default:
			continue // whether it is a directory is seen when it is read
		}
		c.add(f)
	}
}

// checkCacheInfo looks at what OpenDamaged does not.
func (c *checker) checkCacheInfo() {
	f := Finding{Kind: CacheInfo, File: c.fileName(bincache.InfoFile), Remedy: "correct the line, or remove it"}
	text, err := c.cache.ReadFile(bincache.InfoFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		f.Severity, f.Message = Warning, "is missing: Nix cannot open the cache on a read-only medium without it"
		f.Remedy = fmt.Sprintf("write \"StoreDir: %s\" into it; the next backup does so, too", c.cache.StoreDir())
		c.add(f)
		return
	}
	if err != nil {
		return // OpenDamaged could read it: it went
	}
	named := false
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line), "\n"), ":")
		named = named || key == "StoreDir"
		if f.Severity, f.Message = cacheInfoProblem(key, strings.TrimSpace(value)); f.Message != "" {
			c.add(f)
		}
	}
	if !named {
		f.Severity, f.Message = Note, "does not say which store directory the cache is for: Nix takes any"
		if c.b.Config().Version != 0 {
			f.Severity = Warning // we always say it
		}
		c.add(f)
	}
}

// cacheInfoProblem says what is wrong with a line of nix-cache-info, or "".
func cacheInfoProblem(key, value string) (Severity, string) {
	switch key {
	case "StoreDir":
	case "WantMassQuery":
		if value != "0" && value != "1" {
			return Warning, fmt.Sprintf("WantMassQuery is %q, and not 0 or 1", value)
		}
	case "Priority":
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return Damage, fmt.Sprintf("Priority is %q, and not a number: Nix does not open the cache", value)
		}
	default:
		return Note, fmt.Sprintf("%q is no field that Nix knows", key)
	}
	return "", ""
}

// checkOrphans reports files that nothing refers to.
func (c *checker) checkOrphans(context.Context) error {
	hashes, err := c.cache.Hashes()
	if err != nil {
		return err
	}
	used := c.usedSince(hashes)
	pending, _ := c.b.PendingNARs() // it saves work, no more
	for _, name := range c.files.nars {
		if c.table.byURL[name] != nil || used[name] {
			continue
		}
		message := "no narinfo names it"
		if pending[name] {
			message = "no narinfo names it yet: an interrupted backup wrote it, and the next one uses it"
		}
		c.unused(Orphan, name, message, "narvault gc removes it")
	}
	for _, hash := range c.files.listings {
		if _, found := slices.BinarySearch(hashes, hash); !found {
			c.unused(Orphan, hash+bincache.ListingExt, "there is no narinfo of that name", "narvault gc removes it")
		}
	}
	for _, name := range c.files.unknown {
		c.unused(Orphan, name, "belongs to no binary cache", "")
	}
	for _, name := range c.files.leftover {
		c.unused(Leftover, name, "is a temporary file that somebody left", "narvault gc removes it")
	}
	return nil
}

// usedSince returns the NAR files of narinfos that came since the check began.
func (c *checker) usedSince(hashes []string) map[string]bool {
	used := make(map[string]bool)
	for _, hash := range hashes {
		if _, found := c.table.number(hash); found {
			continue
		}
		if info, err := c.cache.NarInfo(hash); err == nil {
			used[info.URL] = true
		}
	}
	return used
}

// settled is how long a file must have been left alone before it counts as left
// behind: it may be of a backup that is running.
const settled = time.Minute

// unused adds a note about a file unless it is new or has gone.
func (c *checker) unused(kind Kind, name, message, remedy string) {
	st, err := c.cache.Lstat(name)
	if err != nil || c.start.Sub(st.ModTime()) < settled {
		return
	}
	if c.b.Foreign() {
		remedy = ""
	}
	c.add(Finding{Kind: kind, Severity: Note, File: c.fileName(name), Message: message, Remedy: remedy})
}
