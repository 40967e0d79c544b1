package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/narread/storepath"
)

// checkCommand is "narvault check".
type checkCommand struct {
	s        streams
	readData string
	keys     []string
	json     bool
	verbose  bool
	quiet    bool
}

func (c *checkCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "check BACKUP",
		Short: "Look for damage in a backup",
		Long: `Looks for damage in a backup, or in any other binary cache, and names all of it:
the file, where in it, which store paths and releases it hurts, and what to do.
Nothing is written to a cache of others.

Without --read-data, files are compared with each other: narinfos, references,
releases, listings, the index, the presence and sizes of NAR files. With it, NAR
files are read whole, those first that were not for the longest time:

  --read-data        all of them
  --read-data=10%    a tenth, by size
  --read-data=2/7    the second of seven parts: one for each day of the week
  --read-data=30m    as many as 30 minutes allow

With --trusted-key, signatures are verified, and what no such key has signed is
reported.

Exit codes: 0 when there is no damage, 4 when there is, 1 when something could
not be read and may be damaged.`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], cmd.Flags().Changed("read-data"))
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.readData, "read-data", "", "read NAR files: all, or `PART` of them")
	f.Lookup("read-data").NoOptDefVal = "all"
	f.StringArrayVar(&c.keys, "trusted-key", nil, "verify signatures with a public `KEY`, as in Nix's trusted-public-keys")
	f.BoolVar(&c.json, "json", false, "write the report as JSON")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "also list what is odd, but harmless")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress and no summary")
	return cmd
}

func (c *checkCommand) run(ctx context.Context, dir string, readData bool) error {
	o := check.Options{Cache: cacheOptions(c.s.err)}
	if err := c.options(&o, readData); err != nil {
		return err
	}
	p := newProgress(c.s.err, c.quiet || c.json && !terminal(c.s.err))
	o.Progress = p.checkHooks()
	report, err := check.Run(ctx, dir, o)
	p.stop()
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(c.s.out, report)
	} else {
		err = c.print(report)
	}
	return errors.Join(err, verdict(report))
}

func (c *checkCommand) options(o *check.Options, readData bool) (err error) {
	if readData {
		if o.ReadData, err = check.ParseSelection(c.readData); err != nil {
			return usageErrorf("--read-data: %v", err)
		}
	}
	for _, text := range c.keys {
		key, err := signature.ParsePublicKey(text)
		if err != nil {
			return usageErrorf("--trusted-key: %v", err)
		}
		o.TrustedKeys = append(o.TrustedKeys, key)
	}
	return nil
}

// verdict is the error that makes the exit code.
func verdict(r *check.Report) error {
	switch {
	case r.Counts[check.Damage] > 0:
		return fmt.Errorf("%w: %s", errDamage, count(r.Counts[check.Damage], "finding"))
	case r.Counts[check.Unreadable] > 0:
		return fmt.Errorf("%s could not be read, and may be damaged or not", count(r.Counts[check.Unreadable], "file"))
	}
	return nil
}

// print writes the report for people: all that matters in full.
func (c *checkCommand) print(r *check.Report) error {
	out := bufio.NewWriter(c.s.out)
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity != check.Note || c.verbose {
			printFinding(out, f)
		}
	}
	if !c.quiet {
		c.summary(out, r)
	}
	return out.Flush()
}

func printFinding(w io.Writer, f *check.Finding) {
	at := ""
	if f.Offset != nil {
		at = fmt.Sprintf(" at offset %d", *f.Offset)
	}
	fmt.Fprintf(w, "%s: %s%s: %s\n", f.Severity, nameInLine(f.File), at, message(f.Message))
	if len(f.Releases) > 0 {
		fmt.Fprintf(w, "  in %s\n", message(joined(f.Releases, backup.ReleaseID.String)))
	}
	if len(f.StorePaths) > 0 {
		fmt.Fprintf(w, "  hurts %s\n", joined(f.StorePaths, storepath.Path.String))
	}
	if len(f.Files) > 0 {
		fmt.Fprintf(w, "  of which are lost %s\n", message(joined(f.Files, func(name string) string { return name })))
	}
	if f.Remedy != "" {
		fmt.Fprintf(w, "  %s\n", message(f.Remedy))
	}
}

// joined lists items, the first ones of many.
func joined[T any](items []T, text func(T) string) string {
	var words []string
	for i, item := range items {
		if i == maxListed {
			return strings.Join(words, ", ") + fmt.Sprintf(" and %d more (--json lists all)", len(items)-i)
		}
		words = append(words, text(item))
	}
	return strings.Join(words, ", ")
}

func (c *checkCommand) summary(w io.Writer, r *check.Report) {
	fmt.Fprintf(w, "checked %s: %s, %s, %s\n", message(r.Dir), count(r.StorePaths, "store path"), count(r.NarFiles, "NAR file"), count(r.Releases, "release"))
	if d := r.ReadData; d != nil {
		fmt.Fprintf(w, "  read    %s, %s as NARs, in %s", count(d.NarFiles, "NAR file"), size(d.NarSize), seconds(r.Seconds))
		if d.Left > 0 {
			fmt.Fprintf(w, "; %d not this time", d.Left)
		}
		fmt.Fprintln(w)
		switch {
		case d.Oldest != nil:
			fmt.Fprintf(w, "          every NAR file was read and found right since %s\n", d.Oldest.Local().Format("2006-01-02 15:04"))
		case d.Left > 0:
			fmt.Fprintln(w, "          some NAR files were never read")
		}
	}
	var words []string
	for _, s := range []check.Severity{check.Damage, check.Unreadable, check.Warning, check.Note} {
		if n := r.Counts[s]; n > 0 {
			words = append(words, severities(n, s))
		}
	}
	if len(words) == 0 {
		words = []string{"nothing"}
	}
	fmt.Fprintf(w, "  found   %s", strings.Join(words, ", "))
	if r.Counts[check.Note] > 0 && !c.verbose {
		fmt.Fprint(w, " (-v lists notes)")
	}
	fmt.Fprintln(w)
}

// severities counts findings in words; damage and unreadable have no plural.
func severities(n int, s check.Severity) string {
	if s == check.Warning || s == check.Note {
		return count(n, string(s))
	}
	return fmt.Sprintf("%d %s", n, s)
}
