package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/index/bincache"
)

// hydraRestoreCommand is "narvault hydra restore".
type hydraRestoreCommand struct {
	s        streams
	database databaseFlag
	dryRun   bool
	json     bool
	quiet    bool
}

func (c *hydraRestoreCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "restore BACKUP P/N... --database URL",
		Short: "Put the rows of releases back into Hydra's database",
		Long: `Puts the rows that were backed up with releases (hydra.json) into the database of
a Hydra, of any schema version since 2014: projects, jobsets, evaluations, builds
and what belongs to them. All of a release in one transaction, or nothing.

What is there already stays as it is, so that a second time changes nothing. The
ids of builds and evaluations are kept where they are free, else exchanged. Hydra
does nothing on its own with what is restored: builds are finished and kept, new
jobsets are disabled, nobody is mailed, and new users have no password.

The store paths are not restored: "narvault restore --hydra URL" does both.`,
		Args: argRange(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
	f := cmd.Flags()
	c.database.add(f)
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no summary")
	return cmd
}

func (c *hydraRestoreCommand) run(ctx context.Context, dir string, names []string) error {
	database, err := c.database.get()
	if err != nil {
		return err
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	releases, err := readRows(b, names)
	if err != nil {
		return err
	}
	err = restoreRows(ctx, database, releases, c.dryRun)
	if c.json && ctx.Err() == nil {
		return errors.Join(err, printJSON(c.s.out, describeRows(releases)))
	}
	if !c.quiet {
		summarizeRows(c.s.out, releases)
	}
	return err
}

// A rowsRelease is a release whose rows are restored.
type rowsRelease struct {
	id   backup.ReleaseID
	file string
	rows hydra.Rows
	done *hydra.Restored // nil before
}

// readRows reads the rows of releases.
func readRows(b *backup.Backup, names []string) ([]*rowsRelease, error) {
	var releases []*rowsRelease
	for _, name := range names {
		id, err := backup.ParseReleaseID(name)
		if err != nil {
			return nil, err
		}
		if _, err := b.ReleaseTime(id); err != nil {
			return nil, err
		}
		rows, err := b.Hydra(id)
		if err != nil {
			return nil, err
		}
		if rows == nil {
			return nil, fmt.Errorf("release %s did not come from Hydra: it has no %s, so there are no rows to restore", id, layout.HydraFile)
		}
		file := filepath.Join(b.Dir(), "releases", id.Project, id.Name, layout.HydraFile)
		releases = append(releases, &rowsRelease{id: id, file: file, rows: hydra.Rows(rows)})
	}
	return releases, nil
}

// restoreRows restores releases one after the other, until one fails.
func restoreRows(ctx context.Context, database string, releases []*rowsRelease, dryRun bool) (err error) {
	for _, r := range releases {
		r.done, err = hydra.Restore(ctx, database, r.rows, hydra.RestoreOptions{DryRun: dryRun})
		switch {
		case errors.Is(err, hydra.ErrRows):
			return &bincache.DamageError{File: r.file, Err: err}
		case err != nil:
			return fmt.Errorf("release %s: %w", r.id, err)
		}
	}
	return nil
}

// A rowsInfo is a release whose rows were restored, as JSON.
type rowsInfo struct {
	Release backup.ReleaseID `json:"release"`
	*hydra.Restored
}

func describeRows(releases []*rowsRelease) any {
	info := struct {
		Version  int        `json:"version"`
		Releases []rowsInfo `json:"releases"`
	}{Version: backup.FormatVersion, Releases: []rowsInfo{}}
	for _, r := range releases {
		if r.done != nil {
			info.Releases = append(info.Releases, rowsInfo{r.id, r.done})
		}
	}
	return info
}

func summarizeRows(w io.Writer, releases []*rowsRelease) {
	for _, r := range releases {
		if r.done != nil {
			summarizeRelease(w, r.id, r.done)
		}
	}
}

func summarizeRelease(w io.Writer, id backup.ReleaseID, r *hydra.Restored) {
	did := "restored"
	if r.DryRun {
		did = "would restore"
	}
	if !r.Changed() {
		did = "all is there:"
	}
	fmt.Fprintf(w, "%s release %s in database %s (schema version %d)\n", did, id, r.Database, r.Schema)
	for _, table := range slices.Sorted(maps.Keys(r.Tables)) {
		fmt.Fprintf(w, "  %-22s %6d rows\n", table, r.Tables[table])
	}
	if r.Kept > 0 {
		fmt.Fprintf(w, "  marked to be kept: %s\n", count(r.Kept, "build"))
	}
	otherIDs(w, "evaluation", r.Evaluations)
	otherIDs(w, "build", r.Builds)
	if len(r.Lost) > 0 {
		fmt.Fprintf(w, "  this Hydra has no place for: %s\n", strings.Join(r.Lost, ", "))
	}
}

// otherIDs names what is not called as it was.
func otherIDs(w io.Writer, what string, ids map[int64]int64) {
	named := 0
	for _, old := range slices.Sorted(maps.Keys(ids)) {
		if ids[old] == old {
			continue
		}
		if named++; named <= maxListed {
			fmt.Fprintf(w, "  %s %d is %d there\n", what, old, ids[old])
		}
	}
	if more := named - maxListed; more > 0 {
		fmt.Fprintf(w, "  and %d more have other ids\n", more)
	}
}
