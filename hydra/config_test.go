package hydra_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/narvault/narvault/hydra"
)

// seed is a configuration as hydra-backup had it.
const seed = `{
  "dbiConnection": "dbi:Pg:dbname=hydra;host=localhost;user=hydra;",
  "outDir": "/home/sander/hydrabackup",
  "releases": [
    {
      "project": "disnix",
      "name": "disnix-0.3",
      "method": "binary"
    }
  ]
}
`

func TestParseConfig(t *testing.T) {
	got, err := hydra.ParseConfig([]byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	want := &hydra.Config{
		Database: "dbi:Pg:dbname=hydra;host=localhost;user=hydra;", OutDir: "/home/sander/hydrabackup",
		Releases: []hydra.Selection{{Project: "disnix", Name: "disnix-0.3", Method: "binary"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParseConfigSelections(t *testing.T) {
	got, err := hydra.ParseConfig([]byte(`{"dbiConnection": "postgres://h/x", "outDir": "Sicherungen für später", "releases": [
		{"project": "p", "evaluation": 3, "jobs": ["a", "b.*"], "description": "Größe \u00e4"},
		{"project": "p", "jobset": "trunk", "aggregate": "tested"},
		{"project": "p", "aggregate": 12}, {"project": "p", "name": "n", "builds": [1, 2]}, {"project": "p", "name": "p-*", "outputs": ["out"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []hydra.Selection{
		{Project: "p", Evaluation: 3, Jobs: []string{"a", "b.*"}, Description: "Größe ä"},
		{Project: "p", Jobset: "trunk", Aggregate: hydra.Aggregate{Job: "tested"}},
		{Project: "p", Aggregate: hydra.Aggregate{Build: 12}}, {Project: "p", Name: "n", Builds: []int64{1, 2}}, {Project: "p", Name: "p-*", Outputs: []string{"out"}},
	}
	if !reflect.DeepEqual(got.Releases, want) || got.OutDir != "Sicherungen für später" {
		t.Errorf("got %+v in %q\nwant %+v", got.Releases, got.OutDir, want)
	}
}

// TestConfigErrors makes mistakes in the seed's configuration.
func TestConfigErrors(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"unknown field", `"outDir"`, `"outdir"`, `outdir is no field that narvault knows: did you mean "outDir"?`},
		{"unknown field of a release", `"method"`, `"metod"`, `releases[0].metod is no field that narvault knows: did you mean "method"?`},
		{"string for list", `[`, `"x", "x": [`, `releases is a string, not a list`},
		{"number for string", `"disnix-0.3"`, `0.3`, `releases[0].name is a number, not a string`},
		{"null for string", `"disnix-0.3"`, `null`, `releases[0].name is null, not a string`},
		{"list for object", "{\n      \"project\"", "[], {\"project\"", `releases[0] is a list, not an object`},
		{"field twice", `"method"`, `"name": "x", "method"`, `releases[0].name is there twice`},
		{"release twice", "\n  ]", `, {"name": "disnix-0.3", "project": "disnix"}]`, `releases[1] is release disnix/disnix-0.3, and so is releases[0]: leave one out`},
		{"no database", `"dbiConnection": "dbi:Pg:dbname=hydra;host=localhost;user=hydra;",`, ``, `dbiConnection is missing`},
		{"no directory", `"/home/sander/hydrabackup"`, `""`, `outDir is missing`},
		{"no project", `"project": "disnix",`, ``, `releases[0] has no project`},
		{"no JSON", `"binary"`, `"binary",`, "is no JSON: line 9, column 5: invalid character '}'"},
		{"cut off", "\n  ]\n}\n", ``, "is no JSON: line 9"},
		{"Latin-1", `disnix-0.3`, "gr\xf6\xdfe", `is not UTF-8`},
		{"other database", `dbi:Pg:`, `dbi:mysql:`, `dbiConnection is for the DBI driver "mysql"`},
		{"other URL", `dbi:Pg:dbname=hydra;host=localhost;user=hydra;`, `https://hydra.nixos.org`, `dbiConnection is a URL of "https", not of postgres`},
		{"negative", `"method": "binary"`, `"evaluation": -1`, `releases[0].evaluation is -1, not the number of an evaluation`},
		{"fraction", `"method": "binary"`, `"evaluation": 1.5`, `releases[0].evaluation is a number, not the number of an evaluation`},
		{"no build", `"method": "binary"`, `"builds": [1, "x"]`, `releases[0].builds[1] is a string, not the number of a build`},
		{"no job", `"method": "binary"`, `"jobs": ["x", null]`, `releases[0].jobs[1] is null, not a string`},
		{"no aggregate", `"method": "binary"`, `"aggregate": []`, `releases[0].aggregate is neither the number of a build nor the name of a job`},
		{"two selections", `"method": "binary"`, `"builds": [1], "evaluation": 1`, `releases[0] has more than one of evaluation, jobset, builds and aggregate`},
		{"jobs of nothing", `"method": "binary"`, `"jobs": ["x"]`, `releases[0] has jobs, but no evaluation`},
		{"aggregate of nothing", `"method": "binary"`, `"aggregate": "tested"`, `releases[0] has the aggregate "tested", but no evaluation`},
		{"jobs of an aggregate", `"method": "binary"`, `"jobset": "j", "jobs": ["x"], "aggregate": "tested"`, `has jobs and an aggregate`},
		{"malformed pattern", `"method": "binary"`, `"jobset": "j", "jobs": ["x["]`, `has the pattern "x[", which is malformed`},
		{"pattern as name", `disnix-0.3",`, `disnix-*", "evaluation": 3,`, `has the pattern "disnix-*" as its name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(seed, tt.old, tt.new, 1)
			if text == seed {
				t.Fatalf("the seed has no %q", tt.old)
			}
			_, err := hydra.ParseConfig([]byte(text))
			says(t, err, tt.want)
		})
	}
	for text, want := range map[string]string{"[]": "the file is a list, not an object", "": "is no JSON", `{"releases": []}`: "dbiConnection is missing"} {
		_, err := hydra.ParseConfig([]byte(text))
		says(t, err, want)
	}
}

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	if _, err := hydra.ReadConfig(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	_, err := hydra.ReadConfig(dir)
	says(t, err, dir+" is no file")
	if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = hydra.ReadConfig(file)
	var config *hydra.ConfigError
	if !errors.As(err, &config) || config.File != file {
		t.Errorf("error is %v", err)
	}
}

// FuzzParseConfig looks for a configuration that breaks the parser.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(seed))
	f.Add([]byte(`{"releases":[{"builds":[1],"aggregate":"x","jobs":[null]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := hydra.ParseConfig(text)
		if (c == nil) != (err != nil) {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
