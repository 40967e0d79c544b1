package hydra_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// newFullScene makes a scene with something in every table.
func newFullScene(t testing.TB, shape string) *scene {
	s := newScene(t, shape)
	s.Insert("buildproducts", hydratest.Row{"build": s.client, "productnr": 1, "type": "file", "subtype": "iso", "name": "x.iso",
		"path": path("client-1.0") + "/x.iso", "filesize": int64(5_000_000_000), "sha256hash": "00ff"})
	s.Insert("buildsteps", hydratest.Row{"build": s.server, "stepnr": 2, "type": 0, "drvpath": path("dependency.drv"), "busy": 0,
		"propagatedfrom": s.client, "status": 0})
	s.Insert("buildsteps", hydratest.Row{"build": s.server, "stepnr": 3, "type": 0, "drvpath": path("late.drv"), "busy": 30,
		"propagatedfrom": s.late, "status": 0})
	s.Insert("buildstepoutputs", hydratest.Row{"build": s.server, "stepnr": 2, "name": "out", "path": path("dependency")})
	s.Insert("buildinputs", hydratest.Row{"build": s.server, "name": "client", "type": "build", "dependency": s.client, "revision": "f\u00fcr"})
	s.Insert("buildinputs", hydratest.Row{"build": s.server, "name": "late", "type": "build", "dependency": s.late})
	s.Insert("jobsetevalinputs", hydratest.Row{"eval": s.second, "name": "late", "altnr": 1, "type": "build", "dependency": s.late})
	s.Insert("buildmetrics", hydratest.Row{"build": s.client, "name": "size", "value": 1.5, "unit": "MiB", "project": "disnix", "jobset": "trunk",
		"job": "client", "timestamp": 1})
	s.AddRelease("disnix", "disnix-0.3", "Disnix 0.3", s.client, s.server)
	s.Exec("update users set emailonerror = 1")
	if s.Has("builds", "nixexprinput") {
		s.Exec("update builds set nixexprinput = 'src', nixexprpath = 'release.nix'")
	} else {
		s.Exec("update jobsetevals set nixexprinput = 'src', nixexprpath = 'release.nix'")
	}
	if s.Has("evaluationerrors", "id") {
		id := s.Insert("evaluationerrors", hydratest.Row{"errormsg": "no such job", "errortime": 7})
		s.Exec("update jobsetevals set evaluationerror_id = $1", id)
	} else if s.Has("jobsetevals", "errormsg") {
		s.Exec("update jobsetevals set errormsg = 'no such job', errortime = 7")
	}
	return s
}

// expressions returns what is said of the Nix expression, wherever that is.
func expressions(db *hydratest.DB) []string {
	table := "jobsetevals"
	if db.Has("builds", "nixexprinput") {
		table = "builds"
	}
	return db.Strings("select distinct nixexprinput || ' ' || nixexprpath from " + table)
}

// evaluationErrors returns the errors of evaluations, wherever they are; false,
// if this Hydra has none.
func evaluationErrors(db *hydratest.DB) ([]string, bool) {
	switch {
	case db.Has("evaluationerrors", "id"):
		return db.Strings("select x.errormsg || ' ' || x.errortime from jobsetevals e join evaluationerrors x on x.id = e.evaluationerror_id where e.id = (select min(eval) from jobsetevalmembers)"), true
	case db.Has("jobsetevals", "errormsg"):
		return db.Strings("select coalesce(errormsg || ' ' || errortime, '') from jobsetevals where id = (select min(eval) from jobsetevalmembers)"), true
	}
	return nil, false
}

// document is a Rows document, to compare.
type document struct {
	SchemaVersion int
	Tables        map[string][]map[string]any
}

