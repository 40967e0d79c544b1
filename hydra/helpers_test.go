package hydra_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

const storeDir = "/nix/store"

// path makes up a store path.
func path(name string) string {
	digest := sha256.Sum256([]byte(name))
	return storeDir + "/" + nixbase32.EncodeToString(digest[:20]) + "-" + name
}

// base is path without the store directory.
func base(name string) string { return strings.TrimPrefix(path(name), storeDir+"/") }

// open opens a database; the test ends with it.
func open(t testing.TB, url string) *hydra.Snapshot {
	t.Helper()
	s, err := hydra.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// find returns the one release that a selection stands for.
func find(t *testing.T, s *hydra.Snapshot, sel hydra.Selection) *hydra.Release {
	t.Helper()
	releases, errs := s.Find(t.Context(), &sel, storeDir)
	if len(errs) > 0 || len(releases) != 1 {
		t.Fatalf("found %d releases, %v", len(releases), errs)
	}
	return releases[0]
}

// findError returns the one error of a selection, for which there is no release.
func findError(t *testing.T, s *hydra.Snapshot, sel hydra.Selection) error {
	t.Helper()
	releases, errs := s.Find(t.Context(), &sel, storeDir)
	if len(errs) != 1 || len(releases) != 0 {
		t.Fatalf("found %d releases, %v, want one error", len(releases), errs)
	}
	return errs[0]
}

// says fails the test unless an error has all the words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error is\n%v\nwhich does not say %q", err, w)
		}
	}
}

// build is a build of the jobset disnix:trunk with two outputs.
func build(job string) hydratest.Build {
	return hydratest.Build{
		Project: "disnix", Jobset: "trunk", Job: job, DrvPath: path(job + "-1.0.drv"), Description: "the job " + job,
		Outputs: map[string]any{"out": path(job + "-1.0"), "doc": path(job + "-1.0-doc")},
	}
}

// A scene is a database of the project disnix with three evaluations of the
// jobset trunk. The third is not finished.
type scene struct {
	*hydratest.DB
	first, second, third         int // evaluations
	client, server, failed, late int // builds: in all, in all, in the second and third, in the third
	all                          int // an aggregate of client and server, in the second
}

func newScene(t testing.TB, shape string) *scene {
	db := hydratest.New(t, shape)
	db.AddProject("disnix")
	db.AddProject("nix")
	db.AddJobset("disnix", "trunk")
	db.AddJobset("disnix", "idle")
	s := &scene{DB: db}
	s.client, s.server = db.AddBuild(build("client")), db.AddBuild(build("server"))
	s.first = db.AddEvaluation("disnix", "trunk", s.client, s.server)
	bad := build("tests.install")
	bad.Status, bad.System = 1, "i686-linux"
	s.failed = db.AddBuild(bad)
	aggregate := build("all")
	aggregate.ReleaseName = "disnix-0.4pre7"
	s.all = db.AddBuild(aggregate)
	for _, constituent := range []int{s.client, s.server} {
		db.Insert("aggregateconstituents", hydratest.Row{"aggregate": s.all, "constituent": constituent})
	}
	s.second = db.AddEvaluation("disnix", "trunk", s.client, s.server, s.failed, s.all)
	late := build("late")
	late.Queued = true
	s.late = db.AddBuild(late)
	s.third = db.AddEvaluation("disnix", "trunk", s.client, s.server, s.failed, s.late)
	return s
}

// names returns the jobs of a release's builds.
func names(r *hydra.Release) string {
	var jobs []string
	for _, b := range r.Builds {
		jobs = append(jobs, b.Job)
	}
	return strings.Join(jobs, " ")
}

// forShapes runs a test on a scene of each shape of Hydra's tables.
func forShapes(t *testing.T, test func(t *testing.T, s *scene, shape string)) {
	for _, shape := range hydratest.Shapes() {
		t.Run(fmt.Sprint("schema ", shape), func(t *testing.T) { test(t, newScene(t, shape), shape) })
	}
}
