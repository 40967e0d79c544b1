package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
)

// intoStore restores into the Nix store.
func (c *restoreCommand) intoStore(ctx context.Context, b *backup.Backup, names []string) error {
	result, err := c.toStore(ctx, b, names)
	if err != nil {
		return err
	}
	return c.reportStore(result)
}

func (c *restoreCommand) toStore(ctx context.Context, b *backup.Backup, names []string) (*backup.RestoreResult, error) {
	var req backup.RestoreRequest
	for _, name := range names {
		if err := c.ask(&req, b, name); err != nil {
			return nil, err
		}
	}
	store, err := nixstore.Open(ctx, nixstore.Options{URL: c.store})
	if err != nil {
		return nil, fmt.Errorf("%w; --to DIR restores without Nix", c.remedied(b, err))
	}
	defer store.Close()
	progress := newProgress(c.s.err, c.quiet)
	req.Progress = progress.restoreHooks()
	result, err := b.Restore(ctx, store, req)
	progress.stop()
	if err != nil {
		progress.goesOn("restored")
		return nil, c.remedied(b, err)
	}
	return result, nil
}

// ask adds what an argument names to a request.
func (c *restoreCommand) ask(req *backup.RestoreRequest, b *backup.Backup, name string) error {
	if whole := wholePaths(b, name); whole != nil {
		c.askPaths(req, whole)
		return nil
	}
	place, err := find(b, name)
	if err != nil {
		return err
	}
	if n := place.Node; n != nil {
		defer n.Close()
		if n.Entry != 0 {
			return usageErrorf("%s is in a store path, and a Nix store takes whole ones only: give --to DIR to restore what is in it", name)
		}
		c.askPaths(req, []storepath.Path{n.Path})
		return nil
	}
	closure, err := b.WholeClosure(place.ID)
	if err != nil {
		return err
	}
	req.Paths = append(req.Paths, closure...)
	if err := c.hydra.ask(req, b, place.ID); err != nil {
		return err
	}
	if c.noRoot {
		return nil
	}
	dir := c.addRoot
	if dir == "" {
		if dir, err = stateFile("gcroots"); err != nil {
			return fmt.Errorf("no place for GC roots (--add-root DIR names one, --no-root makes none): %w", err)
		}
		dir = filepath.Join(dir, place.ID.Project, place.ID.Name)
	}
	roots, err := b.RootsIn(place.ID, dir)
	req.Roots = append(req.Roots, roots...)
	return err
}

func (c *restoreCommand) askPaths(req *backup.RestoreRequest, paths []storepath.Path) {
	req.Paths = append(req.Paths, paths...)
	if c.addRoot == "" {
		return
	}
	for _, p := range paths {
		req.Roots = append(req.Roots, backup.GCRoot{Link: filepath.Join(c.addRoot, string(p)), Path: p})
	}
}

// remedied says what to do about rights and trust.
func (c *restoreCommand) remedied(b *backup.Backup, err error) error {
	var untrusted *backup.UntrustedError
	switch {
	case errors.As(err, &untrusted):
		key := fmt.Sprintf("sign it (\"narvault sign %s --sign-key FILE\") with a key that is in its trusted-public-keys", b.Dir())
		if len(untrusted.Keys) > 0 {
			key = "have him add a public key of who signed it to trusted-public-keys there (" + strings.Join(untrusted.Keys, ", ") + ")"
		}
		return fmt.Errorf("%w: restore as root, have an administrator add you to trusted-users in nix.conf, or %s", err, key)
	case errors.Is(err, nixstore.ErrNoRights):
		return fmt.Errorf("%w: restore as root, start the Nix daemon, or give a store of your own with --store DIR", err)
	}
	return err
}

// reportStore prints the summary, and what was left out.
func (c *restoreCommand) reportStore(r *backup.RestoreResult) error {
	if c.json {
		if err := printJSON(c.s.out, r); err != nil {
			return err
		}
	} else if !c.quiet {
		c.storeSummary(r)
	}
	return c.leftOut(r)
}

// leftOut names what was left out.
func (c *restoreCommand) leftOut(r *backup.RestoreResult) error {
	var left []string
	for _, l := range r.LeftOut {
		left = append(left, fmt.Sprintf("%s: %s", l.Path, l.Reason))
	}
	list(c.s.err, "left out: ", left)
	switch {
	case r.Damaged:
		return errDamage
	case len(left) > 0:
		return errPartial
	}
	return nil
}

func (c *restoreCommand) storeSummary(r *backup.RestoreResult) {
	row := func(name string, a backup.Amount, detail string) {
		fmt.Fprintf(c.s.out, "%-14s %6d store paths, %s%s\n", name, a.Paths, size(a.NarSize), detail)
	}
	if r.There.Paths > 0 {
		row("already there", r.There, "")
	}
	row("restored", r.Restored, " in "+seconds(r.Seconds))
	for i, root := range r.Roots {
		if i == maxListed {
			fmt.Fprintf(c.s.out, "  and %d more GC roots\n", len(r.Roots)-i)
			break
		}
		fmt.Fprintf(c.s.out, "  GC root %s\n", root.Link)
	}
}
