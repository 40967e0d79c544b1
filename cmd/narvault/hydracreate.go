package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/hydra"
)

// hydraCreateCommand is "narvault hydra create-release".
type hydraCreateCommand struct {
	s           streams
	database    databaseFlag
	evaluation  int64
	name        string
	description string
	backup      string
	lock        lockFlags
}

func (c *hydraCreateCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "create-release --database URL --evaluation N [--name NAME]",
		Short: "Make a release of an evaluation",
		Long: `Makes a release of all the builds of an evaluation that succeeded, in Hydra's
tables where it has them (until 2020, and in upgraded databases), as hydra-release-eval
did. Where it has not, --backup DIR keeps what the release is in that backup.
Either way, {"project": ..., "name": NAME} in the file of "narvault backup --config"
then backs it up. Without --name, it is named by Hydra's rule.`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	f := cmd.Flags()
	c.database.add(f)
	f.Int64Var(&c.evaluation, "evaluation", 0, "the evaluation's `NUMBER` (required)")
	f.StringVar(&c.name, "name", "", "what the release is called, such as disnix-0.3")
	f.StringVar(&c.description, "description", "", "what the release is, in a few `words`")
	f.StringVar(&c.backup, "backup", "", "where Hydra has no tables of releases, keep it in the backup in `DIR`")
	c.lock.add(f)
	return cmd
}

func (c *hydraCreateCommand) run(ctx context.Context) error {
	database, err := c.database.get()
	if err != nil {
		return err
	}
	if c.evaluation < 1 {
		return usageErrorf("--evaluation NUMBER is missing: \"narvault hydra evaluations\" lists them")
	}
	lock, err := c.lock.options(c.s, "hydra create-release")
	if err != nil {
		return err
	}
	where := "in Hydra"
	info, err := hydra.CreateRelease(ctx, database, c.evaluation, c.name, c.description)
	switch {
	case errors.Is(err, hydra.ErrNoReleases) && c.backup != "":
		where = "in " + c.backup
		info, err = c.define(ctx, database, lock)
	case errors.Is(err, hydra.ErrNoReleases):
		return fmt.Errorf("%w: --backup DIR keeps it in a backup", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.s.out, "created release %s/%s %s: %s, %s\n", info.Project, info.Name, where, count(info.Succeeded, "build"), size(info.Size))
	return nil
}

// define keeps in the backup what the release is.
func (c *hydraCreateCommand) define(ctx context.Context, database string, lock lock.Options) (*hydra.ReleaseInfo, error) {
	snapshot, err := hydra.Open(ctx, database)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	info, err := snapshot.PlanRelease(ctx, c.evaluation, c.name, c.description)
	if err != nil {
		return nil, err
	}
	id, err := backup.ParseReleaseID(info.Project + "/" + info.Name)
	if err != nil {
		return nil, err
	}
	return info, backup.Define(ctx, c.backup, backup.Definition{
		Release: id, Description: c.description, Database: snapshot.Database(), Evaluation: c.evaluation, Created: info.Created,
	}, lock)
}

// defined replaces a selection by name, in a Hydra that has no releases, by what
// the backup says the releases of that name are.
func defined(dir string, snapshot *hydra.Snapshot, sel hydra.Selection) ([]hydra.Selection, error) {
	if !sel.Native() || snapshot.HasReleases() {
		return []hydra.Selection{sel}, nil
	}
	list, err := backup.Definitions(dir, snapshot.Database())
	if err != nil {
		return nil, err
	}
	var found []hydra.Selection
	for _, d := range list {
		if d.Release.Project == sel.Project && sel.Matches(d.Release.Name) {
			one := sel
			one.Name, one.Evaluation = d.Release.Name, d.Evaluation
			if one.Description == "" {
				one.Description = d.Description
			}
			found = append(found, one)
		}
	}
	if found == nil {
		return []hydra.Selection{sel}, nil // whose error says what can be done
	}
	return found, nil
}
