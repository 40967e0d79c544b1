package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/hydra"
)

// runConfig is "narvault backup --config FILE": it backs up releases of Hydra.
func (c *backupCommand) runConfig(ctx context.Context) error {
	if err := c.checkSource(); err != nil {
		return err
	}
	config, err := hydra.ReadConfig(c.config)
	if err != nil {
		return err
	}
	for i, sel := range config.Releases {
		if _, err := methodOf(&sel); err != nil {
			return &hydra.ConfigError{File: c.config, Text: fmt.Sprintf("releases[%d]: %v", i, err)}
		}
	}
	if err := backup.MayCreate(config.OutDir); err != nil {
		return err
	}
	store, err := c.openHydraStore(ctx, config.OutDir)
	if err != nil {
		return err
	}
	defer store.Close()
	done := newBatch()
	requests, err := c.readHydra(ctx, config, store.Dir(), done)
	if err != nil {
		return err
	}
	err = c.runAll(ctx, config.OutDir, store, requests, done)
	if c.json && ctx.Err() == nil {
		err = errors.Join(err, printJSON(c.s.out, done))
	}
	return err
}

// methodOf is how a release of a configuration is backed up.
func methodOf(sel *hydra.Selection) (backup.Method, error) {
	return backup.ParseMethod(cmp.Or(sel.Method, string(backup.Binary)))
}

// readHydra reads all that Hydra says, at one instant, and lets go of its
// database, before hours of work begin. Releases that cannot be had go to done.
func (c *backupCommand) readHydra(ctx context.Context, config *hydra.Config, storeDir string, done *batch) ([]*hydraRequest, error) {
	snapshot, err := hydra.Open(ctx, config.Database)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	var selections []hydra.Selection
	for _, sel := range config.Releases {
		some, err := defined(config.OutDir, snapshot, sel)
		if err != nil {
			return nil, err
		}
		selections = append(selections, some...)
	}
	var requests []*hydraRequest
	for _, sel := range selections {
		some, err := c.find(ctx, snapshot, &sel, storeDir, done)
		if err != nil {
			return nil, err
		}
		requests = append(requests, some...)
	}
	return c.withoutTwins(requests, done), nil
}

// find asks for the releases that a selection stands for.
func (c *backupCommand) find(ctx context.Context, snapshot *hydra.Snapshot, sel *hydra.Selection, storeDir string, done *batch) ([]*hydraRequest, error) {
	releases, errs := snapshot.Find(ctx, sel, storeDir)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, err := range errs {
		done.fail(err)
	}
	var requests []*hydraRequest
	for _, r := range releases {
		req, err := c.hydraRequest(sel, r, snapshot.Database())
		switch {
		case errors.Is(err, backup.ErrReleaseID):
			done.fail(fmt.Errorf("%v: %s in %s", err, renaming(sel), c.config)) // it is Hydra's, not wrong usage
		case err != nil:
			return nil, err
		default:
			requests = append(requests, req)
		}
	}
	return requests, nil
}

// renaming says how to give a release a name that it has not in Hydra.
func renaming(sel *hydra.Selection) string {
	if sel.Native() {
		return `say by "evaluation" or "builds" what it is, and give it another "name",`
	}
	return `give it another "name"`
}

// withoutTwins leaves the first of releases that have the same name.
func (c *backupCommand) withoutTwins(requests []*hydraRequest, done *batch) (different []*hydraRequest) {
	seen := make(map[backup.ReleaseID]bool)
	for _, req := range requests {
		if seen[req.Release] {
			done.fail(fmt.Errorf("release %s: %s has two releases of this name: give one another \"name\"", req.Release, c.config))
			continue
		}
		seen[req.Release] = true
		different = append(different, req)
	}
	return different
}

// runAll backs up one release after the other.
func (c *backupCommand) runAll(ctx context.Context, dir string, store *hydraStore, requests []*hydraRequest, done *batch) error {
	for _, req := range requests {
		err := done.do(ctx, req.Release, func() (*backup.Result, error) {
			result, err := c.backUp(ctx, dir, store.Store, *req.Request)
			if err != nil {
				return nil, err
			}
			result.Warnings = slices.Concat(result.Warnings, req.warnings, store.onlyKept(req.Record, req.Release))
			if !c.quiet && !c.json {
				summary(c.s.out, dir, result, backingUp)
			}
			return result, exceptions(c.s.err, result)
		})
		if err != nil {
			return err
		}
	}
	return done.end(ctx, c.s.err)
}

// A hydraRequest asks for a release of Hydra's to be backed up.
type hydraRequest struct {
	*backup.Request
	warnings []string
}

func (c *backupCommand) hydraRequest(sel *hydra.Selection, r *hydra.Release, database string) (*hydraRequest, error) {
	id, err := backup.ParseReleaseID(r.Project + "/" + r.Name)
	if err != nil {
		return nil, err
	}
	method, err := methodOf(sel)
	if err != nil {
		return nil, err
	}
	req := &backup.Request{
		Release: id, Description: r.Description, Method: method,
		Record: &backup.Release{Source: backup.Source{Kind: "hydra", Database: database, Evaluation: r.Evaluation}},
		Hydra:  r.Rows, Logs: hydra.FindLogs(hydra.LogDirs(), r.Logs),
	}
	for _, b := range r.Builds {
		req.Record.Roots = append(req.Record.Roots, rootsOf(&b)...)
		req.Record.Builds = append(req.Record.Builds, recordOf(&b))
	}
	return &hydraRequest{req, skippedBuilds(id, r.Skipped)}, c.settle(req)
}

func rootsOf(b *hydra.Build) (roots []backup.Root) {
	for _, o := range b.Outputs {
		roots = append(roots, backup.Root{
			Job: b.Job, Jobset: b.Jobset, System: b.System, Output: o.Name, StorePath: o.Path,
			DrvPath: b.DrvPath, NixName: cmp.Or(b.NixName, strings.TrimSuffix(b.DrvPath.Name(), ".drv")), Build: b.ID,
		})
	}
	return roots
}

func recordOf(b *hydra.Build) backup.Build {
	record := backup.Build{ID: b.ID, Finished: b.Finished, Description: b.Description}
	for _, p := range b.Products {
		record.Products = append(record.Products, backup.Product(p))
	}
	return record
}

// skippedBuilds says which builds of a release are left out.
func skippedBuilds(of backup.ReleaseID, ids []int64) []string {
	if len(ids) == 0 {
		return nil
	}
	var names []string
	for i, id := range ids {
		if i == maxListed {
			names = append(names, fmt.Sprintf("and %d more", len(ids)-i))
			break
		}
		names = append(names, strconv.FormatInt(id, 10))
	}
	return []string{fmt.Sprintf("release %s: builds that did not succeed, or are not finished, are left out: %s", of, strings.Join(names, ", "))}
}
