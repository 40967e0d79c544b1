package check

import (
	"cmp"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A table is what is known of the store paths of a cache, in as few bytes as
// may be. Store paths are numbered as their hash parts are sorted.
type table struct {
	hashes []string
	paths  []entry
	nars   []*narFile
	byURL  map[string]*narFile
	cas    map[int32]string // CA fields
	// absent are the store paths that others refer to and that have no narinfo,
	// with those who do.
	absent map[storepath.Path][]int32
	others []otherName
}

// An otherName is a reference to a store path under another name than the one
// in its entry.
type otherName struct {
	by, to int32
	ref    storepath.Path
}

// An entry is one store path.
type entry struct {
	path storepath.Path // "" if its narinfo is damaged and nothing else names it
	refs []int32        // numbers of store paths that are there
	nar  *narFile
	good bool // its narinfo is
	gone bool // there is no narinfo any more
	// asked is the store path by which others refer to this one.
	asked   storepath.Path
	askedBy int32
	listing bool // there is a .ls file
}

// A narFile is a NAR file with all who say what is in it.
type narFile struct {
	url     string
	size    int64   // of the file; -1 if it is not there or cannot be read
	users   []int32 // store paths
	claims  []claim // of which there is one, unless narinfos disagree
	damaged bool    // something is wrong with it or cannot be read: it does not count as verified
}

// A claim is what a narinfo says about a NAR file.
type claim struct {
	compression string
	fileHash    string
	fileSize    int64
	narHash     narinfo.Hash
	narSize     int64
}

func newTable(hashes []string) *table {
	return &table{
		hashes: hashes, paths: make([]entry, len(hashes)), byURL: make(map[string]*narFile),
		cas: make(map[int32]string), absent: make(map[storepath.Path][]int32),
	}
}

// number returns the number of the store path with a hash part.
func (t *table) number(hash string) (int32, bool) {
	i, found := slices.BinarySearch(t.hashes, hash)
	return int32(i), found
}

// add takes in a good narinfo.
func (t *table) add(i int32, info *narinfo.NarInfo) {
	e := &t.paths[i]
	// Clones: parsed strings would keep the whole text of the narinfo.
	e.path, e.good = storepath.Path(strings.Clone(string(info.StorePath))), true
	for _, ref := range info.References {
		if j, found := t.number(ref.Hash()); found {
			e.refs = append(e.refs, j)
			if to := &t.paths[j]; to.asked == "" {
				to.asked, to.askedBy = storepath.Path(strings.Clone(string(ref))), i
			} else if to.asked != ref {
				t.others = append(t.others, otherName{i, j, storepath.Path(strings.Clone(string(ref)))})
			}
			continue
		}
		ref = storepath.Path(strings.Clone(string(ref)))
		t.absent[ref] = append(t.absent[ref], i)
	}
	if info.CA != "" {
		t.cas[i] = strings.Clone(info.CA)
	}
	e.nar = t.addNAR(i, info)
}

func (t *table) addNAR(i int32, info *narinfo.NarInfo) *narFile {
	n := t.byURL[info.URL]
	if n == nil {
		n = &narFile{url: strings.Clone(info.URL)}
		t.byURL[n.url] = n
		t.nars = append(t.nars, n)
	}
	n.users = append(n.users, i)
	c := claim{
		compression: info.Compression, fileHash: info.FileHash, fileSize: info.FileSize,
		narHash: info.NarHash, narSize: info.NarSize,
	}
	if !slices.Contains(n.claims, c) {
		c.compression, c.fileHash = strings.Clone(c.compression), strings.Clone(c.fileHash)
		n.claims = append(n.claims, c)
	}
	return n
}

// names returns the store paths with the given numbers, sorted. One whose name
// nobody knows is left out.
func (t *table) names(numbers []int32) []storepath.Path {
	var paths []storepath.Path
	for _, i := range numbers {
		if p := t.name(i); p != "" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// name returns the name of a store path, from whoever knows it.
func (t *table) name(i int32) storepath.Path {
	e := &t.paths[i]
	return cmp.Or(e.path, e.asked)
}
