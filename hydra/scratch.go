package hydra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// scratchPrefix is how databases are called that are dropped again.
const scratchPrefix = "narvault_scratch_"

// Verify proves that a dump can be restored: into a new database on the server
// of the database that is named, which itself stays as it is, and counts that
// all tables have the rows that want says. The new database is dropped in any
// case; one that was left by a process that was killed, too. Owners and
// privileges are not restored.
func Verify(ctx context.Context, database string, sql io.Reader, want map[string]int64, programs []string) (err error) {
	if err := verify(ctx, database, sql, want, programs); err != nil {
		return fmt.Errorf("verify dump: %w", err)
	}
	return nil
}

func verify(ctx context.Context, database string, sql io.Reader, want map[string]int64, programs []string) (err error) {
	conn, where, err := connect(ctx, database)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	text, err := dsn(database)
	if err != nil {
		return err
	}
	k, err := parseKeywords(text)
	if err != nil {
		return fmt.Errorf("its name %w", err)
	}
	if err := dropLeftovers(ctx, conn); err != nil {
		return fmt.Errorf("%s: drop scratch databases of others: %w", where, explain(err))
	}
	name := scratchPrefix + strconv.FormatUint(rand.Uint64(), 36)
	if err := createScratch(ctx, conn, name); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	defer func() { err = errors.Join(err, dropScratch(conn, database, name)) }()
	scratch := k.with("dbname", name).String()
	held, _, err := connect(ctx, scratch) // so that dropLeftovers of others sees that it is used
	if err != nil {
		return err
	}
	defer closeConn(held)
	_, err = load(ctx, scratch, sql, LoadOptions{NoOwner: true, Programs: programs, Tables: want})
	return err
}

// createScratch makes a database with the encoding of the one that is connected
// to. No locale of the server matters to how many rows there are.
func createScratch(ctx context.Context, conn *pgx.Conn, name string) error {
	var encoding string
	err := conn.QueryRow(ctx, "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()").Scan(&encoding)
	if err == nil {
		_, err = conn.Exec(ctx, fmt.Sprintf("create database %s template template0 encoding '%s' lc_collate 'C' lc_ctype 'C'", pgx.Identifier{name}.Sanitize(), encoding))
	}
	var server *ServerError
	if err = explain(err); errors.As(err, &server) && server.Code == "42501" {
		return fmt.Errorf("the role may not make a scratch database (%v): let it (alter role ... createdb), or name another server with --scratch", server)
	}
	return err
}

// dropDelay bounds the time to drop a scratch database when all else was
// cancelled.
const dropDelay = 30 * time.Second

// dropScratch drops a database; on a new connection if the old one was lost with
// its context.
func dropScratch(conn *pgx.Conn, database, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropDelay)
	defer cancel()
	if conn.IsClosed() {
		fresh, _, err := connect(ctx, database)
		if err != nil {
			return fmt.Errorf("drop scratch database %s: %w", name, err)
		}
		defer closeConn(fresh)
		conn = fresh
	}
	// psql, killed, may still be connected for an instant.
	_, err := conn.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()", name)
	for err == nil {
		_, err = conn.Exec(ctx, "drop database if exists "+pgx.Identifier{name}.Sanitize())
		var server *ServerError
		if !errors.As(explain(err), &server) || server.Code != "55006" { // object in use
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
			err = nil
		case <-ctx.Done():
		}
	}
	if err != nil {
		return fmt.Errorf("drop scratch database %s: %w", name, explain(err))
	}
	return nil
}

// dropLeftovers drops scratch databases that nobody is connected to. What others
// own, or have just made, stays.
func dropLeftovers(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select d.datname::text from pg_database d
		where left(d.datname, length($1)) = $1 and pg_catalog.pg_get_userbyid(d.datdba) = current_user
		  and not exists (select from pg_stat_activity a where a.datname = d.datname)`, scratchPrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		// Another verification may have dropped it, or be about to use it.
		if _, err := conn.Exec(ctx, "drop database if exists "+pgx.Identifier{name}.Sanitize()); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}
