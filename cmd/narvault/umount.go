package main

import (
	"github.com/spf13/cobra"

	"github.com/narvault/narvault/fusefs"
)

// umountCommand is "narvault umount".
type umountCommand struct {
	detach bool
}

func (c *umountCommand) cobra(streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Take a mounted backup away",
		Long: `Takes a mounted backup away, also one whose server is gone, and nothing else.
The server ends by itself. While the mount is in use it stays (exit code 5), and
who uses it is named.`,
		Args: argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			return fusefs.Unmount(args[0], c.detach)
		},
	}
	cmd.Flags().BoolVar(&c.detach, "detach", false, "take it away at once; who uses it can go on for a while")
	return cmd
}
