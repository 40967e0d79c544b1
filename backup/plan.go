package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A plan says what a run has to write, in the order in which it is written:
// references before those that refer to them.
type plan struct {
	jobs      []*job
	unchanged Amount
	conflicts []Conflict
	healed    []string // narinfos that are damaged or whose NAR file is gone
	// upstream is what the store says of archived paths of which it has signatures
	// that the archived narinfo lacks.
	upstream map[storepath.Path]*narinfo.NarInfo
	narSize  int64 // of the whole closure
}

// A job is one store path that the cache lacks. If its content is there
// already, under another store path, content says so; if a job before it has
// the same content, sameAs does; else the NAR has to be written.
type job struct {
	info    nixstore.PathInfo
	content *narFile
	sameAs  *job
	shared  bool // some other job is sameAs this one

	// made while the job runs
	temp     *tempNAR
	listing  []byte // the .ls file, nil when there cannot be one
	warnings []string
	healed   string // damage that was found and written over
	err      error
	done     chan struct{} // closed when the above is final
}

// writes reports whether the NAR of the job has to be written.
func (j *job) writes() bool { return j.content == nil && j.sameAs == nil }

// A Conflict is a store path that the backup holds with another content than
// the local store: it could not be built twice alike. The archived one stays.
type Conflict struct {
	Path     storepath.Path `json:"path"`
	Archived narinfo.Hash   `json:"archived"`
	Local    narinfo.Hash   `json:"local"`
}

// makePlan compares what the store has with what the cache has. The cache may
// be nil: there is no backup yet.
func makePlan(ctx context.Context, cache *bincache.Cache, finished map[narinfo.Hash]narFile, infos []nixstore.PathInfo) (*plan, error) {
	infos, err := topological(infos)
	if err != nil {
		return nil, err
	}
	p := &plan{upstream: make(map[storepath.Path]*narinfo.NarInfo)}
	for i := range infos {
		info := infos[i]
		p.narSize += info.NarSize
		var h have
		if cache != nil {
			if h, err = archived(cache, info); err != nil {
				return nil, err
			}
		}
		if h.damage != "" {
			p.healed = append(p.healed, h.damage)
		}
		if h.conflict != nil {
			p.conflicts = append(p.conflicts, *h.conflict)
		}
		if h.info != nil {
			p.unchanged.add(info.NarSize)
			if store := narInfoOf(h.info.StoreDir, &info); len(missingSigs(h.info, store)) > 0 {
				p.upstream[info.Path] = store
			}
			continue
		}
		p.jobs = append(p.jobs, &job{info: info, done: make(chan struct{})})
	}
	return p, p.findContents(ctx, cache, finished)
}

// A have says what a cache has of a store path.
type have struct {
	info     *narinfo.NarInfo // nil: nothing, or nothing good
	conflict *Conflict        // it has another content
	damage   string           // why what it has is no good
}

// archived looks for a store path in the cache: a good narinfo and the NAR file
// that it names, in full size.
func archived(cache *bincache.Cache, info nixstore.PathInfo) (have, error) {
	there, err := cache.NarInfo(info.Path.Hash())
	if errors.Is(err, fs.ErrNotExist) {
		return have{}, nil
	}
	if err == nil && there.StorePath != info.Path {
		// Nix makes no two names for one hash, so this is damage.
		return have{damage: fmt.Sprintf("narinfo of %s names %s", info.Path, there.StorePath)}, nil
	}
	if err == nil {
		err = cache.StatNAR(there)
	}
	var damage *bincache.DamageError
	if errors.As(err, &damage) {
		return have{damage: damage.Error()}, nil
	}
	if err != nil {
		return have{}, err
	}
	h := have{info: there}
	if there.NarHash != info.NarHash {
		h.conflict = &Conflict{Path: info.Path, Archived: there.NarHash, Local: info.NarHash}
	}
	return h, nil
}

