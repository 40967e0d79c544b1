package hydra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A DumpInfo says what a dump is of.
type DumpInfo struct {
	Database string           `json:"database"`
	Server   string           `json:"server"` // version of PostgreSQL
	System   string           `json:"system"` // which server it is: PostgreSQL's system identifier, "" if the role may not ask
	Program  string           `json:"program"`
	Schema   int              `json:"schemaVersion"` // of Hydra's tables, 0 if it does not say
	Tables   map[string]int64 `json:"tables"`        // rows, by schema.table
}

// Dump writes a dump of a whole database to w, as SQL that psql takes, made by
// a pg_dump that is at least of the server's version. It is looked for in
// programs, or, if that is nil, in PATH and where Debian has it. The dump, and
// the count of rows in the result, are of one instant, whatever is written to the database
// meanwhile. After an error, what was written is worth nothing.
//
// The database is named as for Open.
func Dump(ctx context.Context, database string, w io.Writer, programs []string) (*DumpInfo, error) {
	info, err := dump(ctx, database, w, programs)
	if err != nil {
		return nil, fmt.Errorf("dump database: %w", err)
	}
	return info, nil
}

// Ping reports why there can be no connection to a database, whose ever it is.
func Ping(ctx context.Context, database string) error {
	conn, _, err := connect(ctx, database)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	return closeConn(conn)
}

func dump(ctx context.Context, database string, w io.Writer, programs []string) (*DumpInfo, error) {
	conn, where, err := connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	fail := func(err error) (*DumpInfo, error) { return nil, fmt.Errorf("%s: %w", where, explain(err)) }
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fail(err)
	}
	d := &dumping{tx: tx, w: w, info: &DumpInfo{Database: conn.Config().Database}}
	major, err := d.describe(ctx)
	if err != nil {
		return fail(err)
	}
	p, err := dumper(ctx, major, programs)
	if err != nil {
		return fail(err)
	}
	if err := d.run(ctx, p, database); err != nil {
		return fail(err)
	}
	return d.info, nil
}

// A dumping is a dump that is being made.
type dumping struct {
	tx       pgx.Tx
	snapshot string
	w        io.Writer
	info     *DumpInfo
}

// describe reads what the database is, and returns the server's major version.
func (d *dumping) describe(ctx context.Context) (major int, err error) {
	if err := noTimeouts(ctx, d.tx); err != nil {
		return 0, err
	}
	err = d.tx.QueryRow(ctx, "select pg_export_snapshot(), current_setting('server_version'), current_setting('server_version_num')::integer / 10000").
		Scan(&d.snapshot, &d.info.Server, &major)
	if err != nil {
		return 0, err
	}
	if d.info.System, err = systemIdentifier(ctx, d.tx); err != nil {
		return 0, err
	}
	var there bool
	if err := d.tx.QueryRow(ctx, "select to_regclass('schemaversion') is not null").Scan(&there); err != nil || !there {
		return major, err
	}
	return major, d.tx.QueryRow(ctx, "select coalesce(max(version), 0) from schemaversion").Scan(&d.info.Schema)
}

// systemIdentifier tells servers apart. There is none before PostgreSQL 9.6.
func systemIdentifier(ctx context.Context, tx pgx.Tx) (id string, err error) {
	var may bool
	err = tx.QueryRow(ctx, "select coalesce(has_function_privilege(to_regprocedure('pg_control_system()')::oid, 'execute'), false)").Scan(&may)
	if err != nil || !may {
		return "", err
	}
	return id, tx.QueryRow(ctx, "select system_identifier::text from pg_control_system()").Scan(&id)
}

// Same reports whether two dumps may be of one database: their names are equal,
// and it is not known that their servers differ.
func (info *DumpInfo) Same(other *DumpInfo) bool {
	return info.Database == other.Database && (info.System == "" || other.System == "" || info.System == other.System)
}

// noTimeouts lets a transaction take the time that it needs, as pg_dump's does,
// whatever is set for the role. Not all versions have all of these settings.
func noTimeouts(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `select set_config(name, '0', true) from pg_catalog.pg_settings
		where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`)
	return err
}

// run runs pg_dump, and counts rows while it works.
func (d *dumping) run(ctx context.Context, p program, database string) error {
	text, err := dsn(database)
	if err != nil {
		return err
	}
	k, err := parseKeywords(text)
	if err != nil {
		return fmt.Errorf("its name %w", err)
	}
	cmd, stderr, err := p.command(ctx, k, "--format=plain", "--snapshot="+d.snapshot)
	if err != nil {
		return err
	}
	var end ending
	out := &firstError{w: io.MultiWriter(d.w, &end)}
	cmd.Stdout = out
	d.info.Program = "pg_dump " + p.full
	if err := cmd.Start(); err != nil {
		return err
	}
	tables, countErr := countRows(ctx, d.tx)
	d.info.Tables = tables
	if err := d.wait(ctx, p, cmd, stderr, out); err != nil {
		return err
	}
	return errors.Join(end.check(), countErr)
}

func (d *dumping) wait(ctx context.Context, p program, cmd *exec.Cmd, stderr *excerpt, out *firstError) error {
	err := p.finish(ctx, cmd.Wait(), stderr)
	if out.err != nil && ctx.Err() == nil {
		return fmt.Errorf("write the dump: %w", out.err) // and pg_dump complained about that
	}
	return err
}

// A firstError remembers what went wrong with a writer.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n, err
}

// userTables are the relations, with the alias c and their schema n, that are
// neither PostgreSQL's own nor of an extension.
const userTables = `
	from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	  and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')`

// A querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// countRows returns the number of rows of each table, by schema.table.
func countRows(ctx context.Context, q querier) (map[string]int64, error) {
	rows, err := q.Query(ctx, "select n.nspname::text, c.relname::text"+userTables+" and c.relkind = 'r' order by 1, 2")
	if err != nil {
		return nil, err
	}
	var names []pgx.Identifier
	var schema, table string
	if _, err := pgx.ForEachRow(rows, []any{&schema, &table}, func() error {
		names = append(names, pgx.Identifier{schema, table})
		return nil
	}); err != nil {
		return nil, err
	}
	counts := make(map[string]int64, len(names))
	for _, name := range names {
		var n int64
		if err := q.QueryRow(ctx, "select count(*) from "+name.Sanitize()).Scan(&n); err != nil {
			return nil, err
		}
		counts[name[0]+"."+name[1]] = n
	}
	return counts, nil
}

// CompareTables reports which tables have other numbers of rows than they
// should have.
func CompareTables(got, want map[string]int64) error {
	var faults []string
	for _, table := range slices.Sorted(maps.Keys(want)) {
		n, there := got[table]
		switch {
		case !there:
			faults = append(faults, fmt.Sprintf("table %s is missing", table))
		case n != want[table]:
			faults = append(faults, fmt.Sprintf("table %s has %d rows instead of %d", table, n, want[table]))
		}
	}
	for _, table := range slices.Sorted(maps.Keys(got)) {
		if _, known := want[table]; !known {
			faults = append(faults, fmt.Sprintf("table %s is new", table))
		}
	}
	if faults == nil {
		return nil
	}
	return &TablesError{faults}
}

// A TablesError says which tables of a database are not as they were dumped.
type TablesError struct{ Faults []string }

func (e *TablesError) Error() string { return few(e.Faults) }