func parse(t *testing.T, rows hydra.Rows) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(rows, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// restored puts rows into a database; it must work.
func restored(t *testing.T, url string, rows hydra.Rows) *hydra.Restored {
	t.Helper()
	r, err := hydra.Restore(t.Context(), url, rows, hydra.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRestore brings a release of every shape into an empty Hydra of every
// shape, compares row by row, and does it again.
func TestRestore(t *testing.T) {
	for _, from := range hydratest.Shapes() {
		t.Run("from "+from, func(t *testing.T) {
			source := newFullScene(t, from)
			sel := hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}
			rows := find(t, open(t, source.URL), sel).Rows
			_, had := evaluationErrors(source.DB)
			for _, to := range hydratest.Shapes() {
				t.Run("to "+to, func(t *testing.T) {
					t.Parallel()
					target := hydratest.New(t, to)
					r := restored(t, target.URL, rows)
					for old, id := range r.Builds {
						if old != id {
							t.Errorf("build %d is %d", old, id)
						}
					}
					got := find(t, open(t, target.URL), sel)
					compareDocuments(t, parse(t, got.Rows), parse(t, rows))
					if got := expressions(target); !slices.Equal(got, []string{"src release.nix"}) {
						t.Errorf("the Nix expression is %q", got)
					}
					if got, has := evaluationErrors(target); had && has && !slices.Equal(got, []string{"no such job 7"}) {
						t.Errorf("errors are %q", got)
					} else if had != has && had != slices.ContainsFunc(r.Lost, func(s string) bool { return strings.HasPrefix(s, "evaluationerrors") || s == "jobsetevals.errormsg" }) {
						t.Errorf("lost %q", r.Lost)
					}
					checkQuiet(t, target)
					checkSequences(t, target)

					before := content(t, target)
					if again := restored(t, target.URL, rows); again.Changed() || !maps.Equal(again.Builds, r.Builds) {
						t.Errorf("again: %+v", again)
					}
					sameContent(t, content(t, target), before)
				})
			}
		})
	}
}

// differs are the columns that restoring sets, or that are elsewhere in other
// versions.
var differs = map[string][]string{
	"jobsets":     {"id", "enabled"},
	"builds":      {"project", "jobset", "jobset_id", "nixexprinput", "nixexprpath"},
	"jobsetevals": {"project", "jobset", "jobset_id", "nixexprinput", "nixexprpath", "evaluationerror_id", "errormsg", "errortime"},
}

// compareDocuments compares all rows in the columns that both have.
func compareDocuments(t *testing.T, got, want document) {
	t.Helper()
	compared := 0
	for table, wantRows := range want.Tables {
		gotRows, there := got.Tables[table]
		if !there {
			continue
		}
		if len(gotRows) != len(wantRows) {
			t.Errorf("table %s has %d rows, want %d", table, len(gotRows), len(wantRows))
			continue
		}
		for i, w := range wantRows {
			for column, value := range w {
				if v, there := gotRows[i][column]; !there || slices.Contains(differs[table], column) {
					continue
				} else if referred(table, column, value) {
					if v != nil {
						t.Errorf("%s.%s refers to build %v, which is not there", table, column, v)
					}
				} else if fmt.Sprint(v) != fmt.Sprint(value) {
					t.Errorf("row %d of %s: %s is %v, want %v", i, table, column, v, value)
				}
				compared++
			}
		}
	}
	if compared < 200 {
		t.Errorf("only %d values were compared", compared)
	}
}

// referred reports whether a value refers to the build late (the fifth), which
// is not of the release.
func referred(table, column string, value any) bool {
	return (column == "dependency" || column == "propagatedfrom") && fmt.Sprint(value) == "5"
}

// checkQuiet looks for anything that would make Hydra act.
func checkQuiet(t *testing.T, db *hydratest.DB) {
	t.Helper()
	for _, sql := range []string{
		"select 'queued build ' || id from builds where finished = 0",
		"select 'build not kept ' || id from builds where keep <> 1 or iscurrent <> 0",
		"select 'jobset enabled ' || name from jobsets where enabled <> 0",
		"select 'password of ' || username from users where password <> '!'",
		"select 'hidden evaluation ' || id from jobsetevals where hasnewbuilds <> 1",
		"select 'running step ' || stepnr || ' of build ' || build from buildsteps where busy <> 0",
	} {
		for _, fault := range db.Strings(sql) {
			t.Error(fault)
		}
	}
	if db.Has("builds", "busy") {
		for _, fault := range db.Strings("select 'running build ' || id from builds where busy <> 0") {
			t.Error(fault)
		}
	}
	if db.Has("builds", "notificationpendingsince") {
		for _, fault := range db.Strings("select 'mails about build ' || id from builds where notificationpendingsince is not null") {
			t.Error(fault)
		}
	}
}

// checkSequences inserts as Hydra would, which fails if an id is taken.
func checkSequences(t *testing.T, db *hydratest.DB) {
	t.Helper()
	for _, table := range []string{"builds", "jobsetevals", "buildinputs", "jobsets", "evaluationerrors"} {
		if !db.Has(table, "id") {
			continue
		}
		rows := db.Strings(fmt.Sprintf("select 'next id of %[1]s is ' || next || ', highest is ' || highest from (select nextval(pg_get_serial_sequence('%[1]s', 'id')) as next, "+
			"(select coalesce(max(id), 0) from %[1]s) as highest) x where next <= highest", table))
		for _, fault := range rows {
			t.Error(fault)
		}
	}
}

// TestRestoreTaken restores into a Hydra that uses the ids for something else.
func TestRestoreTaken(t *testing.T) {
	forShapes(t, func(t *testing.T, target *scene, shape string) {
		source := newFullScene(t, hydratest.Upgraded)
		source.Exec("update builds set drvpath = replace(drvpath, '-1.0', '-2.0')")
		r := find(t, open(t, source.URL), hydra.Selection{Project: "disnix", Name: "disnix-0.3"})
		target.Exec("update jobsets set enabled = 1, keepnr = 99")
		before := map[string]int{}
		for _, table := range target.Tables() {
			before[table] = len(target.Rows(table))
		}
		got := restored(t, target.URL, r.Rows)
		client, server := got.Builds[int64(source.client)], got.Builds[int64(source.server)]
		if client <= int64(target.late) || server <= client {
			t.Fatalf("builds are %v", got.Builds)
		}
		query := fmt.Sprintf("select job || ' ' || drvpath from builds where id in (%d, %d) order by id", client, server)
		if rows := target.Strings(query); !slices.Equal(rows, []string{
			"client " + strings.Replace(path("client-1.0.drv"), "-1.0", "-2.0", 1), "server " + strings.Replace(path("server-1.0.drv"), "-1.0", "-2.0", 1)}) {
			t.Errorf("builds are %q", rows)
		}
		if rows := target.Strings(fmt.Sprintf("select coalesce(dependency::text, '') from buildinputs where build = %d order by id", server)); !slices.Equal(rows, []string{fmt.Sprint(client), ""}) {
			t.Errorf("dependencies are %q", rows)
		}
		for table, rows := range map[string]int{"users": 0, "projects": 0, "jobsets": 0, "jobsetinputs": 0, "builds": 2, "buildoutputs": 4, "buildsteps": 4,
			"buildinputs": 2, "buildproducts": 1, "jobsetevalmembers": 0} {
			if table == "jobsetevalmembers" { // the evaluations are the same, the builds are not
				rows = len(got.Evaluations) * 2
			}
			if n := len(target.Rows(table)) - before[table]; n != rows {
				t.Errorf("table %s has %d more rows, want %d", table, n, rows)
			}
		}
		if rows := target.Strings("select distinct enabled || ' ' || keepnr from jobsets"); !slices.Equal(rows, []string{"1 99"}) {
			t.Errorf("jobsets that were there are %q", rows)
		}
		if hydratest.HasReleases(shape) {
			if rows := target.Strings("select build::text from releasemembers where release_ = 'disnix-0.3' order by build"); !slices.Equal(rows, []string{fmt.Sprint(client), fmt.Sprint(server)}) {
				t.Errorf("members are %q", rows)
			}
		} else if !slices.Equal(got.Lost, []string{"releasemembers", "releases"}) {
			t.Errorf("lost %q", got.Lost)
		}
		if again := restored(t, target.URL, r.Rows); again.Changed() || !maps.Equal(again.Builds, got.Builds) || !maps.Equal(again.Evaluations, got.Evaluations) {
			t.Errorf("again: %+v", again)
		}
		checkSequences(t, target.DB)
	})
}

// TestRestoreBack restores what the very same Hydra still has: it only keeps it.
func TestRestoreBack(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, _ string) {
		rows := find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}).Rows
		r := restored(t, s.URL, rows)
		if len(r.Tables) > 0 || r.Kept != 2 || r.Builds[int64(s.server)] != int64(s.server) {
			t.Errorf("%+v", r)
		}
		if again := restored(t, s.URL, rows); again.Changed() {
			t.Errorf("again: %+v", again)
		}
	})
}

