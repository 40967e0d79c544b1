package gc

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// at makes releases of one project that were made at the given times.
func at(t *testing.T, times ...string) (releases []*backup.Release) {
	t.Helper()
	for _, text := range times {
		made, err := time.ParseInLocation("2006-01-02 15:04", text, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, &backup.Release{Project: "p", Name: text, Created: made.UTC()})
	}
	return releases
}

// The rules are those that users of restic know.
func TestPolicy(t *testing.T) {
	all := at(t,
		"2026-11-24 20:00", "2026-11-24 08:00", "2026-11-23 23:59", "2026-11-22 12:00", "2026-11-15 12:00",
		"2026-10-31 12:00", "2026-10-01 12:00", "2025-12-31 12:00", "2025-01-01 12:00", "2024-06-01 12:00")
	for name, tt := range map[string]struct {
		policy Policy
		want   string // the reasons of each, the newest first
	}{
		"last":          {Policy{Last: 3}, "last|last|last|||||||"},
		"daily":         {Policy{Daily: 3}, "daily||daily|daily||||||"},
		"weekly":        {Policy{Weekly: 3}, "weekly|||weekly|weekly|||||"},
		"monthly":       {Policy{Monthly: 2}, "monthly|||||monthly||||"},
		"yearly":        {Policy{Yearly: 2}, "yearly|||||||yearly||"},
		"oldest":        {Policy{Yearly: 9}, "yearly|||||||yearly||yearly"},
		"oldest again":  {Policy{Daily: 99}, "daily||daily|daily|daily|daily|daily|daily|daily|daily"},
		"all":           {Policy{Last: -1}, "last|last|last|last|last|last|last|last|last|last"},
		"within a day":  {Policy{Within: Span{Days: 1}}, "within 1d|within 1d|within 1d|||||||"},
		"within a year": {Policy{Within: Span{Years: 1}}, "within 1y|within 1y|within 1y|within 1y|within 1y|within 1y|within 1y|within 1y||"},
		"two rules":     {Policy{Last: 1, Yearly: 1}, "last+yearly|||||||||"},
	} {
		var got []string
		for _, v := range tt.policy.Apply(all) {
			got = append(got, strings.Join(v.Reasons, "+"))
		}
		if strings.Join(got, "|") != tt.want {
			t.Errorf("%s: got %q, want %q", name, strings.Join(got, "|"), tt.want)
		}
	}
	// A rule that has kept too few keeps the oldest, though another of its period is kept.
	got := Policy{Yearly: 2}.Apply(at(t, "2026-11-24 20:00", "2026-03-01 08:00", "2026-01-01 08:00"))
	if !slices.Equal(got[2].Reasons, []string{"oldest yearly"}) || len(got[1].Reasons) != 0 {
		t.Errorf("oldest: %+v", got)
	}
	// The order in which they come does not matter.
	slices.Reverse(all)
	if v := (Policy{Last: 1}).Apply(all); v[0].Release.Name != "2026-11-24 20:00" || len(v[0].Reasons) != 1 || len(v[1].Reasons) != 0 {
		t.Errorf("in another order: %+v", v[:2])
	}
}

// No policy with a rule forgets all releases.
func FuzzPolicyKeepsOne(f *testing.F) {
	f.Add(1, 0, 0, 0, 0, 0, int64(0), int64(5))
	f.Fuzz(func(t *testing.T, last, daily, weekly, monthly, yearly, days int, x, y int64) {
		p := Policy{last, daily, weekly, monthly, yearly, Span{Days: max(0, days%10000)}}
		releases := []*backup.Release{{Name: "x", Created: time.Unix(x%1e10, 0)}, {Name: "y", Created: time.Unix(y%1e10, 0)}}
		kept := slices.ContainsFunc(p.Apply(releases), func(v Verdict) bool { return len(v.Reasons) > 0 })
		if !kept && !p.None() {
			t.Errorf("%+v keeps nothing", p)
		}
	})
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]Span{
		"30d": {Days: 30}, "1y6m2w3d12h": {1, 6, 17, 12}, "0d": {}, "2w": {Days: 14},
	} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "1", "1x", "-1d", "1 d", "99999999d", "1.5d"} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

