package backup

import (
	"context"
	"errors"

	"github.com/narvault/narvault/index/bincache"
)

// Copy brings a release of another backup into the backup directory dir, as Run
// does: all that it needs, verified while it is copied, and its record with all
// that it says. Of req, what concerns the release itself is set by Copy.
func Copy(ctx context.Context, dir string, from *CacheStore, id ReleaseID, req Request) (*Result, error) {
	closure, err := from.source.WholeClosure(id)
	if err != nil {
		return nil, err
	}
	if req.Record, err = from.source.Release(id); err != nil {
		return nil, err
	}
	if !req.Record.Intact() { // the copy would have a checksum that is right
		return nil, &bincache.DamageError{
			File: from.source.releasePath(id, releaseFile),
			Err:  errors.New("its checksum is wrong: it was changed; back the release up again"),
		}
	}
	if req.Record.Source.Kind == "" { // recorded by hydra-backup
		req.Record.Source.Kind = "cache"
	}
	if req.Hydra, err = from.source.Hydra(id); err != nil {
		return nil, err
	}
	// The closure names every store path, whatever the method was.
	req.Release, req.Roots, req.Method = id, closure, Binary
	return Run(ctx, dir, from, req)
}
