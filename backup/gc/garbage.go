package gc

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// An Item is a file that goes, or one that nothing needs and that stays.
type Item struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"` // relative to the backup
	Size   int64  `json:"size"` // bytes
	Reason string `json:"reason"`
}

// A Kind says what a file is.
type Kind string

// The kinds, in the order in which they are taken out: what points to store
// paths and NARs before these, and narinfos before NARs, so that at no instant
// something is there that promises what is not.
const (
	RealisationKind Kind = "realisation"
	DebugInfoKind   Kind = "debuginfo"
	NarInfoKind     Kind = "narinfo"
	ListingKind     Kind = "listing"
	LogKind         Kind = "log"
	NARKind         Kind = "nar"
	LeftoverKind    Kind = "leftover"
)

// Kinds returns them all, in this order.
func Kinds() []Kind {
	return []Kind{RealisationKind, DebugInfoKind, NarInfoKind, ListingKind, LogKind, NARKind, LeftoverKind}
}

// A garbage is what the marks leave over.
type garbage struct {
	m       *marks
	goes    []Item
	stays   []Item
	kept    map[fileID]bool // the NAR files that are needed
	nars    map[string]bool // URLs that were decided about
	journal map[string]bool // URLs
}

// A fileID tells a file from all others.
type fileID struct{ dev, ino uint64 }

func identify(st fs.FileInfo) fileID {
	sys := st.Sys().(*syscall.Stat_t) // always, on the systems that we know
	return fileID{uint64(sys.Dev), sys.Ino}
}

