package hydra_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
	"github.com/narvault/narvault/narread/storepath"
)

// TestFind selects releases in every way, on every shape of the tables.
func TestFind(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		snapshot := open(t, s.URL)
		tests := []struct {
			name       string
			sel        hydra.Selection
			want       string // jobs
			release    string
			evaluation int
			skipped    int
		}{
			{"evaluation", hydra.Selection{Evaluation: int64(s.first)}, "client server", "disnix-" + strconv.Itoa(s.first), s.first, 0},
			{"name", hydra.Selection{Evaluation: int64(s.first), Name: "mine"}, "client server", "mine", s.first, 0},
			{"failed builds and Hydra's name", hydra.Selection{Evaluation: int64(s.second)}, "client server all", "disnix-0.4pre7", s.second, 1},
			{"not finished", hydra.Selection{Evaluation: int64(s.third)}, "client server", "disnix-" + strconv.Itoa(s.third), s.third, 2},
			{"latest finished", hydra.Selection{Jobset: "trunk"}, "client server all", "disnix-0.4pre7", s.second, 1},
			{"jobs", hydra.Selection{Jobset: "trunk", Jobs: []string{"cl*", "[s]erver"}}, "client server", "disnix-" + strconv.Itoa(s.second), s.second, 0},
			{"builds", hydra.Selection{Name: "b", Builds: []int64{int64(s.server)}}, "server", "b", 0, 0},
			{"aggregate by id", hydra.Selection{Aggregate: hydra.Aggregate{Build: int64(s.all)}}, "client server all", "disnix-0.4pre7", 0, 0},
			{"aggregate by job", hydra.Selection{Jobset: "trunk", Aggregate: hydra.Aggregate{Job: "all"}}, "client server all", "disnix-0.4pre7", s.second, 0},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				tt.sel.Project = "disnix"
				r := find(t, snapshot, tt.sel)
				if names(r) != tt.want || r.Name != tt.release || r.Evaluation != int64(tt.evaluation) || len(r.Skipped) != tt.skipped {
					t.Errorf("got %s: %q of evaluation %d without %d, want %s: %q of %d without %d", r.Name, names(r), r.Evaluation, r.Skipped,
						tt.release, tt.want, tt.evaluation, tt.skipped)
				}
			})
		}
	})
}

// TestHydraName names an evaluation as Hydra did: by the first of its builds that
// has a name for the release, though it failed, or is not finished.
func TestHydraName(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.Exec("update builds set releasename = 'of-the-failed' where id = $1", s.failed)
		s.Exec("update builds set releasename = 'of-the-queued' where id = $1", s.late)
		s.Exec("update builds set releasename = '' where id = $1", s.client)
		snapshot := open(t, s.URL)
		for evaluation, want := range map[int]string{s.first: fmt.Sprint("disnix-", s.first), s.second: "of-the-failed", s.third: "of-the-failed"} {
			if r := find(t, snapshot, hydra.Selection{Project: "disnix", Evaluation: int64(evaluation)}); r.Name != want {
				t.Errorf("evaluation %d is release %s, want %s", evaluation, r.Name, want)
			}
			if info, err := snapshot.PlanRelease(t.Context(), int64(evaluation), "", ""); err != nil || info.Name != want {
				t.Errorf("evaluation %d is to be release %+v, %v, want %s", evaluation, info, err, want)
			}
		}
		s.Exec("update builds set releasename = null where id = $1", s.failed)
		if r := find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.third)}); r.Name != "of-the-queued" {
			t.Errorf("the release is %s", r.Name)
		}
	})
}

