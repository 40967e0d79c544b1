package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/lock"
)

// copyCommand is "narvault copy".
type copyCommand struct {
	s           streams
	compression string
	level       int
	asIs        bool
	dryRun      bool
	json        bool
	quiet       bool
	lock        lockFlags
}

func (c *copyCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "copy BACKUP BACKUP2 [P/N...]",
		Short: "Bring releases to another medium",
		Long: `Copies releases, all or those named, from BACKUP to BACKUP2, which is made if it
is not there. Only what BACKUP2 has not is copied, and every NAR is verified on
the way; after an interruption the same command goes on from there. Releases that
only BACKUP2 has stay. With all releases come the dumps of databases.`,
		Args: argRange(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1], args[2:])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.compression, "compression", "", "pack NARs anew, with zstd, xz, bzip2 or none (default: take them over as they are)")
	f.IntVar(&c.level, "level", 0, "pack NARs anew, with this level: zstd 1 to 22, xz and bzip2 1 to 9")
	f.BoolVar(&c.asIs, "as-is", false, "take over all NAR files as they are, also those that cannot be read in parts")
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress and no summary")
	c.lock.add(f)
	return cmd
}

func (c *copyCommand) run(ctx context.Context, from, to string, names []string) error {
	req, err := c.request()
	if err != nil {
		return err
	}
	b, err := openBackup(from, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	ids, err := c.releases(b, names)
	if err != nil {
		return err
	}
	if err := apart(from, to); err != nil {
		return err
	}
	lock, err := b.Lock(ctx, req.Lock)
	if err != nil {
		return err
	}
	defer lock.Close()
	done := newBatch()
	err = c.copyAll(ctx, done, backup.FromCache(b, c.asIs), to, ids, req)
	if len(names) == 0 && (len(ids) == 0 || len(done.Releases) > 0) && !c.dryRun && ctx.Err() == nil {
		err = errors.Join(err, c.copyDumps(ctx, b, to, req.Lock))
	}
	if c.json && ctx.Err() == nil {
		err = errors.Join(err, printJSON(c.s.out, done))
	}
	return err
}

// copyDumps copies the dumps of databases too: they belong to no release.
func (c *copyCommand) copyDumps(ctx context.Context, from *backup.Backup, to string, lock lock.Options) error {
	copied, err := backup.CopyDumps(ctx, to, from, lock)
	if len(copied) > 0 && !c.quiet && !c.json {
		fmt.Fprintf(c.s.out, "copied %s of databases\n", count(len(copied), "dump"))
	}
	return err
}

// request checks the flags.
func (c *copyCommand) request() (req backup.Request, err error) {
	if c.asIs && (c.compression != "" || c.level != 0) {
		return req, usageErrorf("--as-is does not go with --compression or --level")
	}
	req = backup.Request{Compression: c.compression, Level: c.level, DryRun: c.dryRun}
	if err := req.Check(); err != nil {
		return req, usageErrorf("%v", err)
	}
	req.Lock, err = c.lock.options(c.s, "copy")
	return req, err
}

// releases returns what is to be copied.
func (c *copyCommand) releases(b *backup.Backup, names []string) ([]backup.ReleaseID, error) {
	if len(names) == 0 {
		ids, err := b.Releases()
		if err != nil || len(ids) > 0 {
			return ids, err
		}
		if dumps, err := b.Dumps(); err != nil || len(dumps) > 0 {
			return nil, err
		}
		return nil, fmt.Errorf("%s has no releases; \"narvault backup --from\" takes store paths from it", b.Dir())
	}
	var ids []backup.ReleaseID
	for _, name := range names {
		id, err := backup.ParseReleaseID(name)
		if err != nil {
			return nil, err
		}
		if _, err := b.ReleaseTime(id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// copyAll copies one release after the other.
func (c *copyCommand) copyAll(ctx context.Context, done *batch, from *backup.CacheStore, to string, ids []backup.ReleaseID, req backup.Request) error {
	for _, id := range ids {
		err := done.do(ctx, id, func() (*backup.Result, error) { return c.copyRelease(ctx, from, to, id, req) })
		if err != nil {
			return err
		}
	}
	return done.end(ctx, c.s.err)
}

func (c *copyCommand) copyRelease(ctx context.Context, from *backup.CacheStore, to string, id backup.ReleaseID, req backup.Request) (*backup.Result, error) {
	progress := newProgress(c.s.err, c.quiet || c.dryRun)
	req.Progress, req.Cache = progress.hooks(), cacheOptions(c.s.err)
	result, err := backup.Copy(ctx, to, from, id, req)
	progress.stop()
	if err != nil {
		progress.goesOn("in the backup")
		return nil, err
	}
	if !c.quiet && !c.json {
		summary(c.s.out, to, result, copying)
	}
	return result, exceptions(c.s.err, result)
}

// apart refuses to copy a backup into itself.
func apart(from, to string) error {
	a, err := os.Stat(from)
	if err != nil {
		return err
	}
	if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
		return usageErrorf("%s and %s are the same directory", from, to)
	}
	return nil
}
