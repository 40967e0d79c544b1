package hydratest

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/narvault/narvault/narread/testenv"
)

//go:embed testdata/*.sql
var tables embed.FS

// The shapes of Hydra's tables, by schema version.
const (
	Oldest   = "28"          // 2014: a jobset is named by project and name
	Releases = "65"          // May 2020: the last version with releases
	Between  = "72"          // February 2021: some tables name a jobset by its id
	Upgraded = "87-upgraded" // July 2026, on a database that was made before 2020: it has the tables of releases
	Fresh    = "87"          // July 2026

	nothing = "empty"
)

// shapes says from which files a shape is made.
var shapes = map[string][]string{
	Oldest:   {"schema-28"},
	Releases: {"schema-28", "upgrade-65"},
	Between:  {"schema-28", "upgrade-65", "upgrade-72"},
	Upgraded: {"schema-28", "upgrade-65", "upgrade-72", "upgrade-87"},
	Fresh:    {"schema-28", "upgrade-65", "upgrade-72", "upgrade-87", "fresh-87"},
}

// Shapes returns all shapes, sorted.
func Shapes() []string { return slices.Sorted(maps.Keys(shapes)) }

// HasReleases reports whether a shape has the tables of releases.
func HasReleases(shape string) bool { return shape != Fresh }

// A DB is a database with Hydra's tables, or an empty one.
type DB struct {
	URL  string // to connect as the role that owns it
	Name string
	Host string // the directory of the server's socket
	tb   testing.TB
	conn *pgx.Conn

	columns map[string]map[string]bool // by table
	jobsets map[string]int             // ids, by project:jobset
	clock   int                        // of what is inserted, in seconds
}

// New returns a fresh database without a project. It is closed when the test
// ends. The test is skipped where there is no PostgreSQL.
func New(tb testing.TB, shape string) *DB {
	tb.Helper()
	testenv.Need(tb, "postgresql")
	s, err := theServer()
	if err != nil {
		tb.Fatal(err)
	}
	return s.new(tb, shape)
}

// new returns a fresh database of a server.
func (s *server) new(tb testing.TB, shape string) *DB {
	tb.Helper()
	name, err := s.create(tb.Context(), shape)
	if err != nil {
		tb.Fatal(err)
	}
	db := &DB{URL: s.url(name), Name: name, Host: s.dir, tb: tb, jobsets: make(map[string]int), clock: 1_600_000_000}
	if db.conn, err = pgx.Connect(tb.Context(), db.URL); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.conn.Close(context.Background()) })
	db.columns = db.describe()
	return db
}

// Empty returns a fresh database without tables.
func Empty(tb testing.TB) *DB {
	tb.Helper()
	return New(tb, nothing)
}

// create makes a database as a copy of the shape's template.
func (s *server) create(ctx context.Context, shape string) (name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	template := "shape_" + strings.ReplaceAll(shape, "-", "_")
	if !s.templates[template] {
		if _, err := conn.Exec(ctx, "create database "+template); err != nil {
			return "", err
		}
		if err := s.fill(ctx, template, shape); err != nil {
			return "", err
		}
		s.templates[template] = true
	}
	s.databases++
	name = fmt.Sprintf("hydra%d", s.databases)
	_, err = conn.Exec(ctx, "create database "+name+" template "+template)
	return name, err
}

func (s *server) fill(ctx context.Context, template, shape string) error {
	conn, err := pgx.Connect(ctx, s.url(template))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, file := range shapes[shape] {
		text, err := tables.ReadFile("testdata/" + file + ".sql")
		if err != nil {
			return err
		}
		if _, err := conn.PgConn().Exec(ctx, string(text)).ReadAll(); err != nil {
			return fmt.Errorf("%s.sql: %w", file, err)
		}
	}
	return nil
}

// describe returns the columns of all tables.
func (db *DB) describe() map[string]map[string]bool {
	rows, err := db.conn.Query(context.Background(),
		"select table_name::text, column_name::text from information_schema.columns where table_schema = 'public'")
	if err != nil {
		db.tb.Fatal(err)
	}
	columns := make(map[string]map[string]bool)
	var table, column string
	_, err = pgx.ForEachRow(rows, []any{&table, &column}, func() error {
		if columns[table] == nil {
			columns[table] = make(map[string]bool)
		}
		columns[table][column] = true
		return nil
	})
	if err != nil {
		db.tb.Fatal(err)
	}
	return columns
}

// Exec runs a statement.
func (db *DB) Exec(sql string, args ...any) {
	db.tb.Helper()
	if _, err := db.conn.Exec(context.Background(), sql, args...); err != nil {
		db.tb.Fatalf("%s: %v", sql, err)
	}
}

// As returns the URL to connect as another role, with a password if it is not
// empty.
func (db *DB) As(role, password string) string {
	url := strings.Replace(db.URL, "user=hydra", "user="+role, 1)
	if password != "" {
		url += "&password=" + password
	}
	return url
}

// Strings returns the one column of a query.
func (db *DB) Strings(sql string, args ...any) []string {
	db.tb.Helper()
	rows, err := db.conn.Query(context.Background(), sql, args...)
	if err != nil {
		db.tb.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		db.tb.Fatalf("%s: %v", sql, err)
	}
	return values
}

// Tables returns the names of all tables, sorted.
func (db *DB) Tables() []string {
	db.tb.Helper()
	return db.Strings("select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE' order by 1")
}

// Rows returns the rows of a table as JSON, sorted.
func (db *DB) Rows(table string) []string {
	db.tb.Helper()
	return db.Strings("select to_jsonb(t)::text from " + pgx.Identifier{table}.Sanitize() + " t order by 1")
}

// Has reports whether a table has a column in this shape.
func (db *DB) Has(table, column string) bool { return db.columns[table][column] }
