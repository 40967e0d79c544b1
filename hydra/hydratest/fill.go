package hydratest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Row is a row to be inserted: values by column.
type Row map[string]any

// Insert inserts a row. Columns that the table has not in this shape are left
// out, and so is the row if there is no such table; the result is the row's id,
// or 0 if it has none.
func (db *DB) Insert(table string, row Row) (id int) {
	db.tb.Helper()
	var names, places []string
	var values []any
	for _, name := range slices.Sorted(maps.Keys(row)) {
		if db.columns[table][name] {
			values = append(values, row[name])
			names = append(names, `"`+name+`"`)
			places = append(places, fmt.Sprintf("$%d", len(values)))
		}
	}
	if len(names) == 0 {
		return 0
	}
	returning := "0"
	if db.columns[table]["id"] {
		returning = "id"
	}
	sql := fmt.Sprintf("insert into %s (%s) values (%s) returning %s", table, strings.Join(names, ", "), strings.Join(places, ", "), returning)
	if err := db.conn.QueryRow(context.Background(), sql, values...).Scan(&id); err != nil {
		db.tb.Fatalf("%s: %v", sql, err)
	}
	return id
}

// now returns a time, later at every call.
func (db *DB) now() int {
	db.clock += 60
	return db.clock
}

// AddProject adds a project of the user eelco, who has a password.
func (db *DB) AddProject(name string) {
	db.tb.Helper()
	db.Exec("insert into users (username, fullname, emailaddress, password) values ('eelco', 'Eelco', 'eelco@example.org', 'hash-of-a-password') " +
		"on conflict do nothing")
	db.Insert("projects", Row{"name": name, "displayname": strings.ToUpper(name), "owner": "eelco"})
}

// AddJobset adds a jobset with an input.
func (db *DB) AddJobset(project, name string) {
	db.tb.Helper()
	id := db.Insert("jobsets", Row{"project": project, "name": name, "nixexprinput": "src", "nixexprpath": "release.nix",
		"emailoverride": "", "lastcheckedtime": db.now()})
	db.jobsets[project+":"+name] = id
	db.Insert("jobsetinputs", Row{"project": project, "jobset": name, "name": "src", "type": "git"})
	db.Insert("jobsetinputalts", Row{"project": project, "jobset": name, "input": "src", "altnr": 0, "value": "https://example.org/src.git"})
}

// A Build is a build to be added. What is zero gets a value that fits.
type Build struct {
	Project, Jobset, Job string
	System               string // x86_64-linux
	Description          string
	DrvPath              string
	Outputs              map[string]any // paths by name; nil is NULL
	Status               int            // 0 succeeded
	Queued               bool           // not finished
	ReleaseName          any
}

// AddBuild adds a build with a step for it, and returns its id.
func (db *DB) AddBuild(b Build) int {
	db.tb.Helper()
	if b.System == "" {
		b.System = "x86_64-linux"
	}
	start := db.now()
	row := Row{
		"project": b.Project, "jobset": b.Jobset, "jobset_id": db.jobsets[b.Project+":"+b.Jobset], "job": b.Job,
		"timestamp": start, "nixname": b.Job + "-1.0", "description": b.Description, "drvpath": b.DrvPath, "system": b.System,
		"finished": 0, "releasename": b.ReleaseName, "iscurrent": 1,
	}
	if !b.Queued {
		maps.Copy(row, Row{"finished": 1, "starttime": start, "stoptime": start + 30, "buildstatus": b.Status, "iscachedbuild": 0,
			"size": 1000, "closuresize": 5000})
	}
	db.addJob(b.Project, b.Jobset, b.Job)
	id := db.Insert("builds", row)
	db.Insert("buildsteps", Row{"build": id, "stepnr": 1, "type": 0, "drvpath": b.DrvPath, "busy": 0, "status": b.Status,
		"starttime": start, "stoptime": start + 30, "system": b.System})
	for _, name := range slices.Sorted(maps.Keys(b.Outputs)) {
		db.Insert("buildoutputs", Row{"build": id, "name": name, "path": b.Outputs[name]})
	}
	return id
}

// addJob adds what old schemas have for each job.
func (db *DB) addJob(project, jobset, job string) {
	if !db.columns["jobs"]["name"] {
		return
	}
	var there bool
	err := db.conn.QueryRow(context.Background(), "select exists (select from jobs where project = $1 and jobset = $2 and name = $3)",
		project, jobset, job).Scan(&there)
	if err != nil {
		db.tb.Fatal(err)
	}
	if !there {
		db.Insert("jobs", Row{"project": project, "jobset": jobset, "jobset_id": db.jobsets[project+":"+jobset], "name": job})
	}
}

// AddEvaluation adds an evaluation of a jobset with these builds, and returns
// its id.
func (db *DB) AddEvaluation(project, jobset string, builds ...int) int {
	db.tb.Helper()
	id := db.Insert("jobsetevals", Row{
		"project": project, "jobset": jobset, "jobset_id": db.jobsets[project+":"+jobset], "timestamp": db.now(),
		"checkouttime": 1, "evaltime": 2, "hasnewbuilds": 1, "hash": "hash", "nrbuilds": len(builds),
	})
	db.Insert("jobsetevalinputs", Row{"eval": id, "name": "src", "altnr": 0, "type": "git", "uri": "https://example.org/src.git", "revision": "abc"})
	for _, build := range builds {
		db.Insert("jobsetevalmembers", Row{"eval": id, "build": build, "isnew": 1})
	}
	return id
}

// AddRelease adds a release of these builds.
func (db *DB) AddRelease(project, name, description string, builds ...int) {
	db.tb.Helper()
	db.Insert("releases", Row{"project": project, "name": name, "timestamp": db.now(), "description": description})
	for _, build := range builds {
		db.Insert("releasemembers", Row{"project": project, "release_": name, "build": build})
	}
}

// AddBuilds adds many builds that succeeded, each with a step and an output,
// to the jobset of a fresh database. (Nix's base 32 has the digits of base 16
// but for e.)
func (db *DB) AddBuilds(project, jobset string, n int) {
	db.tb.Helper()
	db.Exec(`insert into builds (finished, "timestamp", jobset_id, job, nixname, drvpath, system, starttime, stoptime, buildstatus)
		select 1, 1600000000 + i, $1, 'job' || i, 'job-' || i, '/nix/store/' || replace(md5(i::text), 'e', 'g') || '-job-' || i || '.drv', 'x86_64-linux', 1, 2, 0
		from generate_series(1, $2) i`, db.jobsets[project+":"+jobset], n)
	db.Exec("insert into buildoutputs select id, 'out', left(drvpath, -4) from builds")
	db.Exec(`insert into buildsteps (build, stepnr, type, drvpath, busy, status, starttime, stoptime, system)
		select id, 1, 0, drvpath, 0, 0, 1, 2, system from builds`)
}
