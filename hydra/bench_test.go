package hydra_test

import (
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// manyBuilds is how many builds the evaluation of BenchmarkEvaluation has.
const manyBuilds = 10_000

// newManyBuilds makes a database with an evaluation of many builds among ten times
// as many.
func newManyBuilds(b *testing.B) (db *hydratest.DB, sel *hydra.Selection) {
	db = hydratest.New(b, hydratest.Fresh)
	db.AddProject("nixpkgs")
	db.AddJobset("nixpkgs", "trunk")
	evaluation := db.AddEvaluation("nixpkgs", "trunk")
	db.AddBuilds("nixpkgs", "trunk", 10*manyBuilds)
	db.Exec("insert into jobsetevalmembers select $1, id, 1 from builds where id % 10 = 0", evaluation)
	db.Exec("analyze")
	return db, &hydra.Selection{Project: "nixpkgs", Evaluation: int64(evaluation)}
}

// BenchmarkEvaluation reads an evaluation of many builds, with all rows that
// belong to it.
func BenchmarkEvaluation(b *testing.B) {
	db, sel := newManyBuilds(b)
	var rows int
	for b.Loop() {
		s := open(b, db.URL)
		releases, errs := s.Find(b.Context(), sel, storeDir)
		if len(errs) > 0 || len(releases[0].Builds) != manyBuilds {
			b.Fatalf("%d builds, %v", len(releases[0].Builds), errs)
		}
		rows = len(releases[0].Rows)
		s.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyBuilds, "ns/build")
	b.ReportMetric(float64(rows)/manyBuilds, "B-rows/build")
}

// BenchmarkRestore puts the rows of an evaluation of many builds into a Hydra that
// has nothing yet, and again into one that has them, among ten times as many.
func BenchmarkRestore(b *testing.B) {
	db, sel := newManyBuilds(b)
	releases, errs := open(b, db.URL).Find(b.Context(), sel, storeDir)
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	restore := func(b *testing.B, url string) {
		if _, err := hydra.Restore(b.Context(), url, releases[0].Rows, hydra.RestoreOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	perBuild := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyBuilds, "ns/build")
	}
	b.Run("new", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			target := hydratest.New(b, hydratest.Fresh)
			b.StartTimer()
			restore(b, target.URL)
		}
		perBuild(b)
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			restore(b, db.URL)
		}
		perBuild(b)
	})
}

// BenchmarkDump dumps 100,000 builds.
func BenchmarkDump(b *testing.B) {
	db, _ := newManyBuilds(b)
	var n counter
	for b.Loop() {
		if _, err := hydra.Dump(b.Context(), db.URL, &n, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(n) / int64(b.N))
}

// A counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
