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
	where string // over the named arguments of rows
	order string // the table's key
	// columns are those that are read, in any version. What else there is, or will
	// be, may be a secret, as a hash of a password is, or changes all the time.
	columns string
}

// tables are in the order in which rows can be inserted: each after those that
// it refers to.
var tables = []rowSource{
	{"users", "username in (select owner from projects where name = any(@projects::text[]))", "username",
		"username fullname emailaddress emailonerror type publicdashboard"},
	{"projects", "name = any(@projects::text[])", "name",
		"name displayname description enabled hidden owner homepage declfile decltype declvalue enable_dynamic_run_command"},
	{"jobsets", "project || ':' || name = any(@jobsets::text[])", "project, name",
		"id project name description nixexprinput nixexprpath enabled enableemail hidden emailoverride keepnr checkinterval schedulingshares " +
			"type flake enable_dynamic_run_command"},
	{"jobsetinputs", "project || ':' || jobset = any(@jobsets::text[])", "project, jobset, name",
		"project jobset name type emailresponsible"},
	{"jobsetinputalts", "project || ':' || jobset = any(@jobsets::text[])", "project, jobset, input, altnr",
		"project jobset input altnr value revision tag"},
	{"evaluationerrors", "id in (select evaluationerror_id from jobsetevals where id = any(@evaluations::bigint[]))", "id",
		"id errormsg errortime"},
	{"builds", "id = any(@builds::bigint[])", "id",
		"id finished timestamp project jobset jobset_id job nixname description longdescription drvpath system license homepage maintainers maxsilent timeout " +
			"ischannel nixexprinput nixexprpath starttime stoptime iscachedbuild buildstatus errormsg size closuresize releasename"},
	{"buildoutputs", "build = any(@builds::bigint[])", "build, name",
		"build name path"},
	{"buildsteps", "build = any(@builds::bigint[])", "build, stepnr",
		"build stepnr type drvpath resolveddrvpath status errormsg starttime stoptime machine system propagatedfrom overhead timesbuilt isnondeterministic"},
	{"buildstepoutputs", "build = any(@builds::bigint[])", "build, stepnr, name",
		"build stepnr name path"},
	{"buildinputs", "build = any(@builds::bigint[])", "id",
		"id build name type uri revision tag value emailresponsible dependency path sha256hash"},
	{"buildproducts", "build = any(@builds::bigint[])", "build, productnr",
		"build productnr type subtype filesize sha1hash sha256hash path name description defaultpath"},
	{"buildmetrics", "build = any(@builds::bigint[])", "build, name",
		"build name unit value project jobset job timestamp"},
	{"jobsetevals", "id = any(@evaluations::bigint[])", "id",
		"id project jobset jobset_id timestamp checkouttime evaltime hasnewbuilds hash nrbuilds nrsucceeded flake nixexprinput nixexprpath " +
			"errormsg errortime evaluationerror_id"},
	{"jobsetevalinputs", "eval = any(@evaluations::bigint[])", "eval, name, altnr",
		"eval name altnr type uri revision value dependency path sha256hash shortrevlength"},
	{"jobsetevalmembers", "eval = any(@evaluations::bigint[]) and build = any(@builds::bigint[])", "eval, build",
		"eval build isnew"},
	{"aggregateconstituents", "aggregate = any(@builds::bigint[]) and constituent = any(@builds::bigint[])", "aggregate, constituent",
		"aggregate constituent"},
	{"releases", "@native::boolean and project = @project::text and name = @release::text", "project, name",
		"project name timestamp description"},
	{"releasemembers", "@native::boolean and project = @project::text and release_ = @release::text and build = any(@builds::bigint[])", "project, release_, build",
		"project release_ build description"},
}

// addresses are the columns that may have URLs in them. Who fetches from there
// with a token or a password writes it before the host, or among the parameters.
var addresses = []string{"value", "uri", "flake", "declvalue", "errormsg"}

// withoutTokens is a column without them.
const withoutTokens = `regexp_replace(regexp_replace(%s,
	'(https?://)[^/?#[:space:]]+@', '\1', 'gi'), '([?&](access_token|private_token|token|password)=)[^&#[:space:]]*', '\1', 'gi') as %[1]s`

// selected returns what is selected of a table that has these columns.
func (t *rowSource) selected(there []string) (list []string) {
	known := strings.Fields(t.columns)
	for _, c := range there {
		name := pgx.Identifier{c}.Sanitize()
		switch {
		case !slices.Contains(known, c):
		case slices.Contains(addresses, c) && t.name != "buildmetrics": // whose values are numbers
			list = append(list, fmt.Sprintf(withoutTokens, name))
		default:
			list = append(list, name)
		}
	}
	return list
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
		columns := t.selected(s.schema.columns[t.name])
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
	rows, err := s.tx.Query(ctx, fmt.Sprintf("select row_to_json(r)::text from (select %s from %s where %s order by %s) r",
		strings.Join(columns, ", "), t.name, t.where, t.order), args)
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
