package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"slices"

	"github.com/narvault/narvault/backup"
)

// A hydraStore is where releases of Hydra are backed up from: the local Nix store
// and, for what it lacks, the cache of --from and the backup itself. What Hydra let
// go after it was backed up is no reason to give it up, or to complain each night.
type hydraStore struct {
	backup.Store
	kept    *backup.SubstitutedStore // the same; nil if there is no backup yet
	closers []io.Closer
}

// openHydraStore opens the store for the backup in dir.
func (c *backupCommand) openHydraStore(ctx context.Context, dir string) (s *hydraStore, err error) {
	s = new(hydraStore)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := c.openSources(ctx, s); err != nil {
		return s, err
	}
	if c.forceRealise {
		return s, nil // what the store lacks is to be built
	}
	b, err := openBackup(dir, c.s.err)
	if errors.Is(err, backup.ErrNoBackup) || errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.closers = append(s.closers, b)
	if b.Cache.StoreDir() != s.Store.Dir() {
		return s, nil // who writes there will say so
	}
	if s.kept, err = backup.Substituted(s.Store, backup.FromCache(b, false)); err == nil {
		s.Store = s.kept
	}
	return s, err
}

// openSources opens the local Nix store and, with --from, the cache that has what
// it lacks. Where there is no Nix, the cache has to have everything.
func (c *backupCommand) openSources(ctx context.Context, s *hydraStore) error {
	store, err := c.openStore(ctx)
	noNix := errors.Is(err, exec.ErrNotFound) && c.from != ""
	if err != nil && !noNix {
		return err
	}
	if err == nil {
		s.Store, s.closers = store, append(s.closers, store)
	}
	if c.from == "" {
		return nil
	}
	cache, err := c.openCache(ctx)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, cache)
	if noNix {
		fmt.Fprintf(c.s.err, "narvault: there is no Nix here: everything is taken from %s\n", c.from)
		s.Store = cache.CacheStore
		return nil
	}
	s.Store, err = backup.Substituted(store, cache.CacheStore)
	return err
}

// Close closes what the store is made of.
func (s *hydraStore) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// onlyKept says how much of a release nothing but the backup has any more.
func (s *hydraStore) onlyKept(record *backup.Release, id backup.ReleaseID) []string {
	if s.kept == nil {
		return nil
	}
	gone := 0
	for _, root := range record.Roots {
		if s.kept.Lacks(root.StorePath) {
			gone++
		}
	}
	if gone == 0 {
		return nil
	}
	return []string{fmt.Sprintf("release %s: %d of %s are not in the store any more; the backup has them", id, gone, count(len(record.Roots), "output"))}
}
