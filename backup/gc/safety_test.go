package gc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// Design section 9: "emptying the cache when releases/ is not mounted".
func TestReleasesNotMounted(t *testing.T) {
	for name, change := range map[string]func(scene){
		"absent": func(s scene) { s.Remove(layout.ReleasesDir) },
		"empty": func(s scene) {
			s.Remove(layout.ReleasesDir)
			if err := os.Mkdir(s.Path(layout.ReleasesDir), 0o755); err != nil {
				s.Fatal(err)
			}
		},
		"no directory": func(s scene) {
			s.Remove(layout.ReleasesDir)
			s.Write("", layout.ReleasesDir)
		},
		"unreadable": func(s scene) {
			s.Remove(layout.ReleasesDir)
			if err := os.Symlink(layout.ReleasesDir, s.Path(layout.ReleasesDir)); err != nil {
				s.Fatal(err)
			}
		},
		"a project unreadable": func(s scene) {
			if err := os.Symlink("loop", s.Path(layout.ReleasesDir, "loop")); err != nil {
				s.Fatal(err)
			}
		},
		"a link that leads nowhere": func(s scene) {
			s.Remove(layout.ReleasesDir, "p")
			if err := os.Symlink("/nowhere", s.Path(layout.ReleasesDir, "p")); err != nil {
				s.Fatal(err)
			}
		},
		"a loop": func(s scene) {
			if err := os.Symlink("loop", s.Path(layout.ReleasesDir, "p", "loop")); err != nil {
				s.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			change(s)
			err := s.refuses(Options{Now: true})
			t.Log(err)
		})
	}
	// Unless that is what is wanted.
	s := newScene(t)
	s.Remove(layout.ReleasesDir)
	if r := s.gc(Options{Now: true, NoReleases: true}); len(goes(r, NarInfoKind)) != 6 {
		t.Errorf("got %v", r.Goes)
	}
}

