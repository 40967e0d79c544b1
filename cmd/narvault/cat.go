package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/nar"
)

// catCommand is "narvault cat".
type catCommand struct {
	s streams
}

func (c *catCommand) cobra(s streams) *cobra.Command {
	c.s = s
	return &cobra.Command{
		Use:         "cat BACKUP PATH...",
		Short:       "Write archived files to standard output",
		Annotations: map[string]string{uncaught: ""},
		Long: `Writes the contents of archived files to standard output. Symlinks are followed
inside the backup. Only those parts of an archive are read and decompressed that
hold the file, where its compression allows it.`,
		Args: argRange(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
}

func (c *catCommand) run(ctx context.Context, dir string, paths []string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	var errs []error
	for _, path := range paths {
		errs = append(errs, c.file(ctx, b, path))
	}
	return errors.Join(errs...)
}

func (c *catCommand) file(ctx context.Context, b *backup.Backup, path string) error {
	if id, isRelease := releaseArgument(b, path); isRelease {
		_, err := b.ReleaseTime(id)
		return cmp.Or(err, fmt.Errorf("%s is a release: give a path in it, as \"narvault ls -R\" lists them", id))
	}
	place, err := findPath(b, path, true)
	if err != nil {
		return err
	}
	if place.Node == nil {
		return fmt.Errorf("%s: %w", path, syscall.EISDIR)
	}
	defer place.Node.Close()
	e := place.Node.Listing.Entry(place.Node.Entry)
	if e.Type != nar.Regular {
		return fmt.Errorf("%s: is a %s, not a file", path, e.Type)
	}
	_, err = io.CopyBuffer(backup.Interruptible(ctx, c.s.out), onlyReader{io.NewSectionReader(place.Node.Archive, e.Offset, e.Size)}, make([]byte, 1<<20))
	return err
}

// onlyReader hides WriteTo, so that the copy uses the buffer it is given.
type onlyReader struct{ io.Reader }
