package backup

import (
	"context"
	"errors"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
)

// Copy brings a release of another backup into the backup directory dir, as Run
// does: all that it needs, verified while it is copied, and its record with all
// that it says. Of req, what concerns the release itself is set by Copy.
func Copy(ctx context.Context, dir string, from *CacheStore, id ReleaseID, req Request) (*Result, error) {
	if err := from.request(id, &req); err != nil {
		return nil, err
	}
	return Run(ctx, dir, from, req)
}

// request makes req ask for a release of the backup, with its record.
func (s *CacheStore) request(id ReleaseID, req *Request) error {
	closure, err := s.source.WholeClosure(id)
	if err != nil {
		return err
	}
	if req.Record, err = s.source.Release(id); err != nil {
		return err
	}
	if !req.Record.Intact() { // the copy would have a checksum that is right
		return &bincache.DamageError{
			File: s.source.releasePath(id, layout.ReleaseFile),
			Err:  errors.New("its checksum is wrong: it was changed; back the release up again"),
		}
	}
	if req.Record.Source.Kind == "" { // recorded by hydra-backup
		req.Record.Source.Kind = "cache"
	}
	if req.Hydra, err = s.source.Hydra(id); err != nil {
		return err
	}
	// The closure names every store path, whatever the method was.
	req.Release, req.Roots, req.Method = id, closure, Binary
	return nil
}
