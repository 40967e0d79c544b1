package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/hydra"
)

// hydraRestoreDatabaseCommand is "narvault hydra restore-database".
type hydraRestoreDatabaseCommand struct {
	s        streams
	database databaseFlag
	programs []string
	replace  bool
	noOwner  bool
	quiet    bool
}

func (c *hydraRestoreDatabaseCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "restore-database BACKUP [DUMP] --database URL",
		Short: "Restore a dump into an empty database",
		Long: `Restores a dump of the backup, the newest or the one that is named, into a
database, with psql and in one transaction: all of it, or the database stays as
it was. DUMP may also be any file that pg_dump wrote in its plain format, as it
is or compressed (.zst, .xz, .gz, .bz2, .lz4), such as hydra-20140722.pgsql.xz.

The database must be there (createdb) and empty; --replace drops what is in it
first. The role that the database is given with must be one that may make what
is in the dump; with --no-owner everything belongs to it, whoever had it before.
A dump is a program: restore only those that you trust.`,
		Args: argRange(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 1 {
				name = args[1]
			}
			return c.run(cmd.Context(), args[0], name)
		},
	}
	f := cmd.Flags()
	c.database.add(f)
	addPrograms(f, &c.programs)
	f.BoolVar(&c.replace, "replace", false, "drop what is in the database first")
	f.BoolVar(&c.noOwner, "no-owner", false, "leave out who owns what and who may do what")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no summary")
	return cmd
}

func (c *hydraRestoreDatabaseCommand) run(ctx context.Context, dir, name string) error {
	if c.replace && c.database.name == "" {
		return usageErrorf("--replace drops what is in the database: say with --database which one")
	}
	database, err := c.database.get()
	if err != nil {
		return err
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	d, err := dumpOf(b, name)
	if err != nil {
		return err
	}
	tables, err := c.load(ctx, database, d)
	if err != nil {
		return err
	}
	if !c.quiet {
		fmt.Fprintf(c.s.out, "restored %s: %s, %s\n", d.File, count(len(tables), "table"), count(int(totalRows(tables)), "row"))
	}
	return nil
}

// dumpOf returns the dump of that name, or the newest. Which database that is of
// must not be a matter of luck: two servers may have one of the same name.
func dumpOf(b *backup.Backup, name string) (*backup.Dump, error) {
	d, err := b.Dump(name)
	if err != nil || name != "" {
		return d, err
	}
	dumps, err := b.Dumps()
	if err != nil {
		return nil, err
	}
	servers := make(map[string]bool)
	var newest []string
	for _, other := range dumps {
		info := infoOf(other)
		if other.Database != d.Database || info.System == "" || servers[info.System] {
			continue
		}
		servers[info.System] = true
		newest = append(newest, fmt.Sprintf("\n  %s (server %s)", filepath.Base(other.File), info.System))
	}
	if len(newest) > 1 {
		return nil, fmt.Errorf("%s has dumps of databases called %s of several servers: name one, the newest of each are:%s", b.Dir(), d.Database, strings.Join(newest, ""))
	}
	return d, nil
}

func (c *hydraRestoreDatabaseCommand) load(ctx context.Context, database string, d *backup.Dump) (map[string]int64, error) {
	sql, err := d.Open()
	if err != nil {
		return nil, err
	}
	o := hydra.LoadOptions{Replace: c.replace, NoOwner: c.noOwner, Programs: c.programs}
	o.Tables = infoOf(d).Tables
	tables, err := hydra.Load(ctx, database, sql, o)
	return tables, errors.Join(err, sql.Close())
}
