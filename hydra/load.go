package hydra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// LoadOptions say how a dump is restored. The zero value restores into an empty
// database, all that is in the dump.
type LoadOptions struct {
	// Replace empties the database first, in the same transaction.
	Replace bool
	// NoOwner leaves out who owns what and who may do what: all belongs to the
	// role that restores.
	NoOwner bool
	// Programs are the directories where psql is looked for; nil is PATH and
	// where Debian has it.
	Programs []string
	// Tables are the numbers of rows that there have to be afterwards, as in
	// DumpInfo; nil if they are not known.
	Tables map[string]int64
}

// A NotEmptyError says that there is something in a database already.
type NotEmptyError struct {
	Database string
	What     []string // some tables
	More     int
}

func (e *NotEmptyError) Error() string {
	more := ""
	if e.More > 0 {
		more = fmt.Sprintf(" and %d more", e.More)
	}
	return fmt.Sprintf("it is not empty: it has %s%s: restore into a new database (createdb), or use --replace, which drops what is there first",
		strings.Join(e.What, ", "), more)
}

// Load restores a dump, the SQL text of a pg_dump, into a database, which must
// be empty, with psql and in one transaction: unless all of the dump is there, up
// to pg_dump's mark for the end, the database stays as it was. It returns the
// number of rows of each table. A dump is a program: it may do whatever the role
// may do in the server. Commands of psql, which could do anything on this machine,
// are refused (by a psql of August 2025 or later).
//
// Settings that a dump begins with and that the server does not know, as dumps
// by newer and by much older versions have them, are passed over.
func Load(ctx context.Context, database string, sql io.Reader, o LoadOptions) (map[string]int64, error) {
	tables, err := load(ctx, database, sql, o)
	if err != nil {
		return nil, fmt.Errorf("restore database: %w", err)
	}
	return tables, nil
}

func load(ctx context.Context, database string, sql io.Reader, o LoadOptions) (map[string]int64, error) {
	conn, where, err := connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	l := &loading{conn: conn, o: o, sql: sql}
	tables, err := l.run(ctx, database)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	return tables, nil
}

// A loading is a dump that is being restored.
type loading struct {
	conn *pgx.Conn
	sql  io.Reader
	o    LoadOptions
}

func (l *loading) run(ctx context.Context, database string) (map[string]int64, error) {
	p, err := loader(ctx, l.o.Programs)
	if err != nil {
		return nil, err
	}
	before, err := l.prologue(ctx)
	if err != nil {
		return nil, err
	}
	filter, err := l.filter(ctx)
	if err != nil {
		return nil, err
	}
	text, err := dsn(database)
	if err != nil {
		return nil, err
	}
	k, err := parseKeywords(text)
	if err != nil {
		return nil, fmt.Errorf("its name %w", err)
	}
	if err := l.psql(ctx, p, k, before, filter); err != nil {
		return nil, err
	}
	tables, err := countRows(ctx, l.conn)
	if err == nil && l.o.Tables != nil {
		if err = CompareTables(tables, l.o.Tables); err != nil {
			err = fmt.Errorf("after the restore: %w", err)
		}
	}
	return tables, err
}

// lockTimeout is how long to wait for others that use what is to be dropped.
const lockTimeout = "15s"

// prologue returns what psql does before the dump.
func (l *loading) prologue(ctx context.Context) (string, error) {
	rows, err := l.conn.Query(ctx, "select n.nspname || '.' || c.relname"+userTables+" and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') order by c.relkind = 'S', 1")
	if err != nil {
		return "", err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "BEGIN;\n", nil
	case !l.o.Replace:
		const some = 3
		shown := names[:min(some, len(names))]
		return "", &NotEmptyError{Database: l.conn.Config().Database, What: shown, More: len(names) - len(shown)}
	}
	return "BEGIN;\nSET LOCAL lock_timeout = '" + lockTimeout + "';\n" + dropAll + "SET LOCAL lock_timeout = DEFAULT;\n", nil
}

