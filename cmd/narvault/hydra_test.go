package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/narvault/narvault/hydra/hydratest"
	"github.com/narvault/narvault/narread/testenv"
)

// TestHydra runs the stories in testdata/hydra: narvault beside real Nix and a
// real PostgreSQL with Hydra's tables. They have what TestScript's have.
func TestHydra(t *testing.T) {
	testenv.Need(t, "root", "nix", "postgresql", "unshare")
	p := storyParams(t, "testdata/hydra")
	setUp := p.Setup
	p.Setup = func(env *testscript.Env) error {
		env.Values["test"] = t
		env.Values["database"] = new(*hydratest.DB)
		return setUp(env)
	}
	maps.Copy(p.Cmds, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"database":   makeDatabase,
		"register":   register,
		"evaluation": registerEvaluation,
		"release":    registerRelease,
		"sql":        func(ts *testscript.TestScript, _ bool, args []string) { database(ts).Exec(args[0]) },
		"expand":     expand,
		"build":      build,
		"programs":   programs,
	})
	testscript.Run(t, p)
}

// makeDatabase SHAPE: makes a database with the project demo and its jobset
// trunk. Then $database is its URL, and $dbname and $dbhost are parts of it.
// With VAR behind it, it makes one without a project, or with SHAPE empty one
// without tables, and sets $VAR to its URL.
func makeDatabase(ts *testscript.TestScript, _ bool, args []string) {
	db := hydratest.New(ts.Value("test").(*testing.T), args[0])
	if len(args) > 1 {
		ts.Setenv(args[1], db.URL)
		return
	}
	db.AddProject("demo")
	db.AddJobset("demo", "trunk")
	*ts.Value("database").(**hydratest.DB) = db
	ts.Setenv("database", db.URL)
	ts.Setenv("dbname", db.Name)
	ts.Setenv("dbhost", db.Host)
}

// database returns the one that the story has made last.
func database(ts *testscript.TestScript) *hydratest.DB { return *ts.Value("database").(**hydratest.DB) }

// register VAR JOB PATH [STATUS]: registers the build of a store path, or of a
// derivation, as Hydra would, and sets $VAR to its id.
func register(ts *testscript.TestScript, _ bool, args []string) {
	path := args[2]
	drv := path
	if !strings.HasSuffix(path, ".drv") {
		drv = strings.TrimSpace(nixStore(ts, "--query", "--deriver", path))
	}
	b := hydratest.Build{Project: "demo", Jobset: "trunk", Job: args[1], DrvPath: drv, Outputs: make(map[string]any), Description: "built as " + args[1]}
	for name, path := range outputsOf(ts, drv) {
		b.Outputs[name] = path
	}
	if len(args) > 3 {
		status, err := strconv.Atoi(args[3])
		ts.Check(err)
		b.Status = status
	}
	ts.Setenv(args[0], fmt.Sprint(database(ts).AddBuild(b)))
}

// outputsOf returns the paths of a derivation's outputs, by name.
func outputsOf(ts *testscript.TestScript, drv string) map[string]string {
	outputs := make(map[string]string)
	for path := range strings.FieldsSeq(nixStore(ts, "--query", "--outputs", drv)) {
		name := "out"
		for _, other := range []string{"man", "doc", "dev"} {
			if strings.HasSuffix(path, "-"+other) {
				name = other
			}
		}
		outputs[name] = path
	}
	return outputs
}

// build VAR ARG...: sets $VAR to what nix-build ARG... built.
func build(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("nix-build", append([]string{"--no-out-link"}, args[1:]...)...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// evaluation VAR BUILD...: registers an evaluation, and sets $VAR to its id.
func registerEvaluation(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], fmt.Sprint(database(ts).AddEvaluation("demo", "trunk", numbers(ts, args[1:])...)))
}

// release NAME DESCRIPTION BUILD...: registers a release.
func registerRelease(ts *testscript.TestScript, _ bool, args []string) {
	database(ts).AddRelease("demo", args[0], args[1], numbers(ts, args[2:])...)
}

func numbers(ts *testscript.TestScript, args []string) (ids []int) {
	for _, arg := range args {
		id, err := strconv.Atoi(arg)
		ts.Check(err)
		ids = append(ids, id)
	}
	return ids
}

// expand FILE VAR...: replaces each $VAR in a file by its value.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	slices.SortFunc(args[1:], func(a, b string) int { return len(b) - len(a) })
	for _, name := range args[1:] {
		text = strings.ReplaceAll(text, "$"+name, ts.Getenv(name))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// programs: makes $fake, a directory with pg_dump and psql, which are what the
// files pg_dump.sh and psql.sh of the story say. In them, $real is the real one.
func programs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs("fake")
	ts.Check(os.Mkdir(dir, 0o755))
	for _, name := range []string{"pg_dump", "psql"} {
		real, err := testenv.PostgreSQL("initdb")
		ts.Check(err)
		real, err = filepath.EvalSymlinks(real)
		ts.Check(err)
		text := fmt.Sprintf("#!/bin/sh\nreal=%s\n[ \"$1\" != --version ] || exec $real --version\n%s",
			filepath.Join(filepath.Dir(real), name), ts.ReadFile(name+".sh"))
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	ts.Setenv("fake", dir)
}
