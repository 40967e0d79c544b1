package hydra_test

import (
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// manyBuilds is how many builds the evaluation of BenchmarkEvaluation has.
const manyBuilds = 10_000

// BenchmarkEvaluation reads an evaluation of many builds among ten times as
// many, with all rows that belong to it.
func BenchmarkEvaluation(b *testing.B) {
	db := hydratest.New(b, hydratest.Fresh)
	db.AddProject("nixpkgs")
	db.AddJobset("nixpkgs", "trunk")
	evaluation := db.AddEvaluation("nixpkgs", "trunk")
	db.AddBuilds("nixpkgs", "trunk", 10*manyBuilds)
	db.Exec("insert into jobsetevalmembers select $1, id, 1 from builds where id % 10 = 0", evaluation)
	db.Exec("analyze")
	var rows int
	for b.Loop() {
		s := open(b, db.URL)
		releases, errs := s.Find(b.Context(), &hydra.Selection{Project: "nixpkgs", Evaluation: int64(evaluation)}, storeDir)
		if len(errs) > 0 || len(releases[0].Builds) != manyBuilds {
			b.Fatalf("%d builds, %v", len(releases[0].Builds), errs)
		}
		rows = len(releases[0].Rows)
		s.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyBuilds, "ns/build")
	b.ReportMetric(float64(rows)/manyBuilds, "B-rows/build")
}
