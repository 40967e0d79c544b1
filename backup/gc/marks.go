package gc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// Marks say what the releases of a backup need: the store paths that they name,
// with all that these refer to, and the NAR files of both. Whoever deletes what
// is not marked must be sure of what is, so that anything that cannot be read
// or is not there ends the marking.
type marks struct {
	b        *backup.Backup
	infos    map[storepath.Path]*narinfo.NarInfo // all that are good, needed or not
	damaged  map[string]*bincache.DamageError    // by hash part: the narinfos that are not
	needed   map[storepath.Path]*KeptPath
	releases []*KeptRelease
	urls     map[string]*narUse // by the name of the file, relative to the cache
	warnings []string
	problems []error
	emptied  []string // directories of releases that never came to be

	builders map[storepath.Path]bool // derivations that records name; nil if one cannot be read
}

// A KeptPath is a store path that stays, and why.
type KeptPath struct {
	Path     storepath.Path   `json:"path"`
	Release  backup.ReleaseID `json:"release"`  // that needs it, the first of them
	Releases int              `json:"releases"` // how many do
}

// A KeptRelease says what a release keeps.
type KeptRelease struct {
	Release  backup.ReleaseID `json:"release"`
	Paths    int              `json:"paths"`
	FileSize int64            `json:"fileSize"` // bytes of their NAR files
	OnlyHere int64            `json:"onlyHere"` // bytes that would become free without this release
}

// A narUse is a NAR file that is needed.
type narUse struct {
	size    int64
	file    fs.FileInfo
	release *KeptRelease // the only release that needs it, nil if there are several
}

// ErrRefused is wrapped by the error of Run when it cannot be sure what is
// needed, and so takes nothing out.
var ErrRefused = errors.New("nothing is collected")

// mark reads everything that says what is needed. With keepPrevious, what the
// record before of each release names is needed as well.
func mark(ctx context.Context, b *backup.Backup, keepPrevious, noReleases bool) (*marks, error) {
	m := &marks{
		b:       b,
		infos:   make(map[storepath.Path]*narinfo.NarInfo),
		damaged: make(map[string]*bincache.DamageError),
		needed:  make(map[storepath.Path]*KeptPath),
		urls:    make(map[string]*narUse),

		builders: make(map[storepath.Path]bool),
	}
	ids, err := m.list()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	hashes, err := b.Cache.Hashes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	nars, err := disk.ReadNames(filepath.Join(b.Cache.Dir(), bincache.NARDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(ids) == 0 && len(hashes)+len(nars) > 0 && !noReleases {
		return nil, fmt.Errorf("%w: the cache has %d store paths, but there is no release in %s: is it all there, is everything mounted? "+
			"If really none is left, --allow-no-releases collects everything", ErrRefused, len(hashes), b.Path(layout.ReleasesDir))
	}
	err = b.Cache.Scan(ctx, hashes,
		func(info *narinfo.NarInfo) { m.infos[info.StorePath] = info },
		func(d *bincache.DamageError) { m.damaged[bincache.HashOfFile(d.File)] = d })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	for _, id := range ids {
		if err := m.release(id, keepPrevious); err != nil {
			m.problems = append(m.problems, err)
		}
	}
	if len(m.problems) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrRefused, joinSome(m.problems))
	}
	return m, nil
}

// joinSome joins errors, of which there may be one for each store path.
func joinSome(errs []error) error {
	const most = 20
	if len(errs) > most {
		more := fmt.Errorf("and %d more", len(errs)-most)
		errs = append(errs[:most:most], more)
	}
	return errors.Join(errs...)
}

