package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
)

// diffCommand is "narvault diff".
type diffCommand struct {
	s    streams
	json bool
}

func (c *diffCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:         "diff BACKUP P/N P/N",
		Short:       "Compare two releases: which packages came, went or changed",
		Annotations: map[string]string{uncaught: ""},
		Long: `Compares the store paths of two releases, package by package:

  ~  the version changed
  =  the same version, built anew (from other sources or with other dependencies)
  +  only the second release has it
  -  only the first has it`,
		Args: argRange(3, 3),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.run(args[0], args[1], args[2])
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "write JSON")
	return cmd
}

// A diffInfo is the JSON of "narvault diff".
type diffInfo struct {
	Version int              `json:"version"`
	Before  backup.ReleaseID `json:"before"`
	After   backup.ReleaseID `json:"after"`
	*backup.Difference
}

func (c *diffCommand) run(dir, before, after string) error {
	info := diffInfo{Version: backup.FormatVersion}
	var err error
	if info.Before, err = backup.ParseReleaseID(before); err != nil {
		return err
	}
	if info.After, err = backup.ParseReleaseID(after); err != nil {
		return err
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	if info.Difference, err = b.Diff(info.Before, info.After); err != nil {
		return err
	}
	if c.json {
		return printJSON(c.s.out, info)
	}
	return c.print(info)
}

func (c *diffCommand) print(info diffInfo) error {
	w := tabwriter.NewWriter(c.s.out, 0, 0, 2, ' ', 0)
	for _, p := range info.Packages {
		fmt.Fprintf(w, "%s %s\t%s\t%s\n", sign(p), p.Name, versionChange(p), sizeChange(p.NarSize))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.s.out, "%s in both, %d only in %s, %d only in %s; %s\n",
		count(info.Common, "store path"), len(info.Removed), info.Before, len(info.Added), info.After, sizeChange(info.NarSize))
	return err
}

func sign(p backup.PackageDifference) string {
	switch {
	case len(p.Before) == 0:
		return "+"
	case len(p.After) == 0:
		return "-"
	case slices.Equal(p.Before, p.After):
		return "="
	}
	return "~"
}

func versionChange(p backup.PackageDifference) string {
	before, after := strings.Join(p.Before, ", "), strings.Join(p.After, ", ")
	switch sign(p) {
	case "-":
		return before
	case "~":
		return before + " -> " + after
	}
	return after
}

func sizeChange(n int64) string {
	if n < 0 {
		return "-" + size(-n)
	}
	return "+" + size(n)
}
