package hydra_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// TestReleases lists the releases in Hydra's tables.
func TestReleases(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.AddProject("odd")
		s.AddRelease("disnix", "disnix-0.3", "Disnix 0.3", s.client, s.failed, s.late)
		s.AddRelease("odd", "empty", "")
		snapshot := open(t, s.URL)
		list, err := snapshot.Releases(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if !hydratest.HasReleases(shape) {
			if len(list) > 0 || snapshot.HasReleases() {
				t.Errorf("there are releases: %v", list)
			}
			return
		}
		if len(list) != 2 || list[0].Name != "disnix-0.3" || list[0].Description != "Disnix 0.3" || list[0].Created.Unix() < 1_600_000_000 {
			t.Fatalf("releases are %+v", list)
		}
		if want := (hydra.Amounts{Builds: 3, Succeeded: 1, Queued: 1, Size: 1000}); list[0].Amounts != want {
			t.Errorf("got %+v, want %+v", list[0].Amounts, want)
		}
		if want := (hydra.Amounts{}); list[1].Amounts != want {
			t.Errorf("got %+v, want %+v", list[1].Amounts, want)
		}
		if list, err := snapshot.Releases(t.Context(), "odd"); err != nil || len(list) != 1 {
			t.Errorf("releases of odd are %v, %v", list, err)
		}
		_, err = snapshot.Releases(t.Context(), "Odd")
		says(t, err, `list releases: project "Odd" is not in Hydra: did you mean "odd"?`)
	})
}

// TestEvaluations lists evaluations, the newest first.
func TestEvaluations(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, _ string) {
		snapshot := open(t, s.URL)
		list, err := snapshot.Evaluations(t.Context(), "disnix", "trunk", 2)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, e := range list {
			got += fmt.Sprintf("%d %s:%s %+v\n", e.ID, e.Project, e.Jobset, e.Amounts)
		}
		want := fmt.Sprintf("%d disnix:trunk %+v\n%d disnix:trunk %+v\n", s.third, hydra.Amounts{Builds: 4, Succeeded: 2, Queued: 1, Size: 2000},
			s.second, hydra.Amounts{Builds: 4, Succeeded: 3, Size: 3000})
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		_, err = snapshot.Evaluations(t.Context(), "", "trnk", 0)
		says(t, err, `list evaluations: jobset "trnk" is not in Hydra: did you mean "trunk"?`)
		_, err = snapshot.Evaluations(t.Context(), "nix", "trunk", 0)
		says(t, err, `jobset "trunk" is not in Hydra`)
		for jobset, n := range map[string]int{"": 3, "idle": 0} {
			if list, err := snapshot.Evaluations(t.Context(), "", jobset, 0); err != nil || len(list) != n {
				t.Errorf("evaluations of %q are %v, %v", jobset, list, err)
			}
		}
	})
}

// TestCreateRelease makes releases of evaluations.
func TestCreateRelease(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		info, err := hydra.CreateRelease(t.Context(), s.URL, int64(s.second), "disnix-0.3", "Disnix 0.3")
		if !hydratest.HasReleases(shape) {
			if !errors.Is(err, hydra.ErrNoReleases) {
				t.Fatalf("error is %v", err)
			}
			if info, err := open(t, s.URL).PlanRelease(t.Context(), int64(s.second), "", ""); err != nil || info.Name != "disnix-0.4pre7" || info.Project != "disnix" {
				t.Errorf("plan is %+v, %v", info, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Project != "disnix" || info.Succeeded != 3 {
			t.Errorf("made %+v", info)
		}
		r := find(t, open(t, s.URL), hydra.Selection{Project: "disnix", Name: "disnix-0.3"})
		if names(r) != "client server all" || r.Description != "Disnix 0.3" {
			t.Errorf("release has %q, %q", names(r), r.Description)
		}
		// By Hydra's rule: as a build says, or by the number of the evaluation.
		for evaluation, want := range map[int]string{s.second: "disnix-0.4pre7", s.first: fmt.Sprint("disnix-", s.first)} {
			if info, err := hydra.CreateRelease(t.Context(), s.URL, int64(evaluation), "", ""); err != nil || info.Name != want {
				t.Errorf("made %+v, %v, want %s", info, err, want)
			}
		}
	})
}

func TestCreateReleaseErrors(t *testing.T) {
	s := newScene(t, hydratest.Releases)
	s.Exec("grant select on all tables in schema public to " + hydratest.Guarded)
	s.AddRelease("disnix", "taken", "", s.client)
	nothing := s.AddEvaluation("disnix", "trunk", s.failed)
	tests := []struct {
		name, url  string
		evaluation int
		release    string
		want       string
	}{
		{"taken", s.URL, s.first, "taken", "create release disnix/taken: there is one of this name already"},
		{"no evaluation", s.URL, 99, "x", "create release: there is no evaluation 99"},
		{"nothing succeeded", s.URL, nothing, "x", "none of its builds (1) succeeded: there is nothing to back up"},
		{"bad name", s.URL, s.first, "a/b", `release name "a/b" is none that Hydra accepts`},
		{"may not", s.As(hydratest.Guarded, hydratest.Password), s.first, "x", "permission denied for table releases: use the role that Hydra itself uses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hydra.CreateRelease(t.Context(), tt.url, int64(tt.evaluation), tt.release, "")
			says(t, err, tt.want)
		})
	}
	list, err := open(t, s.URL).Releases(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Builds != 1 {
		t.Errorf("releases are %+v, %v", list, err)
	}
}
