package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/storepath"
)

// whyDependsCommand is "narvault why-depends".
type whyDependsCommand struct {
	s    streams
	json bool
}

func (c *whyDependsCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:         "why-depends BACKUP PATH PATH",
		Short:       "Show why one archived store path needs another",
		Annotations: map[string]string{uncaught: ""},
		Long:        `Shows a shortest chain of references from the first store path to the second.`,
		Args:        argRange(3, 3),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.run(args[0], args[1], args[2])
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "write JSON")
	return cmd
}

// A dependency is the JSON of "narvault why-depends".
type dependency struct {
	Version int              `json:"version"`
	Chain   []storepath.Path `json:"chain"` // empty: there is none
}

func (c *whyDependsCommand) run(dir, from, to string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	first, err := storePath(b, from)
	if err != nil {
		return err
	}
	second, err := storePath(b, to)
	if err != nil {
		return err
	}
	chain, err := b.WhyDepends(first, second)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.s.out, dependency{backup.FormatVersion, append([]storepath.Path{}, chain...)})
	}
	if chain == nil {
		_, err = fmt.Fprintf(c.s.out, "%s does not depend on %s\n", first, second)
		return err
	}
	for i, p := range chain {
		fmt.Fprintf(c.s.out, "%s%s\n", strings.Repeat("  ", i), p)
	}
	return nil
}

// storePath returns the store path that a PATH argument is in.
func storePath(b *backup.Backup, name string) (storepath.Path, error) {
	place, err := findPath(b, name, false)
	if err != nil {
		return "", err
	}
	if place.Node == nil {
		return "", usageErrorf("%s is no store path", name)
	}
	return place.Node.Path, place.Node.Close()
}
