package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/hydra"
)

// hydraListCommand is what "narvault hydra releases" and "narvault hydra
// evaluations" share.
type hydraListCommand struct {
	s        streams
	database databaseFlag
	backup   string
	project  string
	json     bool
}

func (c *hydraListCommand) add(cmd *cobra.Command) {
	f := cmd.Flags()
	c.database.add(f)
	f.StringVar(&c.backup, "backup", "", "say what of it the backup in `DIR` has")
	f.StringVar(&c.project, "project", "", "only those of the project `NAME`")
	f.BoolVar(&c.json, "json", false, "write JSON")
}

// open opens the database, and what the backup has of it.
func (c *hydraListCommand) open(ctx context.Context) (*hydra.Snapshot, *kept, error) {
	database, err := c.database.get()
	if err != nil {
		return nil, nil, err
	}
	s, err := hydra.Open(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	k, err := c.kept(s.Database())
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, k, nil
}

// kept is what a backup has of a Hydra.
type kept struct {
	releases    map[backup.ReleaseID]*backup.Release
	evaluations map[int64][]backup.ReleaseID // as which releases
	defined     []backup.Definition
}

func (c *hydraListCommand) kept(database string) (*kept, error) {
	k := &kept{releases: make(map[backup.ReleaseID]*backup.Release), evaluations: make(map[int64][]backup.ReleaseID)}
	if c.backup == "" {
		return k, nil
	}
	b, err := openBackup(c.backup, c.s.err)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	ids, err := b.Releases()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		r, err := b.Release(id)
		if err != nil {
			return nil, err
		}
		k.releases[id] = r
		if s := r.Source; s.Kind == "hydra" && s.Database == database && s.Evaluation != 0 {
			k.evaluations[s.Evaluation] = append(k.evaluations[s.Evaluation], id)
		}
	}
	k.defined, err = backup.Definitions(c.backup, database)
	return k, err
}

// hydraReleasesCommand is "narvault hydra releases".
type hydraReleasesCommand struct{ hydraListCommand }

func (c *hydraReleasesCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "releases --database URL",
		Short: "List the releases of a Hydra",
		Long: `Lists the releases in Hydra's tables, which it had until 2020 and upgraded
databases still have, and those that "narvault hydra create-release" defined in
the backup: builds that succeeded of all, and the size of their outputs. With
--backup DIR, when each was backed up.`,
		Annotations: map[string]string{uncaught: ""},
		Args:        argRange(0, 0),
		RunE:        func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.add(cmd)
	return cmd
}

// A hydraRelease is a line of the list.
type hydraRelease struct {
	hydra.ReleaseInfo
	Evaluation int64      `json:"evaluation,omitempty"` // of one that is defined in the backup
	BackedUp   *time.Time `json:"backedUp,omitempty"`
}

func (c *hydraReleasesCommand) run(ctx context.Context) error {
	snapshot, kept, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	native, err := snapshot.Releases(ctx, c.project)
	if err != nil {
		return err
	}
	list := []hydraRelease{}
	for _, r := range native {
		list = append(list, hydraRelease{ReleaseInfo: r})
	}
	for _, d := range kept.defined {
		if c.project != "" && c.project != d.Release.Project {
			continue
		}
		list = append(list, hydraRelease{Evaluation: d.Evaluation, ReleaseInfo: c.defined(ctx, snapshot, &d)})
	}
	for i := range list {
		if r := kept.releases[backup.ReleaseID{Project: list[i].Project, Name: list[i].Name}]; r != nil {
			list[i].BackedUp = &r.Created
		}
	}
	if c.json {
		return printJSON(c.s.out, struct {
			Version  int            `json:"version"`
			Releases []hydraRelease `json:"releases"`
		}{backup.FormatVersion, list})
	}
	if !snapshot.HasReleases() && len(list) == 0 {
		fmt.Fprintf(c.s.err, "narvault: %v: \"narvault hydra evaluations\" lists what can be backed up as one\n", hydra.ErrNoReleases)
	}
	return c.print(list)
}

