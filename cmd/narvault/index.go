package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index"
)

// indexCommand is "narvault index".
type indexCommand struct {
	s    streams
	json bool
}

func (c *indexCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "index BACKUP",
		Short: "Bring the index of a backup up to date",
		Long: `Brings the index up to date with the files of a backup, or of any other binary
cache, or builds it. Every backup does so itself, and everything works without
an index, only slower. It lives in BACKUP/index, which may be deleted at any
time; that of a foreign or read-only one in the user's cache directory.`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "write the summary as JSON")
	return cmd
}

// An indexInfo says what the index holds now.
type indexInfo struct {
	Version    int    `json:"version"`
	Dir        string `json:"dir"`
	Generation uint64 `json:"generation"`
	Paths      int    `json:"paths"`
	Entries    int64  `json:"entries"` // files, directories and links in all listings
	Reused     int    `json:"reused"`  // paths that had not changed
	NoListing  int    `json:"noListing"`
	Damaged    int    `json:"damaged"`
	Size       int64  `json:"size"` // bytes
}

func (c *indexCommand) run(ctx context.Context, dir string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	at, err := b.IndexDir()
	if err != nil {
		return err
	}
	start := time.Now()
	stats, err := b.BuildIndex(ctx, at, true, index.BuildOptions{Warn: func(err error) {
		fmt.Fprintf(c.s.err, "narvault: %s\n", message(err.Error()))
	}})
	if err != nil {
		return err
	}
	if err := c.report(at, stats, time.Since(start)); err != nil {
		return err
	}
	if stats.Damaged > 0 {
		return fmt.Errorf("%w: %s", errDamage, count(stats.Damaged, "narinfo"))
	}
	return nil
}

func (c *indexCommand) report(at string, stats *index.Stats, took time.Duration) error {
	if c.json {
		return printJSON(c.s.out, indexInfo{
			Version: backup.FormatVersion, Dir: at, Generation: stats.Generation, Paths: stats.Paths, Entries: stats.Entries,
			Reused: stats.Reused, NoListing: stats.NoListing, Damaged: stats.Damaged, Size: stats.Size,
		})
	}
	state := "indexed"
	if stats.Unchanged {
		state = "up to date"
	}
	_, err := fmt.Fprintf(c.s.out, "%s: %s, %d entries, %s in %s (%s)\n",
		state, count(stats.Paths, "store path"), stats.Entries, size(stats.Size), at, seconds(took.Seconds()))
	return err
}