// made sets when a release was made.
func (s scene) made(name, when string) {
	s.Helper()
	file := "releases/p/" + name + "/release.json"
	var r backup.Release
	backuptest.ReadJSON(s.T, s.Path(file), &r)
	r.Created = at(s.T, when)[0].Created
	text, err := json.Marshal(r)
	if err != nil {
		s.Fatal(err)
	}
	s.Write(string(text), file)
}

func TestForgetByPolicy(t *testing.T) {
	s := newScene(t)
	mustRun(t, s.Dir, s.Store, backup.Request{Release: backup.ReleaseID{Project: "q", Name: "only"}, Roots: request("", s.Only).Roots})
	s.made("keep", "2026-11-24 08:00")
	s.made("drop", "2026-11-23 08:00")
	req := ForgetRequest{Policy: Policy{Last: 1}, DryRun: true}
	for _, dry := range []bool{true, false} {
		req.DryRun = dry
		r, err := forget(t.Context(), backuptest.Memory{}, s.Dir, req)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Kept) != 2 || len(r.Forgotten) != 1 || r.Forgotten[0].Release.Name != "drop" {
			t.Errorf("got %+v", r)
		}
		if backuptest.Exists(s.Path("releases/p/drop")) != dry {
			t.Errorf("dry run %v: the release is there: %v", dry, !dry)
		}
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "q/only")
	// All of a project, when that is what is asked for.
	r, err := forget(t.Context(), backuptest.Memory{}, s.Dir, ForgetRequest{Projects: []string{"q"}, RemoveAll: true})
	if err != nil || len(r.Forgotten) != 1 || backuptest.Exists(s.Path("releases/q")) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A release that a clock which was wrong dated into the future would make all