// TestRestoreEvaluationErrors restores an evaluation whose error has no text, and
// one whose error is not among the rows: neither gets what has the same id there.
func TestRestoreEvaluationErrors(t *testing.T) {
	source := newScene(t, hydratest.Fresh)
	source.Exec("update jobsetevals set evaluationerror_id = $1", source.Insert("evaluationerrors", hydratest.Row{"errortime": 7}))
	sel := hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}
	rows := string(find(t, open(t, source.URL), sel).Rows)
	none := strings.Replace(rows, `"evaluationerrors": [`, `"other": [`, 1)
	for text, want := range map[string]string{rows: "7 -", none: "none"} {
		target := hydratest.New(t, hydratest.Fresh)
		target.Insert("evaluationerrors", hydratest.Row{"errormsg": "of another", "errortime": 1})
		restored(t, target.URL, hydra.Rows(text))
		got := target.Strings("select coalesce(x.errortime || ' ' || coalesce(x.errormsg, '-'), 'none') from jobsetevals e left join evaluationerrors x on x.id = e.evaluationerror_id")
		if !slices.Equal(got, []string{want}) {
			t.Errorf("the error is %q, want %q", got, want)
		}
	}
}

// TestRestoreFlake restores a jobset that a flake defines: where Hydra knows
// flakes, it is one, elsewhere that is said to be lost.
func TestRestoreFlake(t *testing.T) {
	source := newScene(t, hydratest.Fresh)
	source.Exec("update jobsets set type = 1, flake = 'github:NixOS/nix', nixexprinput = null, nixexprpath = null")
	sel := hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}
	rows := find(t, open(t, source.URL), sel).Rows
	for _, shape := range hydratest.Shapes() {
		t.Run(shape, func(t *testing.T) {
			target := hydratest.New(t, shape)
			r := restored(t, target.URL, rows)
			if !target.Has("jobsets", "flake") {
				if !slices.Contains(r.Lost, "jobsets.flake") {
					t.Errorf("lost %q", r.Lost)
				}
			} else if got := target.Strings("select flake || ' ' || type || coalesce(nixexprinput, '') from jobsets"); !slices.Equal(got, []string{"github:NixOS/nix 1"}) {
				t.Errorf("jobsets are %q", got)
			}
			if again := restored(t, target.URL, rows); again.Changed() {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// TestRestoreBusy restores rows that say that somebody is at work, as those of
// narvault's first versions could: nobody is.
func TestRestoreBusy(t *testing.T) {
	forShapes(t, func(t *testing.T, source *scene, shape string) {
		rows := string(find(t, open(t, source.URL), hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}).Rows)
		busy := strings.ReplaceAll(strings.ReplaceAll(rows, `"stepnr":`, `"busy":1,"stepnr":`), `"finished":`, `"busy":1,"locker":"me","notificationpendingsince":1,"finished":`)
		if busy == rows {
			t.Fatal("nobody is busy")
		}
		target := hydratest.New(t, shape)
		restored(t, target.URL, hydra.Rows(busy))
		checkQuiet(t, target)
	})
}

// TestRestoreIsolation restores as a role whose transactions would neither see
// what others wrote meanwhile, nor write.
func TestRestoreIsolation(t *testing.T) {
	source, target := newFullScene(t, hydratest.Fresh), hydratest.New(t, hydratest.Fresh)
	target.Exec("alter database " + pgx.Identifier{target.Name}.Sanitize() + " set default_transaction_read_only = on")
	restored(t, target.URL, find(t, open(t, source.URL), hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}).Rows)
}

// TestRestoreDry says what would be done, and does nothing.
func TestRestoreDry(t *testing.T) {
	source, target := newFullScene(t, hydratest.Between), hydratest.New(t, hydratest.Fresh)
	rows := find(t, open(t, source.URL), hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}).Rows
	dry, err := hydra.Restore(t.Context(), target.URL, rows, hydra.RestoreOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range target.Tables() {
		if n := len(target.Rows(table)); n > 0 && table != "schemaversion" {
			t.Errorf("table %s has %d rows", table, n)
		}
	}
	real := restored(t, target.URL, rows)
	if !maps.Equal(dry.Tables, real.Tables) || !maps.Equal(dry.Builds, real.Builds) || !dry.DryRun || len(dry.Tables) < 10 {
		t.Errorf("dry: %+v\nreal: %+v", dry, real)
	}
}

// TestRestoreErrors leaves the database as it is.
func TestRestoreErrors(t *testing.T) {
	source, target := newFullScene(t, hydratest.Fresh), hydratest.New(t, hydratest.Between)
	target.AddProject("disnix")
	good := string(find(t, open(t, source.URL), hydra.Selection{Project: "disnix", Evaluation: int64(source.second)}).Rows)
	target.Exec("grant select on all tables in schema public to " + hydratest.Guarded)
	empty := hydratest.Empty(t)
	before := content(t, target)
	tests := []struct {
		name, url, rows string
		want            string
		isRows          bool
	}{
		{"no JSON", target.URL, good[:len(good)/2], "these are not the rows of a release: ", true},
		{"no builds", target.URL, `{"version": 1, "tables": {}}`, "there are no builds among them", true},
		{"newer", target.URL, `{"version": 2}`, "format version 2, this narvault knows 1: use a newer one", false},
		{"no jobset", target.URL, strings.Replace(good, `"jobsets": [`, `"other": [`, 1), "belongs to the jobset 1, which is not among them", true},
		{"id out of range", target.URL, strings.Replace(good, `"stepnr":2`, `"stepnr":99999999999`, 1), "insert into table buildsteps: ", false},
		{"outlandish", target.URL, strings.Replace(good, `"stepnr":2`, `"stepnr":{"a":[]}`, 1), "insert into table buildsteps: ", false},
		{"unfinished", target.URL, strings.Replace(good, `"stoptime":`, `"stop":`, 1), "insert into table builds: ", false},
		{"not Hydra's", empty.URL, good, "it is not Hydra's: it has no table", false},
		{"may not write", target.As(hydratest.Guarded, hydratest.Password), good, "it takes the role that owns the tables", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hydra.Restore(t.Context(), tt.url, hydra.Rows(tt.rows), hydra.RestoreOptions{})
			says(t, err, "restore rows: ", tt.want)
			if errors.Is(err, hydra.ErrRows) != tt.isRows {
				t.Errorf("ErrRows: %v", err)
			}
			sameContent(t, content(t, target), before)
		})
	}
}
