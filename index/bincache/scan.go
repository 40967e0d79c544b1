package bincache

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/narread/narinfo"
)

// scanReaders is how many narinfos are read at once: enough to hide the latency
// of a disk, few enough not to thrash one.
const scanReaders = 8

// Scan reads the narinfos of the given hash parts, several at once, and calls
// found for each good one and bad for each that is damaged; neither is called
// concurrently, and the order is arbitrary. One that vanished meanwhile is
// passed over. The error is that of ctx, or says that the cache itself cannot
// be read any more; what bad was told is then void.
func (c *Cache) Scan(ctx context.Context, hashes []string, found func(*narinfo.NarInfo), bad func(*DamageError)) error {
	var mu sync.Mutex // held while found or bad runs
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan string)
	group.Go(func() error {
		defer close(work)
		for _, hash := range hashes {
			select {
			case work <- hash:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range scanReaders {
		group.Go(func() error {
			for hash := range work {
				info, err := c.NarInfo(hash)
				mu.Lock()
				c.report(hash, info, err, found, bad)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	// If the medium went away, what looked like damage was none.
	return c.Present()
}

// report passes on what came of reading a narinfo. Whatever keeps one from
// being read (it is a directory, a link that leads out, in a bad sector) is
// damage of that one and says nothing about the others.
func (c *Cache) report(hash string, info *narinfo.NarInfo, err error, found func(*narinfo.NarInfo), bad func(*DamageError)) {
	var damage *DamageError
	switch {
	case err == nil:
		found(info)
	case errors.As(err, &damage):
		bad(damage)
	case !errors.Is(err, fs.ErrNotExist):
		bad(&DamageError{File: c.path(hash + NarInfoExt), Err: err})
	}
}
