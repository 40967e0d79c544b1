package hydra

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A schema says which tables and columns there are.
type schema struct {
	version int                 // 0 if it is not said
	columns map[string][]string // by table, in the table's order
}

// needed are the tables, and the columns in them, without which nothing can be
// read. PostgreSQL knows Hydra's names in lower case.
var needed = map[string][]string{
	"projects":          {"name"},
	"jobsets":           {"project", "name"},
	"builds":            {"id", "finished", "job", "nixname", "description", "drvpath", "system", "stoptime", "buildstatus", "releasename"},
	"buildoutputs":      {"build", "name", "path"},
	"buildproducts":     {"build", "productnr", "type", "subtype", "filesize", "sha256hash", "path", "name", "defaultpath"},
	"jobsetevals":       {"id", "timestamp", "hasnewbuilds", "nrbuilds"},
	"jobsetevalmembers": {"eval", "build", "isnew"},
}

// A SchemaError says that a database is not Hydra's, or of a Hydra that
// narvault does not know.
type SchemaError struct {
	Missing []string // tables, and columns as table.column
	Version int      // of Hydra's schema, 0 if it is not said
}

func (e *SchemaError) Error() string {
	missing := strings.Join(e.Missing, ", ")
	if e.Version == 0 {
		return fmt.Sprintf("it is not Hydra's: it has no %s: check the name of the database, and the role's search_path", missing)
	}
	return fmt.Sprintf("Hydra's schema version %d has no %s: this narvault does not know it, use a newer one", e.Version, missing)
}

// readSchema asks the system catalogue. (The information_schema does not show
// what a role must not read.)
func readSchema(ctx context.Context, tx pgx.Tx) (schema, error) {
	s := schema{columns: make(map[string][]string)}
	rows, err := tx.Query(ctx, `
		select c.relname::text, a.attname::text
		from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
		where c.relkind in ('r', 'p', 'v', 'm', 'f') and pg_catalog.pg_table_is_visible(c.oid)
		  and a.attnum > 0 and not a.attisdropped and c.relname = any($1::text[])
		order by c.relname, a.attnum`, tableNames())
	if err != nil {
		return s, err
	}
	var table, column string
	if _, err = pgx.ForEachRow(rows, []any{&table, &column}, func() error {
		s.columns[table] = append(s.columns[table], column)
		return nil
	}); err != nil {
		return s, err
	}
	if s.has("schemaversion", "version") {
		if err := tx.QueryRow(ctx, "select coalesce(max(version), 0) from schemaversion").Scan(&s.version); err != nil {
			return s, err
		}
	}
	return s, s.check()
}

// tableNames returns every table of which something is read.
func tableNames() []string {
	names := []string{"schemaversion"}
	for name := range needed {
		names = append(names, name)
	}
	for _, t := range tables {
		names = append(names, t.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// check reports what is needed and not there.
func (s *schema) check() error {
	var missing []string
	for table, columns := range needed {
		if s.columns[table] == nil {
			missing = append(missing, "table "+table)
			continue
		}
		for _, column := range columns {
			if !s.has(table, column) {
				missing = append(missing, "column "+table+"."+column)
			}
		}
	}
	for _, table := range []string{"builds", "jobsetevals"} {
		if s.columns[table] != nil && !s.has(table, "project") && !s.has(table, "jobset_id") {
			missing = append(missing, "column "+table+".jobset_id")
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return &SchemaError{Missing: missing, Version: s.version}
}

func (s *schema) has(table, column string) bool { return slices.Contains(s.columns[table], column) }

// hasReleases reports whether there are tables of releases.
func (s *schema) hasReleases() bool {
	return s.has("releases", "name") && s.has("releasemembers", "release_") && s.has("releasemembers", "build")
}

// jobsetOf returns how rows of a table, builds or jobsetevals, with the alias x
// get the project and the name of their jobset: a join, and the two columns.
// Until version 72 or 80 they have them; since then the jobset's id.
func (s *schema) jobsetOf(table string) (join, project, jobset string) {
	if s.has(table, "project") && s.has(table, "jobset") {
		return "", "x.project", "x.jobset"
	}
	return "join jobsets j on j.id = x.jobset_id", "j.project", "j.name"
}
