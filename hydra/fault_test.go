package hydra_test

import (
	"errors"
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// TestFindErrors asks for what is not there, or cannot be backed up.
func TestFindErrors(t *testing.T) {
	s := newScene(t, hydratest.Upgraded)
	s.AddRelease("disnix", "disnix-0.3", "", s.client)
	s.AddRelease("disnix", "failed", "", s.failed)
	s.AddRelease("disnix", "empty", "")
	snapshot := open(t, s.URL)
	tests := []struct {
		name string
		sel  hydra.Selection
		want []string
	}{
		{"unknown project", hydra.Selection{Project: "Disnix", Name: "x"}, []string{`project "Disnix" is not in Hydra: did you mean "disnix"?`}},
		{"very unknown project", hydra.Selection{Project: "charon", Name: "x"}, []string{`project "charon" is not in Hydra: it has disnix, nix`}},
		{"unknown release", hydra.Selection{Project: "disnix", Name: "disnix-0.2"}, []string{`release disnix/disnix-0.2: project "disnix" has no release "disnix-0.2": did you mean "disnix-0.3"?`}},
		{"no release", hydra.Selection{Project: "nix", Name: "nix-1.7"}, []string{`has no release "nix-1.7": it has none`}},
		{"no match", hydra.Selection{Project: "disnix", Name: "nix*"}, []string{`has no release "nix*"`}},
		{"no builds", hydra.Selection{Project: "disnix", Name: "empty"}, []string{"release disnix/empty: it has no builds"}},
		{"no success", hydra.Selection{Project: "disnix", Name: "failed"}, []string{"release disnix/failed: none of its builds (1) succeeded"}},
		{"unknown evaluation", hydra.Selection{Project: "disnix", Evaluation: 99}, []string{"release of disnix, evaluation 99: there is no evaluation 99"}},
		{"huge evaluation", hydra.Selection{Project: "disnix", Evaluation: 1 << 62}, []string{"there is no evaluation 4611686018427387904"}},
		{"evaluation of another", hydra.Selection{Project: "nix", Evaluation: int64(s.first)}, []string{`is of project "disnix" (jobset "trunk"), not of "nix"`}},
		{"unknown jobset", hydra.Selection{Project: "disnix", Jobset: "trnk"}, []string{`has no jobset "trnk": did you mean "trunk"?`}},
		{"idle jobset", hydra.Selection{Project: "disnix", Jobset: "idle"}, []string{"jobset disnix:idle has no evaluation whose builds are all finished"}},
		{"no job", hydra.Selection{Project: "disnix", Jobset: "trunk", Jobs: []string{"client", "clent"}}, []string{`has no job that matches "clent"`}},
		{"failed job", hydra.Selection{Project: "disnix", Jobset: "trunk", Jobs: []string{"tests.*"}}, []string{"none of its builds (1) succeeded"}},
		{"unknown build", hydra.Selection{Project: "disnix", Name: "n", Builds: []int64{int64(s.client), 98, 99}}, []string{"there is no build 98; there is no build 99"}},
		{"failed build", hydra.Selection{Project: "disnix", Name: "n", Builds: []int64{int64(s.failed)}}, []string{"(disnix:trunk:tests.install, i686-linux) failed"}},
		{"queued build", hydra.Selection{Project: "disnix", Name: "n", Builds: []int64{int64(s.late)}}, []string{"is not finished"}},
		{"no name", hydra.Selection{Project: "disnix", Builds: []int64{int64(s.client)}}, []string{`add "name"`}},
		{"no aggregate", hydra.Selection{Project: "disnix", Aggregate: hydra.Aggregate{Build: int64(s.client)}}, []string{"is not an aggregate"}},
		{"no such aggregate", hydra.Selection{Project: "disnix", Jobset: "trunk", Aggregate: hydra.Aggregate{Job: "tested"}}, []string{`has no job "tested"`}},
		{"no output", hydra.Selection{Project: "disnix", Evaluation: int64(s.first), Outputs: []string{"man", "lib"}}, []string{"(disnix:trunk:client, x86_64-linux) has no outputs, or none of those that are asked for"}},
		{"nothing selected", hydra.Selection{Project: "disnix"}, []string{"has no name, and no evaluation"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { says(t, findError(t, snapshot, tt.sel), tt.want...) })
	}
}

// TestFailedAggregate does not take the constituents of an aggregate that failed
// for a release.
func TestFailedAggregate(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	s.Exec("update builds set buildstatus = 2 where id = $1", s.all)
	err := findError(t, open(t, s.URL), hydra.Selection{Project: "disnix", Jobset: "trunk", Aggregate: hydra.Aggregate{Job: "all"}})
	says(t, err, "(disnix:trunk:all, x86_64-linux) failed because a dependency did")
}

// TestBadOutputs names every build whose outputs cannot be backed up.
func TestBadOutputs(t *testing.T) {
	tests := []struct {
		name, sql string
		want      string
	}{
		{"NULL path", "update buildoutputs set path = null where name = 'doc'", "has no store path for output doc"},
		{"outside the store", "update buildoutputs set path = '/home/eelco/disnix' where name = 'out'", `output out store path "/home/eelco/disnix": is not in the store directory /nix/store`},
		{"other store", "update buildoutputs set path = replace(path, '/nix/', '/gnu/')", "is not in the store directory /nix/store"},
		{"below a store path", "update buildoutputs set path = path || '/bin'", `has the character '/' in its name`},
		{"leads out", "update buildoutputs set path = '/nix/store/../../etc/passwd'", "does not begin with a 32-character hash"},
		{"no outputs", "delete from buildoutputs", "has no outputs"},
		{"derivation outside", "update builds set drvpath = '/tmp/x.drv'", "has as its derivation"},
		{"no derivation", "update builds set drvpath = replace(drvpath, '.drv', '')", "which is none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, hydratest.Fresh)
			s.Exec(tt.sql)
			err := findError(t, open(t, s.URL), hydra.Selection{Project: "disnix", Evaluation: int64(s.first)})
			says(t, err, tt.want, "release of disnix, evaluation", "disnix:trunk:client, x86_64-linux", "disnix:trunk:server, x86_64-linux")
		})
	}
}

// TestOtherFails lets one release of several fail.
func TestOtherFails(t *testing.T) {
	s := newScene(t, hydratest.Upgraded)
	s.AddRelease("disnix", "good", "", s.client)
	s.AddRelease("disnix", "bad", "", s.server)
	s.Exec("update buildoutputs set path = null where build = $1", s.server)
	releases, errs := open(t, s.URL).Find(t.Context(), &hydra.Selection{Project: "disnix", Name: "*"}, storeDir)
	if len(releases) != 1 || releases[0].Name != "good" || len(errs) != 1 {
		t.Fatalf("found %v, %v", releases, errs)
	}
	says(t, errs[0], "release disnix/bad: ", "has no store path for output doc")
}

// TestServerErrorOfOne lets the server refuse one selection: those after it are
// found in the same transaction.
func TestServerErrorOfOne(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	snapshot := open(t, s.URL)
	says(t, findError(t, snapshot, hydra.Selection{Project: "disnix", Jobset: "trunk\x00"}), "invalid byte sequence")
	if r := find(t, snapshot, hydra.Selection{Project: "disnix", Jobset: "trunk"}); r.Evaluation != int64(s.second) {
		t.Errorf("found evaluation %d", r.Evaluation)
	}
}

// TestOpenErrors connects to what is not there, not Hydra's, or not allowed.
func TestOpenErrors(t *testing.T) {
	db := hydratest.New(t, hydratest.Fresh)
	unknown := hydratest.New(t, hydratest.Fresh)
	unknown.Exec("update schemaversion set version = 99; alter table builds rename column drvpath to drvpaths")
	empty := hydratest.New(t, hydratest.Fresh)
	empty.Exec("drop schema public cascade; create schema public")
	tests := []struct {
		name, url string
		want      []string
	}{
		{"no server", "postgres:///hydra?host=/nonexistent", []string{`database "hydra" at /nonexistent/.s.PGSQL.5432`, "no such file or directory: is the server there"}},
		{"nobody listens", "dbi:Pg:dbname=hydra;host=127.0.0.1;port=1;user=hydra;sslmode=disable", []string{`database "hydra" at 127.0.0.1:1 as "hydra"`, "connection refused: is the server there"}},
		{"no host", "postgres://hydra@host.invalid/hydra", []string{"host.invalid", "is the server there"}},
		{"no database", "host=" + db.Host + " dbname=hydro user=hydra", []string{`database "hydro" does not exist: check the name of the database`}},
		{"no role", "host=" + db.Host + " dbname=" + db.Name + " user=nobody", []string{`role "nobody" does not exist: check the role`}},
		{"wrong password", db.As(hydratest.Guarded, "wrong"), []string{`password authentication failed for user "guarded": check the password`, "~/.pgpass"}},
		{"may not read", db.As(hydratest.Guarded, hydratest.Password), []string{"permission denied for table schemaversion: let the role read Hydra's tables: grant select"}},
		{"not Hydra's", empty.URL, []string{"it is not Hydra's: it has no table buildoutputs, table buildproducts, table builds"}},
		{"newer Hydra", unknown.URL, []string{"Hydra's schema version 99 has no column builds.drvpath: this narvault does not know it, use a newer one"}},
		{"not PostgreSQL", "dbi:SQLite:hydra.sqlite", []string{`DBI driver "SQLite": Hydra's database is PostgreSQL`}},
		{"malformed", "dbi:Pg:hydra", []string{"has a part without keyword=value"}},
		{"wrong keyword", "host=" + db.Host + " user=hydra sslmod=require dbname=" + db.Name, []string{`unrecognized configuration parameter "sslmod": check the keywords`}},
		{"empty", "", []string{"its name is empty: name a database"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := hydra.Open(t.Context(), tt.url)
			if err == nil {
				s.Close()
			}
			says(t, err, append(tt.want, "open Hydra's database: ")...)
			if err != nil && errors.Is(err, t.Context().Err()) {
				t.Error("the context has ended")
			}
		})
	}
}