// defined describes a release that is defined in the backup; of an evaluation
// that Hydra has no more, little is known.
func (c *hydraReleasesCommand) defined(ctx context.Context, s *hydra.Snapshot, d *backup.Definition) hydra.ReleaseInfo {
	info, err := s.PlanRelease(ctx, d.Evaluation, d.Release.Name, d.Description)
	if err != nil {
		info = &hydra.ReleaseInfo{Description: d.Description}
	}
	info.Project, info.Name, info.Created = d.Release.Project, d.Release.Name, d.Created
	return *info
}

func (c *hydraReleasesCommand) print(list []hydraRelease) error {
	if len(list) == 0 {
		return nil
	}
	w := newColumns(c.s)
	w.row("RELEASE", "CREATED", "BUILDS", "SIZE", "BACKED UP", "DESCRIPTION")
	for _, r := range list {
		done := "no"
		if r.BackedUp != nil {
			done = r.BackedUp.Local().Format(time.DateTime)
		}
		if c.backup == "" {
			done = "-"
		}
		w.row(r.Project+"/"+r.Name, r.Created.Local().Format(time.DateOnly), builds(&r.Amounts), size(r.Size), done, r.Description)
	}
	return w.Flush()
}

// hydraEvaluationsCommand is "narvault hydra evaluations".
type hydraEvaluationsCommand struct {
	hydraListCommand
	jobset string
	limit  int
}

func (c *hydraEvaluationsCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "evaluations --database URL",
		Short: "List the evaluations of a Hydra",
		Long: `Lists the newest evaluations that have builds: builds that succeeded of all, how
many are not finished, and the size of their outputs. With --backup DIR, as which
releases they were backed up.`,
		Annotations: map[string]string{uncaught: ""},
		Args:        argRange(0, 0),
		RunE:        func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.add(cmd)
	cmd.Flags().StringVar(&c.jobset, "jobset", "", "only those of jobsets of this `NAME`")
	cmd.Flags().IntVar(&c.limit, "limit", 25, "list no more than the newest `N`; 0 for all")
	return cmd
}

// A hydraEvaluation is a line of the list.
type hydraEvaluation struct {
	hydra.EvaluationInfo
	BackedUp []backup.ReleaseID `json:"backedUp,omitempty"`
}

func (c *hydraEvaluationsCommand) run(ctx context.Context) error {
	if c.limit < 0 {
		return usageErrorf("--limit=%d is negative", c.limit)
	}
	snapshot, kept, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	evaluations, err := snapshot.Evaluations(ctx, c.project, c.jobset, c.limit)
	if err != nil {
		return err
	}
	list := []hydraEvaluation{}
	for _, e := range evaluations {
		list = append(list, hydraEvaluation{e, kept.evaluations[e.ID]})
	}
	if c.json {
		return printJSON(c.s.out, struct {
			Version     int               `json:"version"`
			Evaluations []hydraEvaluation `json:"evaluations"`
		}{backup.FormatVersion, list})
	}
	return c.print(list)
}

func (c *hydraEvaluationsCommand) print(list []hydraEvaluation) error {
	if len(list) == 0 {
		return nil
	}
	w := newColumns(c.s)
	w.row("EVALUATION", "JOBSET", "CREATED", "BUILDS", "SIZE", "BACKED UP")
	for _, e := range list {
		var names []string
		for _, id := range e.BackedUp {
			names = append(names, id.String())
		}
		if len(names) == 0 {
			names = []string{"no"}
		}
		if c.backup == "" {
			names = []string{"-"}
		}
		w.row(fmt.Sprint(e.ID), e.Project+":"+e.Jobset, e.Created.Local().Format(time.DateTime), builds(&e.Amounts), size(e.Size), strings.Join(names, ", "))
	}
	return w.Flush()
}

// builds says how many of the builds succeeded, and how many may yet.
func builds(a *hydra.Amounts) string {
	text := fmt.Sprintf("%d of %d", a.Succeeded, a.Builds)
	if a.Queued > 0 {
		text += fmt.Sprintf(", %d queued", a.Queued)
	}
	return text
}

// columns writes lines of cells below each other.
type columns struct {
	*tabwriter.Writer
	tty bool
}

func newColumns(s streams) *columns {
	return &columns{tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0), terminal(s.out)}
}

func (c *columns) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = shown(cell, c.tty)
	}
	fmt.Fprintln(c, strings.Join(cells, "\t"))
}