// TestFindNative reads releases from Hydra's own tables.
func TestFindNative(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.AddRelease("disnix", "disnix-0.3", "Disnix 0.3 für alle", s.client, s.failed)
		s.AddRelease("disnix", "disnix-0.4", "", s.server)
		s.AddRelease("disnix", "empty", "")
		s.AddRelease("disnix", "slash/1", "", s.server)
		snapshot := open(t, s.URL)
		if !hydratest.HasReleases(shape) {
			says(t, findError(t, snapshot, hydra.Selection{Project: "disnix", Name: "disnix-0.3"}),
				"release disnix/disnix-0.3: this Hydra (schema version 87) has no releases", `"evaluation", "jobset"`)
			return
		}
		r := find(t, snapshot, hydra.Selection{Project: "disnix", Name: "disnix-0.3"})
		if names(r) != "client" || r.Description != "Disnix 0.3 für alle" || !slices.Equal(r.Skipped, []int64{int64(s.failed)}) {
			t.Errorf("got %q, %q, without %d", names(r), r.Description, r.Skipped)
		}
		all, errs := snapshot.Find(t.Context(), &hydra.Selection{Project: "disnix", Name: "*"}, storeDir)
		if len(all) != 3 || all[0].Name != "disnix-0.3" || all[1].Name != "disnix-0.4" || all[2].Name != "slash/1" {
			t.Errorf("found %d releases", len(all))
		}
		if len(errs) != 1 || !errors.Is(errs[0], hydra.ErrNoBuilds) {
			t.Fatalf("errors are %v", errs)
		}
		says(t, errs[0], "release disnix/empty: it has no builds")
	})
}

// TestBuild compares all that is read of a build.
func TestBuild(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, _ string) {
		s.Insert("buildproducts", hydratest.Row{"build": s.client, "productnr": 1, "type": "doc", "subtype": "manual", "name": "manual",
			"path": path("client-1.0-doc") + "/share/doc", "defaultpath": "index.html"})
		s.Insert("buildproducts", hydratest.Row{"build": s.client, "productnr": 2, "type": "file", "subtype": "iso", "name": "x.iso",
			"path": path("client-1.0") + "/x.iso", "filesize": int64(5_000_000_000), "sha256hash": "00ff"})
		s.Insert("buildsteps", hydratest.Row{"build": s.client, "stepnr": 2, "type": 0, "drvpath": path("dependency.drv"), "busy": 0})
		s.Insert("buildsteps", hydratest.Row{"build": s.client, "stepnr": 3, "type": 1, "drvpath": path("fetched.drv"), "busy": 0})
		r := find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Name: "n", Builds: []int64{int64(s.client)}})
		want := hydra.Build{
			ID: int64(s.client), Project: "disnix", Jobset: "trunk", Job: "client", System: "x86_64-linux", NixName: "client-1.0",
			Description: "the job client", DrvPath: storepath.Path(base("client-1.0.drv")), Finished: r.Builds[0].Finished,
			Outputs: []hydra.Output{{Name: "doc", Path: storepath.Path(base("client-1.0-doc"))}, {Name: "out", Path: storepath.Path(base("client-1.0"))}},
			Products: []hydra.Product{
				{Type: "doc", Subtype: "manual", Name: "manual", Path: path("client-1.0-doc") + "/share/doc", DefaultPath: "index.html"},
				{Type: "file", Subtype: "iso", Name: "x.iso", Path: path("client-1.0") + "/x.iso", Size: 5_000_000_000, SHA256: "00ff"},
			},
		}
		if got, want := jsonText(t, r.Builds), jsonText(t, []hydra.Build{want}); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if at := r.Builds[0].Finished; at.Before(time.Unix(1_600_000_000, 0)) || at.Location() != time.UTC {
			t.Errorf("finished at %v", at)
		}
		logs := []storepath.Path{storepath.Path(base("client-1.0.drv")), storepath.Path(base("dependency.drv"))}
		slices.Sort(logs)
		if !slices.Equal(r.Logs, logs) {
			t.Errorf("logs are those of %v, want %v", r.Logs, logs)
		}
	})
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOutputs takes only the outputs that are asked for.
func TestOutputs(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	r := find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first), Outputs: []string{"man", "doc"}})
	for _, b := range r.Builds {
		if len(b.Outputs) != 1 || b.Outputs[0].Name != "doc" {
			t.Errorf("build %d has %v", b.ID, b.Outputs)
		}
	}
}

