package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/storepath"
)

// exportCommand is "narvault export".
type exportCommand struct {
	s streams
}

func (c *exportCommand) cobra(s streams) *cobra.Command {
	c.s = s
	return &cobra.Command{
		Use:         "export BACKUP P/N|STORE-PATH...",
		Short:       "Write closures as a stream for nix-store --import",
		Annotations: map[string]string{uncaught: ""},
		Long: `Writes releases (PROJECT/NAME) and store paths, each with all that it refers to,
as one stream to standard output, for "nix-store --import":

  narvault export /media/backup disnix/disnix-0.3 | nix-store --import

The stream has no signatures and no content addresses: the format has no room
for them.`,
		Args: argRange(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
}

func (c *exportCommand) run(ctx context.Context, dir string, names []string) error {
	if terminal(c.s.out) {
		return usageErrorf("the stream would go to the terminal: redirect it (> FILE.closure) or pipe it into nix-store --import")
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	var paths []storepath.Path
	for _, name := range names {
		more, err := closureOf(b, name)
		if err != nil {
			return err
		}
		paths = append(paths, more...)
	}
	slices.Sort(paths)
	e, err := b.NewExport(slices.Compact(paths))
	if err != nil {
		return err
	}
	defer e.Close()
	_, err = e.WriteTo(backup.Interruptible(ctx, c.s.out))
	return err
}

// closureOf returns the store paths that an argument of export stands for.
func closureOf(b *backup.Backup, name string) ([]storepath.Path, error) {
	if whole := wholePaths(b, name); whole != nil {
		return b.PathClosure(whole)
	}
	place, err := find(b, name)
	if err != nil {
		return nil, err
	}
	if place.Node == nil {
		return b.WholeClosure(place.ID)
	}
	defer place.Node.Close()
	return b.PathClosure([]storepath.Path{place.Node.Path})
}