// others old: no rule is applied.
func TestForgetInTheFuture(t *testing.T) {
	s := newScene(t)
	s.made("drop", "2099-01-01 00:00")
	req := ForgetRequest{Policy: Policy{Within: Span{Days: 30}}}
	if _, err := forget(t.Context(), backuptest.Memory{}, s.Dir, req); !errors.Is(err, ErrForgetUsage) || !strings.Contains(err.Error(), "p/drop") || !strings.Contains(err.Error(), "in the future") {
		t.Errorf("got %v", err)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
	s.forget("drop") // by name
	if r, err := forget(t.Context(), backuptest.Memory{}, s.Dir, req); err != nil || len(r.Forgotten) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Nothing is forgotten by accident.
func TestForgetRefuses(t *testing.T) {
	for name, req := range map[string]ForgetRequest{
		"nothing":                 {},
		"a project, and no rule":  {Projects: []string{"p"}},
		"names and a rule":        {Releases: []backup.ReleaseID{{Project: "p", Name: "keep"}}, Policy: Policy{Last: 1}},
		"all of all":              {RemoveAll: true},
		"all and a rule":          {RemoveAll: true, Projects: []string{"p"}, Policy: Policy{Last: 1}},
		"one that is not there":   {Releases: []backup.ReleaseID{{Project: "p", Name: "keep"}, {Project: "p", Name: "absent"}}},
		"a project that is not":   {Projects: []string{"p", "absent"}, Policy: Policy{Last: 1}},
		"a symlink for a release": {Releases: []backup.ReleaseID{{Project: "p", Name: "link"}}},
		"a symlink for a project": {Releases: []backup.ReleaseID{{Project: "away", Name: "r"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			away := t.TempDir()
			if err := os.MkdirAll(away+"/r", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(away+"/r/closure.txt", []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			os.Symlink(away+"/r", s.Path("releases/p/link"))
			os.Symlink(away, s.Path("releases/away"))
			before := append(backuptest.Tree(t, s.Dir), backuptest.Tree(t, away)...)
			_, err := forget(t.Context(), backuptest.Memory{}, s.Dir, req)
			if err == nil {
				t.Error("it was done")
			}
			if after := append(backuptest.Tree(t, s.Dir), backuptest.Tree(t, away)...); !slices.Equal(before, after) {
				t.Errorf("it is\n%s", strings.Join(after, "\n"))
			}
		})
	}
	// A release whose age cannot be read stops the policy, and can be forgotten by name.
	s := newScene(t)
	s.Write("{", "releases/p/drop/release.json")
	var damage *bincache.DamageError
	if _, err := forget(t.Context(), backuptest.Memory{}, s.Dir, ForgetRequest{Policy: Policy{Last: 1}}); !errors.As(err, &damage) || !strings.Contains(err.Error(), "by name") {
		t.Errorf("got %v", err)
	}
	s.forget("drop")
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// What was forgotten can be had back, also after gc, until it is purged.
func TestUnforget(t *testing.T) {
	id := backup.ReleaseID{Project: "p", Name: "drop"}
	s := newScene(t)
	undo := func() error { return unforget(t.Context(), backuptest.Memory{}, s.Dir, id, lock.Options{}) }
	if err := undo(); err == nil {
		t.Error("a release that is there was replaced")
	}
	before, err := os.ReadFile(s.Path("releases/p/drop/release.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, collect := range []bool{false, true} {
		s.forget("drop")
		if collect {
			s.gc(Options{})
		}
		if err := undo(); err != nil {
			t.Fatal(err)
		}
		backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
		after, err := os.ReadFile(s.Path("releases/p/drop/release.json"))
		if err != nil || string(after) != string(before) {
			t.Errorf("the record is %q, %v", after, err)
		}
	}
	s.forget("drop")
	s.gc(Options{})
	nars, _ := filepath.Glob(s.Path(layout.TrashDir, "*", layout.CacheDir, bincache.NARDir, "*"))
	if err := os.Remove(nars[0]); err != nil {
		t.Fatal(err)
	}
	if err := undo(); err == nil || !strings.Contains(err.Error(), "gone for good") {
		t.Errorf("with a NAR that is gone: %v", err)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
	s.gc(Options{Now: true})
	if err := undo(); !errors.Is(err, backup.ErrNoRelease) {
		t.Errorf("after it was purged: %v", err)
	}
}

// Logs, realisations and links to debug information come back, too.
func TestUnforgetBringsAllBack(t *testing.T) {
	s := newScene(t)
	const drv = "0123456789abcdfghijklmnpqrsvwxyz-drop.drv"
	info := s.NarInfo(s.Drop)
	info.Deriver = drv
	s.Write(string(info.Bytes()), layout.CacheDir, s.Drop.Hash()+bincache.NarInfoExt)
	s.Write("log", layout.CacheDir, bincache.LogDir, drv)
	s.Write("of another", layout.CacheDir, bincache.LogDir, "0123456789abcdfghijklmnpqrsvwxyz-gone.drv")
	s.Write(`{"outPath":"`+string(s.Only)+`"}`, layout.CacheDir, bincache.RealisationDir, "sha256:aa!out.doi")
	s.Write(`{"outPath":"`+string(s.Drop)+`"}`, layout.CacheDir, bincache.BuildTraceDir, drv, "out.doi")
	s.Write(`{"archive":"../`+info.URL+`","member":"x"}`, layout.CacheDir, bincache.DebugInfoDir, "aa.debug")
	s.gc(Options{}) // takes out the log of another
	before := backuptest.Tree(t, s.Path(layout.CacheDir))
	s.forget("drop")
	s.gc(Options{})
	if during := backuptest.Tree(t, s.Path(layout.CacheDir)); len(during) > len(before)-10 {
		t.Errorf("gc left\n%s", strings.Join(during, "\n"))
	}
	s.mustUnforget()
	if after := backuptest.Tree(t, s.Path(layout.CacheDir)); !slices.Equal(after, before) {
		t.Errorf("the cache was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// The trash of a hostile medium does not have us take files from elsewhere.
func TestTrashIsNotFollowed(t *testing.T) {
	s := newScene(t)
	s.forget("drop")
	s.gc(Options{})
	away := filepath.Join(t.TempDir(), "trash")
	if err := os.Rename(s.Path(layout.TrashDir), away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, s.Path(layout.TrashDir)); err != nil {
		t.Fatal(err)
	}
	before := backuptest.Tree(t, away)
	if _, err := backup.Run(t.Context(), s.Dir, s.Store, request("drop", s.Drop)); err == nil {
		t.Error("a backup followed the symlink")
	}
	if err := unforget(t.Context(), backuptest.Memory{}, s.Dir, backup.ReleaseID{Project: "p", Name: "drop"}, lock.Options{}); err == nil {
		t.Error("undo followed the symlink")
	}
	if _, err := run(t.Context(), backuptest.Memory{}, s.Dir, Options{Now: true}); err == nil {
		t.Error("gc followed the symlink")
	}
	if after := backuptest.Tree(t, away); !slices.Equal(before, after) {
		t.Errorf("it is %v", after)
	}
}
