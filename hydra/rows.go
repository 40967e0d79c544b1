package hydra

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A rowSource says which rows of a table describe a release.
type rowSource struct {
	name  string
	where string   // over the named arguments of rows
	order string   // the table's key
	omit  []string // columns: secrets, and what changes all the time
}

// tables are in the order in which rows can be inserted: each after those that
// it refers to.
var tables = []rowSource{
	{"users", "username in (select owner from projects where name = any(@projects::text[]))", "username", []string{"password"}},
	{"projects", "name = any(@projects::text[])", "name", nil},
	{"jobsets", "project || ':' || name = any(@jobsets::text[])", "project, name",
		[]string{"errormsg", "errortime", "lastcheckedtime", "triggertime", "fetcherrormsg", "starttime", "forceeval"}},
	{"jobsetinputs", "project || ':' || jobset = any(@jobsets::text[])", "project, jobset, name", nil},
	{"jobsetinputalts", "project || ':' || jobset = any(@jobsets::text[])", "project, jobset, input, altnr", nil},
	{"evaluationerrors", "id in (select evaluationerror_id from jobsetevals where id = any(@evaluations::bigint[]))", "id", nil},
	{"builds", "id = any(@builds::bigint[])", "id",
		[]string{"iscurrent", "keep", "priority", "globalpriority", "notificationpendingsince"}},
	{"buildoutputs", "build = any(@builds::bigint[])", "build, name", nil},
	{"buildsteps", "build = any(@builds::bigint[])", "build, stepnr", nil},
	{"buildstepoutputs", "build = any(@builds::bigint[])", "build, stepnr, name", nil},
	{"buildinputs", "build = any(@builds::bigint[])", "id", nil},
	{"buildproducts", "build = any(@builds::bigint[])", "build, productnr", nil},
	{"buildmetrics", "build = any(@builds::bigint[])", "build, name", nil},
	{"jobsetevals", "id = any(@evaluations::bigint[])", "id", nil},
	{"jobsetevalinputs", "eval = any(@evaluations::bigint[])", "eval, name, altnr", nil},
	{"jobsetevalmembers", "eval = any(@evaluations::bigint[]) and build = any(@builds::bigint[])", "eval, build", nil},
	{"aggregateconstituents", "aggregate = any(@builds::bigint[]) and constituent = any(@builds::bigint[])", "aggregate, constituent", nil},
	{"releases", "@native::boolean and project = @project::text and name = @release::text", "project, name", nil},
	{"releasemembers", "@native::boolean and project = @project::text and release_ = @release::text and build = any(@builds::bigint[])", "project, release_, build", nil},
}

// rows reads the rows that describe a release.
func (s *Snapshot) rows(ctx context.Context, r *Release, native bool) (Rows, error) {
	args, err := s.rowArgs(ctx, r, native)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	name, err := json.Marshal(s.Database())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "{\n\"version\": 1,\n\"database\": %s,\n\"schemaVersion\": %d,\n\"tables\": {", name, s.schema.version)
	comma := ""
	for _, t := range tables {
		columns := slices.DeleteFunc(slices.Clone(s.schema.columns[t.name]), func(c string) bool { return slices.Contains(t.omit, c) })
		if len(columns) == 0 {
			continue // there is no such table
		}
		fmt.Fprintf(&b, "%s\n%s: [", comma, strconv.Quote(t.name))
		if err := s.writeRows(ctx, &b, t, columns, args); err != nil {
			return nil, fmt.Errorf("read table %s: %w", t.name, err)
		}
		b.WriteString("]")
		comma = ","
	}
	b.WriteString("\n}\n}\n")
	return b.Bytes(), nil
}

// rowArgs are the named arguments of the tables' conditions.
func (s *Snapshot) rowArgs(ctx context.Context, r *Release, native bool) (pgx.NamedArgs, error) {
	projects, jobsets := map[string]bool{r.Project: true}, make(map[string]bool)
	builds := make([]int64, len(r.Builds))
	for i := range r.Builds {
		b := &r.Builds[i]
		builds[i] = b.ID
		projects[b.Project], jobsets[b.Project+":"+b.Jobset] = true, true
	}
	evaluations := []int64{r.Evaluation}
	if r.Evaluation == 0 {
		// Where the builds were new: later evaluations that found them again may be
		// thousands.
		var err error
		evaluations, err = column[int64](ctx, s, "select distinct eval::bigint from jobsetevalmembers where build = any($1::bigint[]) and isnew = 1 order by 1", builds)
		if err != nil {
			return nil, err
		}
	}
	return pgx.NamedArgs{
		"projects": slices.Sorted(maps.Keys(projects)), "jobsets": slices.Sorted(maps.Keys(jobsets)),
		"builds": builds, "evaluations": evaluations, "native": native, "project": r.Project, "release": r.Name,
	}, nil
}

// writeRows writes the rows of one table, a line each. PostgreSQL itself makes
// the JSON, so every type of column is right.
func (s *Snapshot) writeRows(ctx context.Context, b *bytes.Buffer, t rowSource, columns []string, args pgx.NamedArgs) error {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = pgx.Identifier{c}.Sanitize()
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf("select row_to_json(r)::text from (select %s from %s where %s order by %s) r",
		strings.Join(quoted, ", "), t.name, t.where, t.order), args)
	if err != nil {
		return err
	}
	separator := "\n"
	var row string
	_, err = pgx.ForEachRow(rows, []any{&row}, func() error {
		b.WriteString(separator)
		b.WriteString(row)
		separator = ",\n"
		return nil
	})
	return err
}