// dropAll drops what users made in a database: schemas, and, in the schema
// public, relations, routines and types. Extensions stay: a dump makes them only
// where they are missing.
const dropAll = `DO $narvault$
DECLARE it text;
BEGIN
	FOR it IN SELECT format('DROP SCHEMA %I CASCADE', n.nspname) FROM pg_catalog.pg_namespace n
		WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_catalog.pg_extension'::regclass)
	LOOP EXECUTE it; END LOOP;
	FOR it IN SELECT format('DROP %s IF EXISTS public.%I CASCADE',
			CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.relname)
		FROM pg_catalog.pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))
		ORDER BY c.relkind = 'S'
	LOOP EXECUTE it; END LOOP;
	FOR it IN SELECT format('DROP %s IF EXISTS %s CASCADE', CASE p.prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure)
		FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'public'::regnamespace
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
	LOOP EXECUTE it; END LOOP;
	FOR it IN SELECT format('DROP TYPE IF EXISTS public.%I CASCADE', t.typname)
		FROM pg_catalog.pg_type t WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd', 'c', 'r') AND t.typrelid = 0
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
	LOOP EXECUTE it; END LOOP;
END $narvault$;
`

func (l *loading) filter(ctx context.Context) (*sqlFilter, error) {
	rows, err := l.conn.Query(ctx, "select name from pg_catalog.pg_settings")
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	f := &sqlFilter{settings: make(map[string]bool, len(names)), noOwner: l.o.NoOwner}
	for _, name := range names {
		f.settings[name] = true
	}
	return f, nil
}

// psql gives psql the dump between BEGIN and COMMIT. (With its option for a
// single transaction, psql would commit at the end of what it gets, the end of a
// dump that breaks off among it.)
func (l *loading) psql(ctx context.Context, p program, k keywords, before string, filter *sqlFilter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd, stderr, err := p.command(ctx, k, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-")
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	out := &firstError{w: in}
	after := "\nCOMMIT;\n"
	if p.restricts() {
		key := strconv.FormatUint(rand.Uint64(), 36)
		before, after = before+"\\restrict "+key+"\n", "\n\\unrestrict "+key+after
	}
	err = l.feed(out, before, after, filter)
	if err != nil && out.err == nil {
		cancel(err) // the fault is the dump's: psql must not see an end
	}
	err = errors.Join(err, in.Close())
	ended := p.finish(ctx, cmd.Wait(), stderr)
	if ended != nil {
		return l.advise(ended)
	}
	return err
}

func (l *loading) feed(w io.Writer, before, after string, filter *sqlFilter) error {
	if _, err := io.WriteString(w, before); err != nil {
		return err
	}
	var end ending
	if err := filter.copy(w, io.TeeReader(l.sql, &end)); err != nil {
		return err
	}
	if err := end.check(); err != nil {
		return err
	}
	_, err := io.WriteString(w, after)
	return err
}

// advise adds what can be done about an error of psql's.
func (l *loading) advise(err error) error {
	var psql *ProgramError
	if !errors.As(err, &psql) {
		return err
	}
	const unchanged = " (the database is as it was)"
	switch {
	case strings.Contains(psql.Stderr, "backslash commands are restricted"):
		return fmt.Errorf("%w: pg_dump writes no such commands: somebody has tampered with this dump%s", err, unchanged)
	case strings.Contains(psql.Stderr, "lock timeout"):
		return fmt.Errorf("%w: somebody uses the database: stop Hydra's services first%s", err, unchanged)
	case !l.o.NoOwner && strings.Contains(psql.Stderr, "role \"") && strings.Contains(psql.Stderr, "does not exist"):
		return fmt.Errorf("%w: make that role (createuser), or use --no-owner, with which all belongs to you%s", err, unchanged)
	case !l.o.NoOwner && (strings.Contains(psql.Stderr, "must be owner of") || strings.Contains(psql.Stderr, "must be member of") || strings.Contains(psql.Stderr, "must be able to SET ROLE")):
		return fmt.Errorf("%w: restore as a superuser, or use --no-owner, with which all belongs to you%s", err, unchanged)
	case strings.Contains(psql.Stderr, "permission denied"):
		return fmt.Errorf("%w: restore as the role that owns the database, or as a superuser%s", err, unchanged)
	}
	return fmt.Errorf("%w%s", err, unchanged)
}