// TestRows reads the rows that belong to a release, and only those.
func TestRows(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.AddRelease("disnix", "disnix-0.3", "Disnix 0.3", s.client, s.server)
		s.AddRelease("disnix", "other", "", s.server)
		s.Insert("buildmetrics", hydratest.Row{"build": s.client, "name": "size", "value": 1.5, "unit": "MiB", "project": "disnix", "jobset": "trunk",
			"job": "client", "timestamp": 1})
		sel := hydra.Selection{Project: "disnix", Evaluation: int64(s.second), Jobs: []string{"client", "server"}}
		native := hydratest.HasReleases(shape)
		if native {
			sel = hydra.Selection{Project: "disnix", Name: "disnix-0.3"}
		}
		text := string(find(t, open(t, s.URL), sel).Rows)
		var doc struct {
			Version, SchemaVersion int
			Database               string
			Tables                 map[string][]map[string]any
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		version, _, _ := strings.Cut(shape, "-")
		if doc.Version != 1 || strconv.Itoa(doc.SchemaVersion) != version || doc.Database != s.Name {
			t.Errorf("it is version %d, schema %d, database %q", doc.Version, doc.SchemaVersion, doc.Database)
		}
		want := map[string]int{
			"users": 1, "projects": 1, "jobsets": 1, "jobsetinputs": 1, "jobsetinputalts": 1, "builds": 2, "buildoutputs": 4, "buildsteps": 2,
			"jobsetevals": 1, "jobsetevalinputs": 1, "jobsetevalmembers": 2, "buildmetrics": 1,
			"buildstepoutputs": 0, "buildinputs": 0, "buildproducts": 0, "aggregateconstituents": 0, "evaluationerrors": 0,
		}
		if native {
			// The builds were new in all three evaluations, which refer to them.
			want["releases"], want["releasemembers"] = 1, 2
			want["jobsetevals"], want["jobsetevalinputs"], want["jobsetevalmembers"] = 3, 3, 6
		}
		for table, rows := range doc.Tables {
			if len(rows) != want[table] {
				t.Errorf("table %s has %d rows, want %d", table, len(rows), want[table])
			}
		}
		for _, secret := range []string{"password", "lastcheckedtime"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the rows", secret)
			}
		}
	})
}

// leftOut are the columns that are not among the rows: secrets, what Hydra does
// at the moment, and what restoring decides.
var leftOut = []string{
	"users.password",
	"jobsets.errormsg", "jobsets.errortime", "jobsets.lastcheckedtime", "jobsets.triggertime", "jobsets.fetcherrormsg", "jobsets.starttime", "jobsets.forceeval",
	"builds.iscurrent", "builds.keep", "builds.priority", "builds.globalpriority", "builds.notificationpendingsince", "builds.busy", "builds.locker", "builds.logfile",
	"buildsteps.busy",
	"schemaversion.version", "jobs.project", "jobs.jobset", "jobs.name", "jobs.jobset_id",
}

// TestRowsColumns looks at which columns are read: all that Hydra has had but
// those, and none that may come.
func TestRowsColumns(t *testing.T) {
	for _, shape := range hydratest.Shapes() {
		t.Run(shape, func(t *testing.T) {
			s := newFullScene(t, shape)
			for _, table := range s.Tables() {
				s.Exec("alter table " + table + " add column token text default 's3cret'")
			}
			sel := hydra.Selection{Project: "disnix", Evaluation: int64(s.second)}
			if hydratest.HasReleases(shape) {
				sel = hydra.Selection{Project: "disnix", Name: "disnix-0.3"}
			}
			s.Insert("aggregateconstituents", hydratest.Row{"aggregate": s.client, "constituent": s.server})
			doc := parse(t, find(t, open(t, s.URL), sel).Rows)
			for _, column := range s.Strings("select table_name || '.' || column_name from information_schema.columns where table_schema = 'public'") {
				table, name, _ := strings.Cut(column, ".")
				rows := doc.Tables[table]
				if len(rows) == 0 && table != "schemaversion" && table != "jobs" {
					t.Errorf("table %s has no rows", table)
					continue
				}
				read := false
				if len(rows) > 0 {
					_, read = rows[0][name]
				}
				if want := name != "token" && !slices.Contains(leftOut, column); read != want {
					t.Errorf("column %s is read: %v, want %v", column, read, want)
				}
			}
		})
	}
}

