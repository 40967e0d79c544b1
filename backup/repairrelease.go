package backup

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// A recordSource is where a copy of the record of a release may be.
type recordSource struct {
	by      string
	own     bool // it is of this backup
	closure []storepath.Path
	release *Release // nil if it is damaged or not there
	dir     string
}

// recordSources returns the copies of a record that are whole: the one before
// and those of other backups, the newest first.
func (r *repairer) recordSources(id ReleaseID) (sources []recordSource) {
	for _, from := range r.req.From {
		closure, err := from.Closure(id)
		if release, err2 := from.Release(id); errors.Join(err, err2) == nil {
			sources = append(sources, recordSource{from.dir, false, closure, release, from.releasePath(id)})
		}
	}
	closure, err := r.b.PreviousClosure(id)
	if release, err2 := r.b.PreviousRelease(id); errors.Join(err, err2) == nil {
		sources = append(sources, recordSource{"the record before", true, closure, release, r.b.releasePath(id, layout.PreviousDir)})
	}
	slices.SortStableFunc(sources, func(a, b recordSource) int { return b.release.Created.Compare(a.release.Created) })
	return slices.DeleteFunc(sources, func(s recordSource) bool {
		return !s.release.Intact() || s.release.Paths != len(s.closure) || s.release.StoreDir != r.b.Cache.StoreDir() || !disk.IsFile(filepath.Join(s.dir, layout.ReleaseFile))
	})
}

// record returns release.json if it is whole.
func (r *repairer) record(id ReleaseID) *Release {
	if !disk.IsFile(r.b.releasePath(id, layout.ReleaseFile)) {
		return nil
	}
	record, err := r.b.Release(id)
	if err != nil || !record.Intact() || record.Version < 1 || (ReleaseID{record.Project, record.Name}) != id {
		return nil
	}
	return record
}

// closureFor returns what closure.txt has to be, nil if it is so or that cannot
// be known.
func (r *repairer) closureFor(id ReleaseID) (name string, text []byte, from string) {
	record := r.record(id)
	now, err := r.b.Closure(id)
	if err == nil && (record == nil || r.closureFits(record, now)) {
		return "", nil, ""
	}
	var known []recordSource
	if record != nil && len(record.Roots) > 0 {
		var roots []storepath.Path
		for _, root := range record.Roots {
			roots = append(roots, root.StorePath)
		}
		if closure, err := r.b.PathClosure(roots); err == nil {
			known = append(known, recordSource{by: "release.json and the narinfos", closure: closure, release: record})
		}
		if record.Method == Cached {
			if closure, err := FromCache(r.b, false).Closure(context.Background(), roots, true); err == nil {
				known = append(known, recordSource{by: "release.json and the narinfos", closure: closure, release: record})
			}
		}
	}
	for _, s := range append(known, r.recordSources(id)...) {
		if record != nil && !r.closureFits(record, s.closure) || record == nil && !(r.present(s.closure) && (s.own || r.req.NoCheckSigs)) {
			continue
		}
		return layout.ClosureFile, formatClosure(s.closure, r.b.Cache.StoreDir()), s.by
	}
	return "", nil, ""
}

// closureFits reports whether a closure is the one that a record was made with:
// it has as many store paths, its NARs are as large together, and the roots are
// among them.
func (r *repairer) closureFits(record *Release, closure []storepath.Path) bool {
	if len(closure) != record.Paths {
		return false
	}
	size := int64(0)
	for _, p := range closure {
		info, err := r.b.Cache.Lookup(p)
		if err != nil {
			return false
		}
		size += info.NarSize
	}
	return size == record.NarSize && !slices.ContainsFunc(record.Roots, func(root Root) bool {
		_, found := slices.BinarySearch(closure, root.StorePath)
		return !found
	})
}

// present reports whether all store paths are in the cache.
func (r *repairer) present(paths []storepath.Path) bool {
	return !slices.ContainsFunc(paths, func(p storepath.Path) bool {
		_, err := r.b.Cache.Lookup(p)
		return err != nil
	})
}

// recordFor is closureFor for release.json: that of a record with the same
// closure.
func (r *repairer) recordFor(id ReleaseID) (name string, text []byte, from string) {
	if r.record(id) != nil || r.b.config.Version == 0 {
		return "", nil, ""
	}
	closure, err := r.b.Closure(id)
	for _, s := range r.recordSources(id) {
		if err == nil && !slices.Equal(closure, s.closure) || err != nil && !r.present(s.closure) || !r.closureFits(s.release, s.closure) {
			continue
		}
		if s.release.Project != id.Project || s.release.Name != id.Name {
			continue
		}
		if text, err := layout.ReadFile(filepath.Join(s.dir, layout.ReleaseFile)); err == nil {
			return layout.ReleaseFile, text, s.by
		}
	}
	return "", nil, ""
}

// hydraFor is closureFor for hydra.json: that beside an equal record.
func (r *repairer) hydraFor(id ReleaseID) (name string, text []byte, from string) {
	now, err := os.ReadFile(r.b.releasePath(id, layout.HydraFile))
	if missing(err) || err == nil && json.Valid(now) {
		return "", nil, ""
	}
	record := r.record(id)
	for _, s := range r.recordSources(id) {
		if record == nil || !reflect.DeepEqual(record, s.release) {
			continue
		}
		if text, err := layout.ReadFile(filepath.Join(s.dir, layout.HydraFile)); err == nil && json.Valid(text) {
			return layout.HydraFile, text, s.by
		}
	}
	return "", nil, ""
}
