package backup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
)

// Design section 9: "emptying the cache when releases/ is not mounted".
func TestReleasesNotMounted(t *testing.T) {
	for name, change := range map[string]func(*gcScene){
		"absent": func(s *gcScene) { s.remove(layout.ReleasesDir) },
		"empty": func(s *gcScene) {
			s.remove(layout.ReleasesDir)
			if err := os.Mkdir(s.path(layout.ReleasesDir), 0o755); err != nil {
				s.Fatal(err)
			}
		},
		"a link that leads nowhere": func(s *gcScene) {
			s.remove(layout.ReleasesDir, "p")
			if err := os.Symlink("/nowhere", s.path(layout.ReleasesDir, "p")); err != nil {
				s.Fatal(err)
			}
		},
		"a loop": func(s *gcScene) {
			if err := os.Symlink("loop", s.path(layout.ReleasesDir, "p", "loop")); err != nil {
				s.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGCScene(t)
			change(s)
			err := s.refuses(GCOptions{Now: true})
			t.Log(err)
		})
	}
	// Unless that is what is wanted.
	s := newGCScene(t)
	s.remove(layout.ReleasesDir)
	if r := s.gc(GCOptions{Now: true, NoReleases: true}); len(goes(r, NarInfoKind)) != 6 {
		t.Errorf("got %v", r.Goes)
	}
}

// Design section 9: "truncating closure.txt on an empty query". Whatever is
// wrong with what says what is needed, nothing is collected.
func TestClosureNotWhole(t *testing.T) {
	for name, change := range map[string]func(*gcScene){
		"empty":    func(s *gcScene) { s.write("", "releases/p/keep/closure.txt") },
		"cut off":  func(s *gcScene) { s.write(s.keep.In(s.store.dir)[:20], "releases/p/keep/closure.txt") },
		"a line":   func(s *gcScene) { s.write(s.keep.In(s.store.dir)+"\n", "releases/p/keep/closure.txt") },
		"no lines": func(s *gcScene) { s.write("\n\n", "releases/p/keep/closure.txt") },
		"removed":  func(s *gcScene) { s.remove("releases/p/keep/closure.txt") },
		"a directory": func(s *gcScene) {
			s.remove("releases/p/keep/closure.txt")
			s.write("", "releases/p/keep/closure.txt/x")
		},
		"a line, and no release.json": func(s *gcScene) {
			s.write(s.keep.In(s.store.dir)+"\n", "releases/p/keep/closure.txt")
			s.remove("releases/p/keep/release.json")
		},
		"release.json damaged": func(s *gcScene) { s.write("{", "releases/p/keep/release.json") },
		"of the future":        func(s *gcScene) { s.write(`{"version": 99}`, "releases/p/keep/release.json") },
		"a name of none":       func(s *gcScene) { s.write(s.keep.In(s.store.dir)+"\n", "releases/p/.hidden/closure.txt") },
		"one level up":         func(s *gcScene) { s.write(s.keep.In(s.store.dir)+"\n", "releases/p/closure.txt") },
		"narinfo gone":         func(s *gcScene) { s.remove(layout.CacheDir, s.keep.Hash()+bincache.NarInfoExt) },
		"narinfo damaged":      func(s *gcScene) { s.write("StorePath: x\n", layout.CacheDir, s.keep.Hash()+bincache.NarInfoExt) },
		"narinfo unreadable": func(s *gcScene) {
			s.remove(layout.CacheDir, s.keep.Hash()+bincache.NarInfoExt)
			s.write("", layout.CacheDir, s.keep.Hash()+bincache.NarInfoExt, "x")
		},
		"NAR gone":      func(s *gcScene) { s.remove(layout.CacheDir, s.narInfo(s.keep).URL) },
		"NAR truncated": func(s *gcScene) { s.write("x", layout.CacheDir, s.narInfo(s.keep).URL) },
		"reference gone": func(s *gcScene) {
			lib := s.narInfo(s.keep).References[0]
			s.remove(layout.CacheDir, lib.Hash()+bincache.NarInfoExt)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGCScene(t)
			change(s)
			err := s.refuses(GCOptions{Now: true})
			t.Log(err)
		})
	}
}

// Marks follow References, not only closure.txt: what a crash or another
// program left out of it stays all the same.
func TestMarksFollowReferences(t *testing.T) {
	s := newGCScene(t)
	name := s.path("releases/p/keep/release.json")
	var record map[string]any
	readJSON(t, name, &record)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s.write(strings.Replace(string(text), `"paths": 3`, `"paths": 1`, 1), "releases/p/keep/release.json")
	s.write(s.keep.In(s.store.dir)+"\n", "releases/p/keep/closure.txt")
	s.forget("drop")
	if r := s.gc(GCOptions{Now: true}); len(r.Kept) != 3 {
		t.Errorf("kept %v", r.Kept)
	}
	checkWhole(t, s.dir, "p/keep")
}