// TestRowsTokens reads addresses of which a part is a secret.
func TestRowsTokens(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	for _, url := range []string{
		"https://s3cret@example.org/a.git", "https://me:s3cret@example.org/a.git main", "git+https://me:s3c@ret@example.org/s3cret@1",
		"https://example.org/a?ref=x&access_token=s3cret#f", "HTTP://s3cret@example.org", "https://me:s3cret@a.org/b https://me:s3cret@c.org",
	} {
		s.Exec("update jobsetinputalts set value = $1", url)
		s.Exec("update jobsetevalinputs set uri = $1", url)
		s.Exec("update projects set declvalue = $1", url)
		rows := string(find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}).Rows)
		if strings.Contains(strings.ReplaceAll(rows, "/s3cret@1", ""), "s3c") || !strings.Contains(rows, "org") {
			t.Errorf("of %s there is\n%s", url, rows)
		}
	}
	for _, url := range []string{"ssh://git@example.org/a.git", "git@example.org:a.git", "https://example.org/@scope/x?to=a@b", "https://example.org?to=a@b"} {
		s.Exec("update jobsetinputalts set value = $1", url)
		rows := string(find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}).Rows)
		if !strings.Contains(rows, strconv.Quote(url)) {
			t.Errorf("%s is not in\n%s", url, rows)
		}
	}
}

// TestRowsStay reads the rows of a release twice, and between the reads Hydra
// does what it does all day.
func TestRowsStay(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	sel := hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}
	before := find(t, open(t, s.URL), sel)
	s.Exec("update jobsets set lastcheckedtime = 5, errormsg = 'x', starttime = 7")
	s.Exec("update builds set iscurrent = 0, keep = 1, globalpriority = 3")
	s.AddEvaluation("disnix", "trunk", s.client)
	after := find(t, open(t, s.URL), sel)
	if string(before.Rows) != string(after.Rows) {
		t.Errorf("before\n%s\nafter\n%s", before.Rows, after.Rows)
	}
}

// TestSnapshot reads what was there when it began.
func TestSnapshot(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	snapshot := open(t, s.URL)
	s.Exec("update builds set buildstatus = 1")
	if r := find(t, snapshot, hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}); len(r.Builds) != 2 {
		t.Errorf("%d builds, want 2", len(r.Builds))
	}
	says(t, findError(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first)}), "none of its builds (2) succeeded")
}

// TestReadOnlyRole reads as a role that may only SELECT.
func TestReadOnlyRole(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.AddRelease("disnix", "r", "", s.client)
		s.Exec("grant select on all tables in schema public to " + hydratest.Guarded)
		snapshot := open(t, s.As(hydratest.Guarded, hydratest.Password))
		r := find(t, snapshot, hydra.Selection{Project: "disnix", Jobset: "trunk"})
		if names(r) != "client server all" {
			t.Errorf("got %q", names(r))
		}
		if hydratest.HasReleases(shape) {
			find(t, snapshot, hydra.Selection{Project: "disnix", Name: "r"})
		}
		if list, err := snapshot.Releases(t.Context(), ""); err != nil || (len(list) == 1) != hydratest.HasReleases(shape) {
			t.Errorf("releases are %v, %v", list, err)
		}
		if list, err := snapshot.Evaluations(t.Context(), "", "", 0); err != nil || len(list) != 3 {
			t.Errorf("evaluations are %v, %v", list, err)
		}
	})
}
