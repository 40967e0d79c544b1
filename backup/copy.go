package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// Copy brings a release of another backup into the backup directory dir, as Run
// does: all that it needs, verified while it is copied, and its record with all
// that it says. Of req, what concerns the release itself is set by Copy. Of a
// release that a crash left half updated, the record before is copied, with a
// warning.
func Copy(ctx context.Context, dir string, from *CacheStore, id ReleaseID, req Request) (*Result, error) {
	half, err := from.request(id, &req)
	if err != nil {
		return nil, err
	}
	r, err := Run(ctx, dir, from, req)
	if r != nil && half {
		r.Warnings = append(r.Warnings, fmt.Sprintf("release %s of %s was left half updated by a crash, and is copied as it was before: back it up again", id, from.source.dir))
	}
	return r, err
}

// request makes req ask for a release of the backup, with its record, and
// reports whether it is the one before.
func (s *CacheStore) request(id ReleaseID, req *Request) (half bool, err error) {
	closure, err := s.source.WholeClosure(id)
	if err != nil {
		return false, err
	}
	if req.Record, err = s.source.Release(id); err != nil {
		return false, err
	}
	if req.Hydra, err = s.source.Hydra(id); err != nil {
		return false, err
	}
	// Last: a backup may have been replacing these files.
	if half = s.source.HalfWritten(id); half {
		if closure, err = s.previous(id, req); err != nil {
			return false, err
		}
	}
	if !req.Record.Intact() { // the copy would have a checksum that is right
		return false, s.source.changed(id, "its checksum is wrong: it was changed")
	}
	for _, root := range req.Record.Roots {
		if _, found := slices.BinarySearch(closure, root.StorePath); !found {
			return false, s.source.changed(id, fmt.Sprintf("its root %s is not in %s", root.StorePath, layout.ClosureFile))
		}
	}
	if req.Record.Source.Kind == "" { // recorded by hydra-backup
		req.Record.Source.Kind = "cache"
	}
	// The closure names every store path, whatever the method was.
	req.Release, req.Roots, req.Method = id, closure, Binary
	return half, nil
}

// previous makes req ask for the record before of a release, and returns its
// closure.
func (s *CacheStore) previous(id ReleaseID, req *Request) (closure []storepath.Path, err error) {
	if req.Record, err = s.source.PreviousRelease(id); err != nil {
		return nil, err
	}
	req.Hydra, err = layout.ReadFile(s.source.releasePath(id, layout.PreviousDir, layout.HydraFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.source.PreviousClosure(id)
}

// changed returns the error for a release.json that does not fit.
func (b *Backup) changed(id ReleaseID, what string) error {
	return &bincache.DamageError{
		File: b.releasePath(id, layout.ReleaseFile), Err: errors.New(what + "; back the release up again"),
	}
}