// collect finds what goes. NAR files that an interrupted backup noted in its
// journal after since are for the next one.
func (m *marks) collect(since time.Time) (*garbage, error) {
	g := &garbage{m: m, kept: make(map[fileID]bool), nars: make(map[string]bool)}
	for _, u := range m.urls {
		g.kept[identify(u.file)] = true
	}
	for _, find := range []func() error{
		func() error { return g.readJournal(since) },
		g.realisations, g.debugInfo, g.narInfos, g.topFiles, g.logs, g.narFiles, g.temporary,
	} {
		if err := find(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return g, nil
}

func (g *garbage) add(kind Kind, name, reason string) {
	g.goes = append(g.goes, g.item(kind, name, reason))
}

func (g *garbage) item(kind Kind, name, reason string) Item {
	item := Item{Kind: kind, Name: name, Reason: reason}
	if st, err := os.Lstat(g.m.b.Path(name)); err == nil && st.Mode().IsRegular() {
		item.Size = st.Size()
	}
	return item
}

// side is files for what stands beside narinfos and NARs, which gc can do
// without: where it cannot be listed, or is behind a symlink, it is left alone.
func (g *garbage) side(dir string) []string {
	names, err := g.files(dir)
	if err != nil {
		g.stays = append(g.stays, g.item(LeftoverKind, dir, "cannot be looked through: "+err.Error()))
	}
	return names
}

// files returns the names of what is in a directory of the backup and no
// directory, none if it is not there. One behind a symlink is an error.
func (g *garbage) files(dir string) ([]string, error) {
	if err := layout.Plain(g.m.b.Dir(), filepath.Join(dir, "x")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	entries, err := os.ReadDir(g.m.b.Path(dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// readJournal notes the NAR files that an interrupted backup finished.
func (g *garbage) readJournal(since time.Time) error {
	name := g.m.b.Path(layout.JournalFile)
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.ModTime().After(since) {
		g.add(LeftoverKind, layout.JournalFile, "of a backup that was interrupted long ago")
		return nil
	}
	g.journal, err = g.m.b.PendingNARs()
	return err
}

// narInfos finds the narinfos that no release needs.
func (g *garbage) narInfos() error {
	for _, p := range slices.Sorted(maps.Keys(g.m.infos)) {
		if g.m.needed[p] == nil {
			g.add(NarInfoKind, filepath.Join(layout.CacheDir, p.Hash()+bincache.NarInfoExt), string(p)+": no release needs it")
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(g.m.damaged)) {
		g.add(NarInfoKind, filepath.Join(layout.CacheDir, hash+bincache.NarInfoExt), "is damaged, and no release needs it")
	}
	return nil
}

// neededHash reports whether there will be a narinfo for a hash part.
func (g *garbage) neededHash() map[string]bool {
	hashes := make(map[string]bool, len(g.m.needed))
	for p := range g.m.needed {
		hashes[p.Hash()] = true
	}
	return hashes
}

// topFiles finds the listings without a narinfo, and the NAR files, at the top
// of the cache, where nix-push had them.
func (g *garbage) topFiles() error {
	names, err := g.files(layout.CacheDir)
	if err != nil {
		return err
	}
	needed := g.neededHash()
	for _, name := range names {
		hash, isListing := strings.CutSuffix(name, bincache.ListingExt)
		switch {
		case isListing && storepath.ValidHash(hash):
			if !needed[hash] {
				g.add(ListingKind, filepath.Join(layout.CacheDir, name), "no release needs its store path")
			}
		case name == bincache.InfoFile, slices.Contains(bincache.Dirs(), name), strings.HasSuffix(name, bincache.NarInfoExt), disk.IsTemp(name):
		case isNARName(name):
			g.orphan(name)
		default:
			g.stays = append(g.stays, g.item(LeftoverKind, filepath.Join(layout.CacheDir, name), "is nothing that gc knows"))
		}
	}
	return nil
}

var narName = regexp.MustCompile(`\.nar(\.[A-Za-z0-9]{1,8})?$`)

// isNARName reports whether a file of the cache may be taken for a NAR, whatever
// names it: everything in nar/ is one, elsewhere the name has to say so.
func isNARName(url string) bool {
	return strings.HasPrefix(url, bincache.NARDir+"/") || narName.MatchString(url)
}

// narFiles finds the NAR files that no narinfo will name.
func (g *garbage) narFiles() error {
	names, err := g.files(filepath.Join(layout.CacheDir, bincache.NARDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !disk.IsTemp(name) {
			g.orphan(bincache.NARDir + "/" + name)
		}
	}
	// URLs may lead to other directories of the cache.
	for _, p := range slices.Sorted(maps.Keys(g.m.infos)) {
		info := g.m.infos[p]
		dir := path.Dir(info.URL)
		if g.m.needed[p] == nil && dir != bincache.NARDir && dir != "." {
			g.orphan(g.m.b.Cache.NARName(info))
		}
	}
	return nil
}

// orphan decides about a NAR file. It stays if a narinfo that stays names it,
// or the same file by another name: where case does not count, or by a link.
func (g *garbage) orphan(url string) {
	name := filepath.Join(layout.CacheDir, filepath.FromSlash(url))
	if g.m.urls[url] != nil || g.nars[url] {
		return
	}
	g.nars[url] = true
	st, err := os.Lstat(g.m.b.Path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		g.stays = append(g.stays, g.item(NARKind, name, err.Error()))
	case !isNARName(url) || st.IsDir():
		g.stays = append(g.stays, g.item(NARKind, name, "is no NAR file by its name"))
	case layout.Plain(g.m.b.Dir(), name) != nil:
		g.stays = append(g.stays, g.item(NARKind, name, "is behind a symlink"))
	case g.kept[identify(st)]:
		g.stays = append(g.stays, g.item(NARKind, name, "is the same file as one that is needed"))
	case g.journal[url]:
		g.stays = append(g.stays, g.item(NARKind, name, "was finished by a backup that was interrupted, and is for the next one"))
	default:
		g.add(NARKind, name, "no narinfo that is needed names it")
	}
}

// logs finds the build logs of derivations that nothing needed was built by.
func (g *garbage) logs() error {
	if g.m.builders == nil {
		return nil
	}
	needed := make(map[storepath.Path]bool)
	for p := range g.m.needed {
		needed[p], needed[g.m.infos[p].Deriver] = true, true
	}
	for _, name := range g.side(filepath.Join(layout.CacheDir, bincache.LogDir)) {
		if p, ok := bincache.LoggedDerivation(name); ok && !needed[p] && !g.m.builders[p] {
			g.add(LogKind, filepath.Join(layout.CacheDir, bincache.LogDir, name), "nothing that is needed was built by this derivation")
		}
	}
	return nil
}

// realisations finds the realisations (Nix 2.4 to 2.34) and build traces (2.35
// and later) of outputs that no release needs.
func (g *garbage) realisations() error {
	dirs := []string{filepath.Join(layout.CacheDir, bincache.RealisationDir)}
	traces := filepath.Join(layout.CacheDir, bincache.BuildTraceDir)
	if err := layout.Plain(g.m.b.Dir(), filepath.Join(traces, "x")); err == nil {
		names, err := disk.ReadNames(g.m.b.Path(traces))
		if err != nil {
			return err
		}
		for _, name := range names {
			if st, err := os.Lstat(g.m.b.Path(traces, name)); err == nil && st.IsDir() {
				dirs = append(dirs, filepath.Join(traces, name))
			}
		}
	}
	for _, dir := range dirs {
		for _, name := range g.side(dir) {
			if strings.HasSuffix(name, bincache.RealisationExt) {
				g.realisation(filepath.Join(dir, name))
			}
		}
	}
	return nil
}

func (g *garbage) realisation(name string) {
	var p storepath.Path
	text, err := layout.ReadFile(g.m.b.Path(name))
	if err == nil {
		p, err = bincache.RealisationPath(text)
	}
	switch {
	case err != nil:
		g.stays = append(g.stays, g.item(RealisationKind, name, fmt.Sprintf("cannot be read: %v", err)))
	case g.m.needed[p] == nil:
		g.add(RealisationKind, name, "no release needs "+string(p))
	}
}

// debugInfo finds the links from build ids to NAR files that will not be there.
// Nix never overwrites one, even if its NAR is gone.
func (g *garbage) debugInfo() error {
	dir := filepath.Join(layout.CacheDir, bincache.DebugInfoDir)
	for _, base := range g.side(dir) {
		var url string
		name := filepath.Join(dir, base)
		text, err := layout.ReadFile(g.m.b.Path(name))
		if err == nil {
			url, err = bincache.DebugInfoNAR(text)
		}
		switch {
		case err != nil || url == bincache.DebugInfoDir:
			g.stays = append(g.stays, g.item(DebugInfoKind, name, "cannot be read"))
		case g.m.urls[url] == nil:
			g.add(DebugInfoKind, name, "points to "+url+", which is not needed or not there")
		}
	}
	return nil
}

// temporary finds what killed backups left.
func (g *garbage) temporary() error {
	dirs := []string{"", layout.CacheDir, filepath.Join(layout.CacheDir, bincache.NARDir), filepath.Join(layout.CacheDir, bincache.LogDir), filepath.Join(layout.CacheDir, bincache.RealisationDir), layout.ReleasesDir, layout.TrashDir, layout.DumpsDir}
	for _, r := range g.m.releases {
		dir := layout.Release(r.Release.Project, r.Release.Name)
		dirs = append(dirs, dir, filepath.Join(dir, layout.PreviousDir))
	}
	for _, dir := range dirs {
		names, err := g.files(dir)
		if err != nil {
			continue // a symlink that the user made, and that marking has followed
		}
		for _, name := range names {
			if disk.IsTemp(name) {
				g.add(LeftoverKind, filepath.Join(dir, name), "a temporary file of a backup that was interrupted")
			}
		}
	}
	names, err := disk.ReadNames(g.m.b.Dir())
	if err != nil {
		return err
	}
	for _, name := range names {
		if st, err := os.Lstat(g.m.b.Path(name)); err == nil && st.IsDir() && disk.IsTemp(name) {
			g.add(LeftoverKind, name, "what is left of a release that was being forgotten")
		}
	}
	for _, dir := range g.m.emptied {
		if layout.Plain(g.m.b.Dir(), filepath.Join(dir, "x")) == nil {
			g.add(LeftoverKind, dir, "the directory of a release that never came to be")
		}
	}
	return nil
}
