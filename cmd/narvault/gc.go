package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup/gc"
)

// gcCommand is "narvault gc".
type gcCommand struct {
	s            streams
	grace        string
	now          bool
	noReleases   bool
	keepPrevious bool
	dryRun       bool
	verbose      bool
	json         bool
	lock         lockFlags
}

func (c *gcCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "gc BACKUP",
		Short: "Collect what no release needs",
		Long: `Moves what no release needs to the trash of the backup, and deletes what has been
there for longer than the grace time: store paths with their NAR files, listings
and logs, and what interrupted backups left. Needed is what releases name, and
all that this refers to.

gc collects nothing at all when it cannot be sure what is needed: when there is
no release, or one that is incomplete or cannot be read.

Until it is deleted, "narvault forget BACKUP --undo P/N" brings everything of a
forgotten release back, and a backup that needs a store path again does so, too.
Mounts go on beside it.`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.grace, "grace", "7d", "how long the trash keeps things, a `DURATION` such as 12h, 7d or 2w")
	f.BoolVar(&c.now, "now", false, "delete at once, and empty the trash: nothing can be taken back")
	f.BoolVar(&c.noReleases, "allow-no-releases", false, "collect everything when no release is left")
	f.BoolVar(&c.keepPrevious, "keep-previous", false, "keep also what the record before of each release names")
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "list what goes and what stays, and why")
	f.BoolVar(&c.json, "json", false, "write the result as JSON")
	c.lock.add(f)
	return cmd
}

// maxGraceDays is a century: much more than two of them no time.Duration holds.
const maxGraceDays = 36500

func (c *gcCommand) run(ctx context.Context, dir string) error {
	grace, err := gc.ParseSpan(c.grace)
	if err != nil || grace.Years != 0 || grace.Months != 0 || grace.Days > maxGraceDays {
		return usageErrorf("--grace=%s is no duration such as 12h, 7d or 2w, of at most %d days", c.grace, maxGraceDays)
	}
	o := gc.Options{
		DryRun: c.dryRun, NoReleases: c.noReleases, KeepPrevious: c.keepPrevious,
		Grace: time.Duration(grace.Days*24+grace.Hours) * time.Hour,
		Now:   c.now || grace == gc.Span{},
	}
	if o.Lock, err = c.lock.options(c.s, "gc"); err != nil {
		return err
	}
	r, err := gc.Run(ctx, dir, o)
	if err != nil {
		return err
	}
	list(c.s.err, "warning: ", r.Warnings)
	if c.json {
		return printJSON(c.s.out, r)
	}
	c.report(r, o)
	return nil
}

func (c *gcCommand) report(r *gc.Result, o gc.Options) {
	out := c.s.out
	fmt.Fprintf(out, "%s %s: %s, %s, %s\n", count(len(r.Releases), "release"), verb(len(r.Releases), "keep"),
		count(len(r.Kept), "store path"), count(r.NarFiles, "NAR file"), size(r.FileSize))
	c.releases(r)
	c.goes(r, o)
	for i, item := range r.Stays {
		if i == maxListed && !c.verbose {
			fmt.Fprintf(out, "  and %d more; --verbose lists all\n", len(r.Stays)-i)
			break
		}
		fmt.Fprintf(out, "left alone: %s %s\n", nameInLine(item.Name), message(item.Reason))
	}
	freed := "freed"
	if r.DryRun {
		freed = "would free"
	}
	fmt.Fprintf(out, "%s %s", freed, size(r.Freed))
	if r.InTrash > 0 {
		fmt.Fprintf(out, "; %s in the trash, for %s", size(r.InTrash), c.grace)
	}
	fmt.Fprintln(out)
}

// releases says what each release keeps.
func (c *gcCommand) releases(r *gc.Result) {
	for i, kept := range r.Releases {
		if i == maxListed && !c.verbose {
			fmt.Fprintf(c.s.out, "  and %d more; --verbose lists all\n", len(r.Releases)-i)
			break
		}
		fmt.Fprintf(c.s.out, "  %s: %s, %s for it alone\n", message(kept.Release.String()), count(kept.Paths, "store path"), size(kept.OnlyHere))
	}
	if !c.verbose {
		return
	}
	for _, p := range r.Kept {
		others := ""
		if p.Releases > 1 {
			others = fmt.Sprintf(" and %d more", p.Releases-1)
		}
		fmt.Fprintf(c.s.out, "stays: %s is needed by %s%s\n", p.Path, message(p.Release.String()), others)
	}
}

// kindNames are what the kinds are called in the summary.
var kindNames = map[gc.Kind]string{
	gc.NarInfoKind: "store path", gc.NARKind: "NAR file", gc.ListingKind: "listing", gc.LogKind: "build log",
	gc.RealisationKind: "realisation", gc.DebugInfoKind: "debuginfo link", gc.LeftoverKind: "leftover",
}

// goes says what is taken out.
func (c *gcCommand) goes(r *gc.Result, o gc.Options) {
	verb := "to the trash: "
	if o.Now {
		verb = "deleted: "
	}
	if r.DryRun {
		verb = "would go: "
	}
	var parts []string
	for _, kind := range gc.Kinds() {
		n, bytes := 0, int64(0)
		for _, item := range r.Goes {
			if item.Kind == kind {
				n++
				bytes += item.Size
			}
		}
		switch {
		case n > 0 && kind == gc.NARKind:
			parts = append(parts, count(n, kindNames[kind])+" of "+size(bytes))
		case n > 0:
			parts = append(parts, count(n, kindNames[kind]))
		}
	}
	if parts == nil {
		parts = []string{"nothing"}
	}
	fmt.Fprintf(c.s.out, "%s%s\n", verb, strings.Join(parts, ", "))
	if c.verbose {
		for _, item := range r.Goes {
			fmt.Fprintf(c.s.out, "goes: %s: %s\n", nameInLine(item.Name), message(item.Reason))
		}
	}
}

// verb makes a verb agree with a number.
func verb(n int, word string) string {
	if n == 1 {
		return word + "s"
	}
	return word
}
