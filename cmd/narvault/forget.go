package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/gc"
)

// forgetCommand is "narvault forget".
type forgetCommand struct {
	s         streams
	last      keepCount
	daily     keepCount
	weekly    keepCount
	monthly   keepCount
	yearly    keepCount
	within    string
	projects  []string
	removeAll bool
	undo      bool
	now       bool
	dryRun    bool
	json      bool
	lock      lockFlags
}

func (c *forgetCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "forget BACKUP P/N... | --keep-last N ...",
		Short: "Forget releases, by name or by age",
		Long: `Forgets releases: those that are named, or those of each project that no rule
keeps. Their records go to the trash of the backup. "narvault gc" then frees what
no other release needs.

  narvault forget /media/backup disnix/disnix-0.2
  narvault forget /media/backup --keep-last 3 --keep-monthly 12
  narvault forget /media/backup --undo disnix/disnix-0.2

Each rule keeps releases for itself: --keep-daily 7 the newest one of each of the
last 7 days that have any, and so on; --keep-within 1y6m those that are at most
that much older than the newest. A rule that finds fewer than N keeps the oldest
release as well. N may be "unlimited".`,
		Args: argRange(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.Var(&c.last, "keep-last", "keep the `N` newest releases")
	f.Var(&c.daily, "keep-daily", "keep one release of each of the last `N` days")
	f.Var(&c.weekly, "keep-weekly", "keep one release of each of the last `N` weeks")
	f.Var(&c.monthly, "keep-monthly", "keep one release of each of the last `N` months")
	f.Var(&c.yearly, "keep-yearly", "keep one release of each of the last `N` years")
	f.StringVar(&c.within, "keep-within", "", "keep what is at most `DURATION` older than the newest: 30d, 2w, 1y6m")
	f.StringArrayVar(&c.projects, "project", nil, "only releases of this `PROJECT` (may be repeated)")
	f.BoolVar(&c.removeAll, "allow-remove-all", false, "with --project and no rule: forget all releases of the project")
	f.BoolVar(&c.undo, "undo", false, "take releases that were forgotten back, while the trash has them; without names, list these")
	f.BoolVar(&c.now, "now", false, "forget for good: nothing goes to the trash, for which a full disk has no room")
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVar(&c.json, "json", false, "write the result as JSON")
	c.lock.add(f)
	return cmd
}

// A keepCount is the N of a rule; "unlimited" and -1 are all.
type keepCount int

func (k *keepCount) String() string { return strconv.Itoa(int(*k)) }
func (k *keepCount) Type() string   { return "count" }

func (k *keepCount) Set(text string) error {
	if text == "unlimited" {
		text = "-1"
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 {
		return errors.New(`must be a number, or "unlimited"`)
	}
	*k = keepCount(n)
	return nil
}

func (c *forgetCommand) run(ctx context.Context, dir string, names []string) error {
	req, err := c.request(names)
	if err != nil {
		return err
	}
	if c.undo {
		return c.takeBack(ctx, dir, req)
	}
	result, err := gc.Forget(ctx, dir, *req)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.s.out, result)
	}
	c.report(dir, result)
	return nil
}

func (c *forgetCommand) request(names []string) (*gc.ForgetRequest, error) {
	req := &gc.ForgetRequest{
		Policy: gc.Policy{
			Last: int(c.last), Daily: int(c.daily), Weekly: int(c.weekly), Monthly: int(c.monthly), Yearly: int(c.yearly),
		},
		Projects: c.projects, RemoveAll: c.removeAll, Now: c.now, DryRun: c.dryRun,
	}
	for _, name := range names {
		id, err := backup.ParseReleaseID(strings.TrimSuffix(name, "/"))
		if err != nil {
			return nil, err
		}
		req.Releases = append(req.Releases, id)
	}
	var err error
	if c.within != "" {
		if req.Policy.Within, err = gc.ParseSpan(c.within); err != nil {
			return nil, usageErrorf("--keep-within: %v", err)
		}
	}
	if req.Lock, err = c.lock.options(c.s, "forget"); err != nil {
		return nil, err
	}
	if err := req.Check(); err != nil && !(c.undo && len(names) == 0) {
		return nil, usageErrorf("%v", err)
	}
	return req, nil
}

func (c *forgetCommand) takeBack(ctx context.Context, dir string, req *gc.ForgetRequest) error {
	if c.dryRun || c.json || c.now {
		return usageErrorf("--undo has no --dry-run, no --json and no --now")
	}
	if len(req.Releases) == 0 {
		return c.listForgotten(dir)
	}
	for _, id := range req.Releases {
		if err := gc.Unforget(ctx, dir, id, req.Lock); err != nil {
			return err
		}
		fmt.Fprintf(c.s.out, "release %s is back\n", id)
	}
	return nil
}

func (c *forgetCommand) listForgotten(dir string) error {
	found, err := gc.Forgotten(dir)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(c.s.out, "the trash has no release")
	}
	for _, v := range found {
		fmt.Fprintf(c.s.out, "forgotten %s  %s\n", v.Created.Local().Format("2006-01-02 15:04"), message(v.Release.String()))
	}
	return nil
}

func (c *forgetCommand) report(dir string, r *gc.ForgetResult) {
	verb := "forgot"
	if r.DryRun {
		verb = "would forget"
	}
	for _, v := range r.Kept {
		c.verdict("keep", v, strings.Join(v.Reasons, ", "))
	}
	for _, v := range r.Forgotten {
		c.verdict("forget", v, "")
	}
	fmt.Fprintf(c.s.out, "%s %s\n", verb, count(len(r.Forgotten), "release"))
	if !r.DryRun && len(r.Forgotten) > 0 {
		if !c.now {
			fmt.Fprintf(c.s.out, "  narvault forget %s --undo %s   takes it back, as long as the trash has it\n", word(dir), word(r.Forgotten[0].Release.String()))
		}
		fmt.Fprintf(c.s.out, "  narvault gc %s   frees what no release needs any more\n", word(dir))
	}
}

func (c *forgetCommand) verdict(what string, v gc.Verdict, why string) {
	made := "?"
	if !v.Created.IsZero() {
		made = v.Created.Local().Format("2006-01-02 15:04")
	}
	line := fmt.Sprintf("  %-6s  %-16s  %s", what, made, message(v.Release.String()))
	if why != "" {
		line += "  (" + why + ")"
	}
	fmt.Fprintln(c.s.out, line)
}
