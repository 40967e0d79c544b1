package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/index/bincache"
)

// hydraDumpCommand is "narvault hydra dump".
type hydraDumpCommand struct {
	s        streams
	database databaseFlag
	programs []string
	scratch  string
	verify   bool
	keep     int
	level    int
	json     bool
	quiet    bool
	lock     lockFlags
}

func (c *hydraDumpCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "dump BACKUP --database URL",
		Short: "Put a dump of the whole database into a backup",
		Long: `Dumps the whole database, as it is at one instant, into
BACKUP/hydra/DATABASE-TIME.sql.zst, by PostgreSQL's own pg_dump of at least the
server's version. BACKUP is made if it is not there. The dump gets its name when
it is complete and on the disk. Without narvault, "zstd -dc FILE | psql DATABASE"
restores it.

--verify restores it for trial into a scratch database on the same server, or on
that of --scratch, counts the rows of all tables, and drops it again. --keep N
then removes older dumps of the same database, all but the newest N; those of a
database of this name on another server stay.

The dump holds what the database holds, the hashes of passwords as well: only its
owner may read it.`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	c.database.add(f)
	addPrograms(f, &c.programs)
	f.BoolVar(&c.verify, "verify", false, "prove the dump by restoring it into a scratch database")
	f.StringVar(&c.scratch, "scratch", "", "with --verify, make the scratch database on the server of this database `URL`")
	f.IntVar(&c.keep, "keep", 0, "keep the newest `N` dumps of this database only (default: all)")
	f.IntVar(&c.level, "level", 0, "zstd level, 1 to 22 (default: that of the backup)")
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no summary")
	c.lock.add(f)
	return cmd
}

func (c *hydraDumpCommand) run(ctx context.Context, dir string) error {
	database, err := c.database.get()
	if err != nil {
		return err
	}
	if c.scratch != "" && !c.verify {
		return usageErrorf("--scratch is for --verify")
	}
	req := backup.DumpRequest{Keep: c.keep, Level: c.level}
	if err := req.Check(); err != nil {
		return usageErrorf("%v", err)
	}
	if req.Lock, err = c.lock.options(c.s, "hydra dump"); err != nil {
		return err
	}
	if err := c.makeBackup(ctx, dir, database, req.Lock); err != nil {
		return err
	}
	var info *hydra.DumpInfo
	req.Write = func(ctx context.Context, w io.Writer) (string, json.RawMessage, error) {
		if info, err = hydra.Dump(ctx, database, w, c.programs); err != nil {
			return "", nil, err
		}
		text, err := json.Marshal(info)
		return info.Database, text, err
	}
	req.Same = func(older *backup.Dump) bool { return info.Same(infoOf(older)) }
	if c.verify {
		req.Verify = func(ctx context.Context, d *backup.Dump) error {
			return c.prove(ctx, database, d, info)
		}
	}
	result, err := backup.AddDump(ctx, dir, req)
	if err != nil {
		return err
	}
	return c.report(result, info)
}

// makeBackup makes the backup in dir, if there is none and there is a database to
// dump.
func (c *hydraDumpCommand) makeBackup(ctx context.Context, dir, database string, o lock.Options) error {
	b, err := backup.Open(dir, bincache.Options{})
	if err == nil {
		return b.Close()
	}
	if !errors.Is(err, backup.ErrNoBackup) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := backup.MayCreate(dir); err != nil {
		return err
	}
	if err := hydra.Ping(ctx, database); err != nil {
		return err
	}
	storeDir := cmp.Or(os.Getenv("NIX_STORE_DIR"), "/nix/store")
	store, err := nixstore.Open(ctx, nixstore.Options{})
	switch {
	case err == nil:
		storeDir = store.Dir()
		err = store.Close()
	case errors.Is(err, exec.ErrNotFound): // Hydra's machine is another one
		err = nil
	}
	if err != nil {
		return err
	}
	return backup.Create(ctx, dir, storeDir, backup.Config{}, o)
}

