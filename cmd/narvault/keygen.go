package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
)

// keygenCommand is "narvault keygen".
type keygenCommand struct {
	s streams
}

func (c *keygenCommand) cobra(s streams) *cobra.Command {
	c.s = s
	return &cobra.Command{
		Use:   "keygen KEY-NAME FILE",
		Short: "Make a key to sign store paths with",
		Long: `Makes a key pair in Nix's format: the secret key in FILE, which only its owner can
read, the public key in FILE.pub and on standard output. Nothing is overwritten.

  narvault keygen backup.example.org-1 /root/backup.key
  narvault sign /media/backup --sign-key /root/backup.key

KEY-NAME tells keys apart: Nix takes a signature only from the key of its name.`,
		Args: argRange(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := backup.MakeKey(args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(c.s.out, key.Public())
			return nil
		},
	}
}
