package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
)

// signCommand is "narvault sign".
type signCommand struct {
	s     streams
	keys  []string
	json  bool
	quiet bool
	lock  lockFlags
}

func (c *signCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "sign BACKUP --sign-key FILE [P/N...]",
		Short: "Sign what is in a backup",
		Long: `Signs the store paths of releases, or all of a backup, with secret keys of Nix
(narvault keygen makes one). Whoever has the public key in trusted-public-keys
of nix.conf can restore them as an ordinary user, with any Nix.

Signatures that are there stay. Nothing but narinfos changes. The public keys
are noted in the README.txt of the backup.`,
		Args: argRange(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.keys, "sign-key", nil, "secret key `FILE` (required; may be repeated)")
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no summary")
	c.lock.add(f)
	return cmd
}

func (c *signCommand) run(ctx context.Context, dir string, names []string) error {
	if len(c.keys) == 0 {
		return usageErrorf("--sign-key FILE is missing: it has the secret key to sign with")
	}
	req := backup.SignRequest{Cache: cacheOptions(c.s.err)}
	for _, name := range names {
		id, err := backup.ParseReleaseID(name)
		if err != nil {
			return err
		}
		req.Releases = append(req.Releases, id)
	}
	var err error
	if req.Lock, err = c.lock.options(c.s, "sign"); err != nil {
		return err
	}
	if req.Keys, err = loadKeys(c.keys); err != nil {
		return err
	}
	r, damage, err := backup.Sign(ctx, dir, req)
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(c.s.out, r)
	} else if !c.quiet {
		fmt.Fprintf(c.s.out, "signed %s of %d\n", count(r.Signed, "store path"), r.Paths)
		for _, key := range r.Keys {
			fmt.Fprintf(c.s.out, "  public key %s\n", key)
		}
	}
	list(c.s.err, "warning: ", r.Warnings)
	return errors.Join(damage, err)
}

// loadKeys reads secret key files.
func loadKeys(files []string) ([]backup.SignKey, error) {
	var keys []backup.SignKey
	for _, file := range files {
		key, err := backup.LoadKey(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