// infoOf returns what is known of the database of a dump, its name at least.
func infoOf(d *backup.Dump) *hydra.DumpInfo {
	var info hydra.DumpInfo
	if d.Info == nil || json.Unmarshal(d.Info, &info) != nil {
		return &hydra.DumpInfo{Database: d.Database}
	}
	return &info
}

// prove restores a dump into a scratch database.
func (c *hydraDumpCommand) prove(ctx context.Context, database string, d *backup.Dump, info *hydra.DumpInfo) error {
	if c.scratch != "" {
		database = c.scratch
	}
	sql, err := d.Open()
	if err != nil {
		return err
	}
	return errors.Join(hydra.Verify(ctx, database, sql, info.Tables, c.programs), sql.Close())
}

func (c *hydraDumpCommand) report(r *backup.DumpResult, info *hydra.DumpInfo) error {
	if c.json {
		return printJSON(c.s.out, describeDump(r.Dump))
	}
	if c.quiet {
		return nil
	}
	verified := ""
	if r.Dump.Verified != nil {
		verified = ", verified"
	}
	fmt.Fprintf(c.s.out, "dumped database %s (%s, %s, compressed to %s%s)\n  in %s\n",
		info.Database, count(len(info.Tables), "table"), count(int(totalRows(info.Tables)), "row"), size(r.Dump.Size), verified, r.Dump.File)
	for _, file := range r.Removed {
		fmt.Fprintf(c.s.out, "  removed %s\n", file)
	}
	return nil
}

func totalRows(tables map[string]int64) (sum int64) {
	for _, n := range tables {
		sum += n
	}
	return sum
}

// A dumpInfo is a dump as JSON.
type dumpInfo struct {
	Version  int             `json:"version"`
	File     string          `json:"file"`
	Database string          `json:"database,omitempty"`
	Created  time.Time       `json:"created"`
	Size     int64           `json:"size"`               // bytes, compressed
	Verified *time.Time      `json:"verified,omitempty"` // when it was restored for trial
	Info     json.RawMessage `json:"info,omitempty"`     // of the database: hydra.DumpInfo
}

func describeDump(d *backup.Dump) dumpInfo {
	return dumpInfo{Version: backup.FormatVersion, File: d.File, Database: d.Database, Created: d.Created, Size: d.Size, Verified: d.Verified, Info: d.Info}
}

// hydraDumpsCommand is "narvault hydra dumps".
type hydraDumpsCommand struct {
	s    streams
	json bool
}

func (c *hydraDumpsCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "dumps BACKUP",
		Short: "List the dumps of databases in a backup",
		Long: `Lists the dumps in a backup, the newest first, and those made by hand in its
directory (hydra-20140722.pgsql.xz).`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(args[0])
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "write the list as JSON")
	return cmd
}

func (c *hydraDumpsCommand) run(dir string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	dumps, err := b.Dumps()
	if err != nil {
		return err
	}
	if c.json {
		list := struct {
			Version int        `json:"version"`
			Dumps   []dumpInfo `json:"dumps"`
		}{Version: backup.FormatVersion, Dumps: []dumpInfo{}}
		for _, d := range dumps {
			list.Dumps = append(list.Dumps, describeDump(d))
		}
		return printJSON(c.s.out, list)
	}
	tty := terminal(c.s.out)
	for _, d := range dumps {
		verified := "not verified"
		if d.Verified != nil {
			verified = "verified"
		}
		of := ""
		if info := infoOf(d); info.System != "" {
			of = fmt.Sprintf("  (server %s, PostgreSQL %s)", info.System, info.Server)
		}
		fmt.Fprintf(c.s.out, "%s  %8s  %-12s  %s%s\n", d.Created.Local().Format(time.DateTime), size(d.Size), verified, shown(d.File, tty), shown(of, tty))
	}
	return nil
}