// findContents gives each job whose content is known already its source.
func (p *plan) findContents(ctx context.Context, cache *bincache.Cache, finished map[narinfo.Hash]narFile) error {
	wanted := make(map[narinfo.Hash]*job)
	for _, j := range p.jobs {
		wanted[j.info.NarHash] = nil
	}
	if cache != nil && len(wanted) > 0 {
		if err := findArchived(ctx, cache, wanted, finished); err != nil {
			return err
		}
	}
	for _, j := range p.jobs {
		if first := wanted[j.info.NarHash]; first != nil {
			j.sameAs, first.shared = first, true
			continue
		}
		wanted[j.info.NarHash] = j
		if n, ok := finished[j.info.NarHash]; ok && n.NarSize == j.info.NarSize && cache != nil && narFileThere(cache, n) {
			j.content = &n
		}
	}
	return nil
}

// findArchived adds to finished the NAR files of all narinfos with a wanted
// NarHash.
func findArchived(ctx context.Context, cache *bincache.Cache, wanted map[narinfo.Hash]*job, finished map[narinfo.Hash]narFile) error {
	hashes, err := cache.Hashes()
	if err != nil {
		return err
	}
	found := func(info *narinfo.NarInfo) {
		if _, ok := wanted[info.NarHash]; !ok {
			return
		}
		fileHash, err := narinfo.ParseHash(info.FileHash)
		if err != nil || info.FileSize == 0 {
			return // no proof of the file: write it again
		}
		finished[info.NarHash] = narFile{
			URL: info.URL, Compression: info.Compression,
			FileHash: fileHash, FileSize: info.FileSize,
			NarHash: info.NarHash, NarSize: info.NarSize,
		}
	}
	return cache.Scan(ctx, hashes, found, func(*bincache.DamageError) {})
}

func narFileThere(cache *bincache.Cache, n narFile) bool {
	info := new(narinfo.NarInfo)
	n.fill(info)
	return cache.StatNAR(info) == nil
}

// topological sorts infos so that every path comes after those it refers to,
// and otherwise as they were. Nix knows no cycles but self-references.
func topological(infos []nixstore.PathInfo) ([]nixstore.PathInfo, error) {
	paths := make([]storepath.Path, len(infos))
	byPath := make(map[storepath.Path]*nixstore.PathInfo, len(infos))
	for i := range infos {
		paths[i] = infos[i].Path
		byPath[infos[i].Path] = &infos[i]
	}
	order, err := storepath.SortByReferences(paths, func(p storepath.Path) []storepath.Path {
		if info := byPath[p]; info != nil {
			return info.References
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sorted := make([]nixstore.PathInfo, len(order))
	for i, p := range order {
		sorted[i] = *byPath[p]
	}
	return sorted, nil
}

// An Amount is a number of store paths and the sizes of their NARs, in bytes.
type Amount struct {
	Paths   int   `json:"paths"`
	NarSize int64 `json:"narSize"`
}

func (a *Amount) add(narSize int64) {
	a.Paths++
	a.NarSize += narSize
}

// An Estimate says what a run is going to do.
type Estimate struct {
	Total     Amount `json:"total"`     // the whole release
	Unchanged Amount `json:"unchanged"` // in the backup already
	Shared    Amount `json:"shared"`    // new store paths whose content is there already, or twice among the new ones
	Write     Amount `json:"write"`     // to be read, compressed and written
	Free      int64  `json:"free"`      // bytes free on the medium
}

func (p *plan) estimate(dir string) Estimate {
	e := Estimate{Unchanged: p.unchanged, Free: freeSpace(dir)}
	for _, j := range p.jobs {
		if j.writes() {
			e.Write.add(j.info.NarSize)
		} else {
			e.Shared.add(j.info.NarSize)
		}
	}
	e.Total = Amount{Paths: p.unchanged.Paths + len(p.jobs), NarSize: p.narSize}
	return e
}