// Design section 9: "truncating closure.txt on an empty query". Whatever is
// wrong with what says what is needed, nothing is collected.
func TestClosureNotWhole(t *testing.T) {
	for name, change := range map[string]func(scene){
		"empty":    func(s scene) { s.Write("", "releases/p/keep/closure.txt") },
		"cut off":  func(s scene) { s.Write(s.Keep.In(s.Store.Top)[:20], "releases/p/keep/closure.txt") },
		"a line":   func(s scene) { s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/keep/closure.txt") },
		"no lines": func(s scene) { s.Write("\n\n", "releases/p/keep/closure.txt") },
		"removed":  func(s scene) { s.Remove("releases/p/keep/closure.txt") },
		"a directory": func(s scene) {
			s.Remove("releases/p/keep/closure.txt")
			s.Write("", "releases/p/keep/closure.txt/x")
		},
		"a line, and no release.json": func(s scene) {
			s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/keep/closure.txt")
			s.Remove("releases/p/keep/release.json")
		},
		"release.json damaged": func(s scene) { s.Write("{", "releases/p/keep/release.json") },
		"of the future":        func(s scene) { s.Write(`{"version": 99}`, "releases/p/keep/release.json") },
		"a name of none":       func(s scene) { s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/.hidden/closure.txt") },
		"one level up":         func(s scene) { s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/closure.txt") },
		"narinfo gone":         func(s scene) { s.Remove(layout.CacheDir, s.Keep.Hash()+bincache.NarInfoExt) },
		"narinfo damaged":      func(s scene) { s.Write("StorePath: x\n", layout.CacheDir, s.Keep.Hash()+bincache.NarInfoExt) },
		"narinfo unreadable": func(s scene) {
			s.Remove(layout.CacheDir, s.Keep.Hash()+bincache.NarInfoExt)
			s.Write("", layout.CacheDir, s.Keep.Hash()+bincache.NarInfoExt, "x")
		},
		"NAR gone":      func(s scene) { s.Remove(layout.CacheDir, s.NarInfo(s.Keep).URL) },
		"NAR truncated": func(s scene) { s.Write("x", layout.CacheDir, s.NarInfo(s.Keep).URL) },
		"reference gone": func(s scene) {
			lib := s.NarInfo(s.Keep).References[0]
			s.Remove(layout.CacheDir, lib.Hash()+bincache.NarInfoExt)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			change(s)
			err := s.refuses(Options{Now: true})
			t.Log(err)
		})
	}
}

// Marks follow References, not only closure.txt: what a crash or another
// program left out of it stays all the same.
func TestMarksFollowReferences(t *testing.T) {
	s := newScene(t)
	name := s.Path("releases/p/keep/release.json")
	var record map[string]any
	backuptest.ReadJSON(t, name, &record)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(strings.Replace(string(text), `"paths": 3`, `"paths": 1`, 1), "releases/p/keep/release.json")
	s.Write(s.Keep.In(s.Store.Top)+"\n", "releases/p/keep/closure.txt")
	s.forget("drop")
	if r := s.gc(Options{Now: true}); len(r.Kept) != 3 {
		t.Errorf("kept %v", r.Kept)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// A crash between closure.txt and release.json leaves both closures kept.
func TestHalfUpdatedReleaseKeepsBoth(t *testing.T) {
	s := newScene(t)
	old := s.Path("releases/p/keep/release.json")
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, s.Dir, s.Store, request("keep", s.Only))
	s.Write(string(before), "releases/p/keep/release.json")
	s.forget("drop")
	r := s.gc(Options{Now: true})
	if len(r.Kept) != 4 || len(r.Warnings) != 1 {
		t.Errorf("kept %d paths, warnings %v", len(r.Kept), r.Warnings)
	}
	mustRun(t, s.Dir, s.Store, request("keep", s.Keep))
	backuptest.CheckWhole(t, s.Dir, "p/keep")
}

// Design section 9: "dropping outputs other than out": a path that nothing but
// closure.txt names is as needed as any.
func TestOtherOutputsStay(t *testing.T) {
	store := backuptest.NewStore(t)
	out, doc := store.Add("x", "x"), store.Add("x-doc", "doc")
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("r", out)
	req.Roots = append(req.Roots, doc)
	mustRun(t, dir, store, req)
	if _, err := run(t.Context(), backuptest.Memory{}, dir, Options{Now: true}); err != nil {
		t.Fatal(err)
	}
	backuptest.CheckWhole(t, dir, "p/r")
}

// Design section 9: "following `URL: ../..`". Nothing outside, and nothing that
// is no NAR file, is deleted, whatever a narinfo names.
func TestURLOutOfTheCache(t *testing.T) {
	for _, url := range []string{
		"../narvault.json", "../releases/p/keep/closure.txt", "../../victim", "nix-cache-info", "link/victim.nar",
		"log/../../narvault.json", "KEEP.narinfo", "nar", "deep/dir.nar",
	} {
		t.Run(url, func(t *testing.T) {
			s := newScene(t)
			outside := filepath.Join(filepath.Dir(s.Dir), "victim")
			if err := os.MkdirAll(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(outside+"/victim.nar", []byte("precious"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.Write("precious", layout.CacheDir, "deep", "dir.nar", "x")
			if err := os.Symlink(outside, s.Path(layout.CacheDir, "link")); err != nil {
				t.Fatal(err)
			}
			url = strings.ReplaceAll(url, "KEEP", s.Keep.Hash())
			s.SetURL(s.Only, url)
			s.forget("drop")
			s.gc(Options{Now: true})
			backuptest.CheckWhole(t, s.Dir, "p/keep")
			for _, name := range []string{outside + "/victim.nar", s.Path(layout.ConfigFile), s.Path(layout.CacheDir, "nix-cache-info"), s.Path(layout.CacheDir, "deep/dir.nar/x")} {
				if !backuptest.Exists(name) {
					t.Errorf("%s was deleted", name)
				}
			}
		})
	}
}

// The URLs of some servers end in a query, which is no part of the name of the
// file: what a release needs stays, with the links to it, and what went to the
// trash comes back.
func TestURLWithQuery(t *testing.T) {
	s := newScene(t)
	keep := s.NarInfo(s.Keep).URL
	link := s.Path(layout.CacheDir, "debuginfo", "0123.debug")
	s.Write(`{"archive":"../`+keep+`","member":"x"}`, layout.CacheDir, "debuginfo", "0123.debug")
	s.SetURL(s.Keep, keep+"?hash=1/2")
	s.SetURL(s.Only, s.NarInfo(s.Only).URL+"?hash=3")
	s.forget("drop")
	r := s.gc(Options{})
	if len(goes(r, NARKind)) != 2 || len(r.Stays) != 0 || !backuptest.Exists(link) {
		t.Errorf("goes %v, stays %v", r.Goes, r.Stays)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
	if err := Unforget(t.Context(), s.Dir, dropID, lock.Options{}); err != nil {
		t.Error(err)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
}

// A cache whose parts are somewhere else, behind symlinks, is left alone there.
func TestSymlinksInTheCache(t *testing.T) {
	s := newScene(t)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(s.Path(layout.CacheDir, bincache.NARDir), away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, s.Path(layout.CacheDir, bincache.NARDir)); err != nil {
		t.Fatal(err)
	}
	before := backuptest.Tree(t, away)
	if _, err := run(t.Context(), backuptest.Memory{}, s.Dir, Options{Now: true}); err == nil {
		t.Error("nar/ was followed")
	}
	if after := backuptest.Tree(t, away); !slices.Equal(before, after) {
		t.Errorf("it is %v now", after)
	}
}

// A NAR file may be a symlink: what a link of a release leads to stays, and of
// what nobody needs only the link goes.
func TestNARsThatAreSymlinks(t *testing.T) {
	s := newScene(t)
	outside := filepath.Join(t.TempDir(), "victim.nar")
	if err := os.WriteFile(outside, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, s.Path(layout.CacheDir, "nar/orphan.nar")); err != nil {
		t.Fatal(err)
	}
	url := s.NarInfo(s.Keep).URL
	if err := os.Rename(s.Path(layout.CacheDir, url), s.Path(layout.CacheDir, "nar/real.nar.zst")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.nar.zst", s.Path(layout.CacheDir, url)); err != nil {
		t.Fatal(err)
	}
	s.gc(Options{Now: true})
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")
	if backuptest.Exists(s.Path(layout.CacheDir, "nar/orphan.nar")) || !backuptest.Exists(outside) {
		t.Error("the link was to go, and what it leads to to stay")
	}
}

// Logs that are kept elsewhere do not stop the rest.
func TestLogsBehindASymlink(t *testing.T) {
	s := newScene(t)
	away := t.TempDir()
	log := filepath.Join(away, "0123456789abcdfghijklmnpqrsvwxyz-gone.drv")
	if err := os.WriteFile(log, []byte("log"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Remove(layout.CacheDir, "log")
	if err := os.Symlink(away, s.Path(layout.CacheDir, "log")); err != nil {
		t.Fatal(err)
	}
	s.forget("drop")
	r := s.gc(Options{Now: true})
	if len(goes(r, NarInfoKind)) != 3 || len(r.Stays) != 1 || !backuptest.Exists(log) {
		t.Errorf("goes %v, stays %v", r.Goes, r.Stays)
	}
}