// list returns the releases. Unlike Backup.Releases, it passes over nothing
// that may be one.
func (m *marks) list() ([]backup.ReleaseID, error) {
	top := m.b.Path(layout.ReleasesDir)
	projects, err := os.ReadDir(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []backup.ReleaseID
	for _, project := range projects {
		dir := filepath.Join(top, project.Name())
		names, err := os.ReadDir(dir)
		if disk.IsNotDir(err) && project.Name() != layout.ClosureFile {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot tell what is needed: %w", err)
		}
		for _, name := range names {
			id, err := m.candidate(project.Name(), name.Name())
			if err != nil {
				return nil, err
			}
			if id != (backup.ReleaseID{}) {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// candidate returns the release in a directory, the zero ReleaseID if there is
// none.
func (m *marks) candidate(project, name string) (backup.ReleaseID, error) {
	dir := m.b.Path(layout.ReleasesDir, project, name)
	names, err := disk.ReadNames(dir)
	if disk.IsNotDir(err) && name != layout.ClosureFile {
		return backup.ReleaseID{}, nil
	}
	if err != nil {
		return backup.ReleaseID{}, fmt.Errorf("cannot tell what is needed: %w", err)
	}
	parts := make(map[string]bool)
	for _, n := range names {
		if !disk.IsTemp(n) {
			parts[n] = true
		}
	}
	id, err := backup.ParseReleaseID(project + "/" + name)
	switch {
	case parts[layout.ClosureFile] && err != nil:
		return backup.ReleaseID{}, fmt.Errorf("%s holds the closure of a release, but: %v; rename it", dir, err)
	case parts[layout.ClosureFile]:
		return id, nil
	case parts[layout.ReleaseFile] || parts[layout.PreviousDir]:
		return backup.ReleaseID{}, &bincache.DamageError{File: filepath.Join(dir, layout.ClosureFile), Err: errors.New("is missing")}
	case len(parts) == 0:
		m.emptied = append(m.emptied, layout.Release(project, name))
	}
	return backup.ReleaseID{}, nil
}

// release marks what a release needs.
func (m *marks) release(id backup.ReleaseID, keepPrevious bool) error {
	roots, err := m.roots(id, keepPrevious)
	if err != nil {
		return err
	}
	m.recordBuilders(id)
	kept := &KeptRelease{Release: id}
	m.releases = append(m.releases, kept)
	seen := make(map[storepath.Path]bool)
	for len(roots) > 0 {
		p := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		info, err := m.info(p)
		if err == nil {
			err = m.use(info, kept)
		}
		if err != nil {
			m.problems = append(m.problems, fmt.Errorf("release %s is not whole: %w", id, err))
			continue
		}
		if m.needed[p] == nil {
			m.needed[p] = &KeptPath{Path: p, Release: id}
		}
		m.needed[p].Releases++
		kept.Paths++
		roots = append(roots, info.References...)
	}
	return nil
}

// recordBuilders notes which derivations a record names: Hydra's need not be
// those that Nix remembers.
func (m *marks) recordBuilders(id backup.ReleaseID) {
	record, err := m.b.Release(id)
	if err != nil || !record.Intact() {
		m.builders = nil
	}
	if m.builders == nil {
		return
	}
	for _, root := range record.Roots {
		m.builders[root.DrvPath] = true
	}
}

// info returns the narinfo of a store path that is needed.
func (m *marks) info(p storepath.Path) (*narinfo.NarInfo, error) {
	if info := m.infos[p]; info != nil {
		return info, nil
	}
	if damage := m.damaged[p.Hash()]; damage != nil {
		return nil, damage
	}
	return nil, &bincache.DamageError{
		File: filepath.Join(m.b.Cache.Dir(), p.Hash()+bincache.NarInfoExt),
		Err:  fmt.Errorf("narinfo of %s is missing", p),
	}
}

// use marks the NAR file of a narinfo.
func (m *marks) use(info *narinfo.NarInfo, by *KeptRelease) error {
	name := m.b.Cache.NARName(info)
	u := m.urls[name]
	if u == nil {
		f, size, err := m.b.Cache.OpenNAR(info)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		u = &narUse{size: size, file: st, release: by}
		m.urls[name] = u
		by.OnlyHere += size
		by.FileSize += size
		return nil
	}
	if u.release != nil && u.release != by {
		u.release.OnlyHere -= u.size
		u.release = nil
	}
	return nil
}

// roots returns the store paths from which to mark, after a look whether the
// closure is complete.
func (m *marks) roots(id backup.ReleaseID, keepPrevious bool) ([]storepath.Path, error) {
	closure, err := m.b.Closure(id)
	if err != nil {
		return nil, err
	}
	r, err := m.b.Release(id)
	if err != nil {
		return nil, err
	}
	roots := closure
	for _, root := range r.Roots {
		roots = append(roots, root.StorePath)
	}
	halfWritten := false
	if disk.IsFile(m.b.Path(layout.Release(id.Project, id.Name), layout.ReleaseFile)) {
		if r.Paths != len(closure) {
			if halfWritten = m.b.HalfWritten(id); !halfWritten {
				return nil, m.incomplete(id, fmt.Errorf("has %d store paths, %s says %d", len(closure), layout.ReleaseFile, r.Paths))
			}
			m.warnings = append(m.warnings, fmt.Sprintf("release %s was left half updated by a crash; its record before is kept, too: back it up again", id))
		}
	} else if err := m.checkClosed(closure); err != nil {
		return nil, m.incomplete(id, err)
	}
	if !keepPrevious && !halfWritten {
		return roots, nil
	}
	previous, err := m.b.PreviousClosure(id)
	if errors.Is(err, fs.ErrNotExist) {
		return roots, nil
	}
	return append(roots, previous...), err
}

func (m *marks) incomplete(id backup.ReleaseID, err error) error {
	return &bincache.DamageError{
		File: m.b.Path(layout.Release(id.Project, id.Name), layout.ClosureFile),
		Err:  fmt.Errorf("%w: it is incomplete; back the release up again, or forget it", err),
	}
}

// checkClosed returns an error for a closure that lacks what one of its paths
// refers to. Where release.json does not say how many there have to be, a
// closure.txt that was cut off would not be noticed otherwise.
func (m *marks) checkClosed(closure []storepath.Path) error {
	for _, p := range closure {
		info, err := m.info(p)
		if err != nil {
			return err
		}
		for _, ref := range info.References {
			if _, there := slices.BinarySearch(closure, ref); !there {
				return fmt.Errorf("lacks %s, which %s refers to", ref, p)
			}
		}
	}
	return nil
}