// A crash between closure.txt and release.json leaves both closures kept.
func TestHalfUpdatedReleaseKeepsBoth(t *testing.T) {
	s := newGCScene(t)
	old := s.path("releases/p/keep/release.json")
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, s.dir, s.store, request("keep", s.only))
	s.write(string(before), "releases/p/keep/release.json")
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if len(r.Kept) != 4 || len(r.Warnings) != 1 {
		t.Errorf("kept %d paths, warnings %v", len(r.Kept), r.Warnings)
	}
	mustRun(t, s.dir, s.store, request("keep", s.keep))
	checkWhole(t, s.dir, "p/keep")
}

// Design section 9: "dropping outputs other than out": a path that nothing but
// closure.txt names is as needed as any.
func TestOtherOutputsStay(t *testing.T) {
	store := newFakeStore(t)
	out, doc := store.add("x", "x"), store.add("x-doc", "doc")
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("r", out)
	req.Roots = append(req.Roots, doc)
	mustRun(t, dir, store, req)
	if _, err := gc(t.Context(), memory{}, dir, GCOptions{Now: true}); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, dir, "p/r")
}

// Design section 9: "following `URL: ../..`". Nothing outside, and nothing that
// is no NAR file, is deleted, whatever a narinfo names.
func TestURLOutOfTheCache(t *testing.T) {
	for _, url := range []string{
		"../narvault.json", "../releases/p/keep/closure.txt", "../../victim", "nix-cache-info", "link/victim.nar",
		"log/../../narvault.json", "KEEP.narinfo", "nar", "deep/dir.nar",
	} {
		t.Run(url, func(t *testing.T) {
			s := newGCScene(t)
			outside := filepath.Join(filepath.Dir(s.dir), "victim")
			if err := os.MkdirAll(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(outside+"/victim.nar", []byte("precious"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.write("precious", layout.CacheDir, "deep", "dir.nar", "x")
			if err := os.Symlink(outside, s.path(layout.CacheDir, "link")); err != nil {
				t.Fatal(err)
			}
			url = strings.ReplaceAll(url, "KEEP", s.keep.Hash())
			s.setURL(s.only, url)
			s.forget("drop")
			s.gc(GCOptions{Now: true})
			checkWhole(t, s.dir, "p/keep")
			for _, name := range []string{outside + "/victim.nar", s.path(layout.ConfigFile), s.path(layout.CacheDir, "nix-cache-info"), s.path(layout.CacheDir, "deep/dir.nar/x")} {
				if !exists(name) {
					t.Errorf("%s was deleted", name)
				}
			}
		})
	}
}

// A cache whose parts are somewhere else, behind symlinks, is left alone there.
func TestSymlinksInTheCache(t *testing.T) {
	s := newGCScene(t)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(s.path(layout.CacheDir, bincache.NARDir), away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, s.path(layout.CacheDir, bincache.NARDir)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, away)
	if _, err := gc(t.Context(), memory{}, s.dir, GCOptions{Now: true}); err == nil {
		t.Error("nar/ was followed")
	}
	if after := tree(t, away); !slices.Equal(before, after) {
		t.Errorf("it is %v now", after)
	}
}

// A NAR file may be a symlink: what a link of a release leads to stays, and of
// what nobody needs only the link goes.
func TestNARsThatAreSymlinks(t *testing.T) {
	s := newGCScene(t)
	outside := filepath.Join(t.TempDir(), "victim.nar")
	if err := os.WriteFile(outside, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, s.path(layout.CacheDir, "nar/orphan.nar")); err != nil {
		t.Fatal(err)
	}
	url := s.narInfo(s.keep).URL
	if err := os.Rename(s.path(layout.CacheDir, url), s.path(layout.CacheDir, "nar/real.nar.zst")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.nar.zst", s.path(layout.CacheDir, url)); err != nil {
		t.Fatal(err)
	}
	s.gc(GCOptions{Now: true})
	checkWhole(t, s.dir, "p/keep", "p/drop")
	if exists(s.path(layout.CacheDir, "nar/orphan.nar")) || !exists(outside) {
		t.Error("the link was to go, and what it leads to to stay")
	}
}

// Logs that are kept elsewhere do not stop the rest.
func TestLogsBehindASymlink(t *testing.T) {
	s := newGCScene(t)
	away := t.TempDir()
	log := filepath.Join(away, "0123456789abcdfghijklmnpqrsvwxyz-gone.drv")
	if err := os.WriteFile(log, []byte("log"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.remove(layout.CacheDir, "log")
	if err := os.Symlink(away, s.path(layout.CacheDir, "log")); err != nil {
		t.Fatal(err)
	}
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if len(goes(r, NarInfoKind)) != 3 || len(r.Stays) != 1 || !exists(log) {
		t.Errorf("goes %v, stays %v", r.Goes, r.Stays)
	}
}
