package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A gcScene is a backup with a release to keep and one to forget. They share a
// library, and a content under two names.
type gcScene struct {
	*testing.T
	dir   string
	store *fakeStore
	keep  storepath.Path
	drop  storepath.Path
	only  storepath.Path // a library of drop alone
}

func newGCScene(t *testing.T) *gcScene {
	t.Helper()
	s := &gcScene{T: t, store: newFakeStore(t), dir: filepath.Join(t.TempDir(), "backup")}
	lib := s.store.add("lib", strings.Repeat("library ", 1000))
	twin := s.store.add("twin.txt", "shared content")
	s.keep = s.store.add("keep", "keep", lib, twin)
	s.only = s.store.add("only", strings.Repeat("only ", 1000), lib)
	other := s.store.add("other.txt", "shared content", s.only)
	s.drop = s.store.add("drop", "drop", s.only, other, lib)
	mustRun(t, s.dir, s.store, request("keep", s.keep))
	mustRun(t, s.dir, s.store, request("drop", s.drop))
	return s
}

func (s *gcScene) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *gcScene) forget(names ...string) *ForgetResult {
	s.Helper()
	var req ForgetRequest
	for _, name := range names {
		req.Releases = append(req.Releases, ReleaseID{"p", name})
	}
	r, err := forget(s.Context(), memory{}, s.dir, req)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *gcScene) gc(o GCOptions) *GCResult {
	s.Helper()
	r, err := gc(s.Context(), memory{}, s.dir, o)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// refuses checks that gc changes nothing.
func (s *gcScene) refuses(o GCOptions) error {
	s.Helper()
	before := tree(s.T, s.dir)
	_, err := gc(s.Context(), memory{}, s.dir, o)
	if err == nil || !errors.Is(err, ErrRefused) {
		s.Errorf("got %v, want a refusal", err)
	}
	if after := tree(s.T, s.dir); !slices.Equal(before, after) {
		s.Errorf("it changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	return err
}

func (s *gcScene) remove(elem ...string) {
	s.Helper()
	if err := os.RemoveAll(s.path(elem...)); err != nil {
		s.Fatal(err)
	}
}

func (s *gcScene) write(text string, elem ...string) {
	s.Helper()
	name := s.path(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

func (s *gcScene) narInfo(p storepath.Path) *narinfo.NarInfo {
	s.Helper()
	b, err := Open(s.dir, bincache.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	info, err := b.Cache.Lookup(p)
	if err != nil {
		s.Fatal(err)
	}
	return info
}

// setURL makes a narinfo name another NAR file.
func (s *gcScene) setURL(p storepath.Path, url string) {
	s.Helper()
	info := s.narInfo(p)
	info.URL = url
	s.write(string(info.Bytes()), cacheDir, p.Hash()+narInfoExt)
}

// tree returns the names and sizes of all files but locks.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); base == locksDir || base == lockFile || base == mutexFile {
			return nil
		}
		info, err := d.Info()
		if err == nil && d.IsDir() {
			files = append(files, name)
		} else if err == nil {
			files = append(files, fmt.Sprint(name, " ", info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func goes(r *GCResult, kind Kind) (names []string) {
	for _, item := range r.Goes {
		if item.Kind == kind {
			names = append(names, filepath.Base(item.Name))
		}
	}
	return names
}

// What no release needs goes to the trash, and after the grace time for good.
func TestGC(t *testing.T) {
	s := newGCScene(t)
	if r := s.gc(GCOptions{}); len(r.Goes) != 0 || len(r.Kept) != 6 || len(r.Releases) != 2 {
		t.Errorf("nothing to collect: %+v", r)
	}
	s.forget("drop")
	planned := s.gc(GCOptions{DryRun: true})
	r := s.gc(GCOptions{})
	if got := goes(r, NarInfoKind); len(got) != 3 || !slices.Equal(got, goes(planned, NarInfoKind)) {
		t.Errorf("narinfos: %v, planned %v", got, goes(planned, NarInfoKind))
	}
	if got := goes(r, NARKind); len(got) != 2 {
		t.Errorf("NAR files: %v; what other.txt and twin.txt share has to stay", got)
	}
	if got := goes(r, ListingKind); len(got) != 3 {
		t.Errorf("listings: %v", got)
	}
	if len(r.Kept) != 3 || r.NarFiles != 3 || r.Releases[0].Paths != 3 || r.Releases[0].OnlyHere != r.FileSize {
		t.Errorf("kept: %+v, %d NAR files", r.Releases[0], r.NarFiles)
	}
	if r.Freed != 0 || r.InTrash == 0 || r.Until.Before(time.Now()) {
		t.Errorf("freed %d, in trash %d, until %v", r.Freed, r.InTrash, r.Until)
	}
	checkWhole(t, s.dir, "p/keep")
	inTrash := r.InTrash
	if r := s.gc(GCOptions{}); r.InTrash != inTrash || r.Freed != 0 || len(r.Goes) != 0 {
		t.Errorf("the next day: %+v", r)
	}
	if r := s.gc(GCOptions{now: time.Now().Add(DefaultGrace + time.Minute)}); r.InTrash != 0 || r.Freed != inTrash {
		t.Errorf("after the grace time: %+v", r)
	}
	if left, err := os.ReadDir(s.path(trashDir)); err != nil || len(left) > 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	checkWhole(t, s.dir, "p/keep")
}

// --now needs no trash and leaves none.
func TestGCNow(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if r.Freed == 0 || r.InTrash != 0 || r.Trash != "" {
		t.Errorf("got %+v", r)
	}
	if left, _ := os.ReadDir(s.path(trashDir)); len(left) > 0 {
		t.Errorf("left in the trash: %v", left)
	}
	checkWhole(t, s.dir, "p/keep")
}

// Design section 9: "Deleting a NAR that a live narinfo shares".
func TestSharedNARStays(t *testing.T) {
	s := newGCScene(t)
	shared := s.narInfo(s.keep).URL
	s.setURL(s.only, shared)
	s.forget("drop")
	s.gc(GCOptions{Now: true})
	checkWhole(t, s.dir, "p/keep")

	// The same file by another name, as where case does not count.
	s = newGCScene(t)
	file := s.path(cacheDir, s.narInfo(s.keep).URL)
	if err := os.Link(file, s.path(cacheDir, narDir, "OTHER.nar.zst")); err != nil {
		t.Fatal(err)
	}
	s.setURL(s.only, "nar/OTHER.nar.zst")
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if slices.Contains(goes(r, NARKind), "OTHER.nar.zst") {
		t.Error("another name of a file that is needed was taken")
	}
	checkWhole(t, s.dir, "p/keep")
}

// Design section 9: "emptying the cache when releases/ is not mounted".
func TestReleasesNotMounted(t *testing.T) {
	for name, change := range map[string]func(*gcScene){
		"absent": func(s *gcScene) { s.remove(releasesDir) },
		"empty": func(s *gcScene) {
			s.remove(releasesDir)
			if err := os.Mkdir(s.path(releasesDir), 0o755); err != nil {
				s.Fatal(err)
			}
		},
		"a link that leads nowhere": func(s *gcScene) {
			s.remove(releasesDir, "p")
			if err := os.Symlink("/nowhere", s.path(releasesDir, "p")); err != nil {
				s.Fatal(err)
			}
		},
		"a loop": func(s *gcScene) {
			if err := os.Symlink("loop", s.path(releasesDir, "p", "loop")); err != nil {
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
	s.remove(releasesDir)
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
		"narinfo gone":         func(s *gcScene) { s.remove(cacheDir, s.keep.Hash()+narInfoExt) },
		"narinfo damaged":      func(s *gcScene) { s.write("StorePath: x\n", cacheDir, s.keep.Hash()+narInfoExt) },
		"narinfo unreadable": func(s *gcScene) {
			s.remove(cacheDir, s.keep.Hash()+narInfoExt)
			s.write("", cacheDir, s.keep.Hash()+narInfoExt, "x")
		},
		"NAR gone":      func(s *gcScene) { s.remove(cacheDir, s.narInfo(s.keep).URL) },
		"NAR truncated": func(s *gcScene) { s.write("x", cacheDir, s.narInfo(s.keep).URL) },
		"reference gone": func(s *gcScene) {
			lib := s.narInfo(s.keep).References[0]
			s.remove(cacheDir, lib.Hash()+narInfoExt)
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
			s.write("precious", cacheDir, "deep", "dir.nar", "x")
			if err := os.Symlink(outside, s.path(cacheDir, "link")); err != nil {
				t.Fatal(err)
			}
			url = strings.ReplaceAll(url, "KEEP", s.keep.Hash())
			s.setURL(s.only, url)
			s.forget("drop")
			s.gc(GCOptions{Now: true})
			checkWhole(t, s.dir, "p/keep")
			for _, name := range []string{outside + "/victim.nar", s.path(configFile), s.path(cacheDir, "nix-cache-info"), s.path(cacheDir, "deep/dir.nar/x")} {
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
	if err := os.Rename(s.path(cacheDir, narDir), away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, s.path(cacheDir, narDir)); err != nil {
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

// A release that was forgotten long before gc can be had back for as long as
// what it consists of.
func TestForgottenLongBeforeGC(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	later := time.Now().Add(2 * DefaultGrace)
	s.gc(GCOptions{now: later})
	s.gc(GCOptions{now: later.Add(DefaultGrace / 2)})
	s.mustUnforget()
	checkWhole(t, s.dir, "p/keep", "p/drop")
	s.forget("drop")
	s.gc(GCOptions{now: later})
	if r := s.gc(GCOptions{now: later.Add(2 * DefaultGrace)}); r.InTrash != 0 {
		t.Errorf("%d bytes are left in the trash", r.InTrash)
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
	if err := os.Symlink(outside, s.path(cacheDir, "nar/orphan.nar")); err != nil {
		t.Fatal(err)
	}
	url := s.narInfo(s.keep).URL
	if err := os.Rename(s.path(cacheDir, url), s.path(cacheDir, "nar/real.nar.zst")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.nar.zst", s.path(cacheDir, url)); err != nil {
		t.Fatal(err)
	}
	s.gc(GCOptions{Now: true})
	checkWhole(t, s.dir, "p/keep", "p/drop")
	if exists(s.path(cacheDir, "nar/orphan.nar")) || !exists(outside) {
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
	s.remove(cacheDir, "log")
	if err := os.Symlink(away, s.path(cacheDir, "log")); err != nil {
		t.Fatal(err)
	}
	s.forget("drop")
	r := s.gc(GCOptions{Now: true})
	if len(goes(r, NarInfoKind)) != 3 || len(r.Stays) != 1 || !exists(log) {
		t.Errorf("goes %v, stays %v", r.Goes, r.Stays)
	}
}

// A recorder is a file system that tells what was done.
type recorder struct {
	memory
	log []string
}

func (r *recorder) Rename(from, to string) error {
	r.log = append(r.log, "take "+from)
	return r.memory.Rename(from, to)
}

func (r *recorder) Remove(name string) error {
	r.log = append(r.log, "take "+name)
	return r.memory.Remove(name)
}

func (r *recorder) SyncDir(dir string) error {
	r.log = append(r.log, "sync "+dir)
	return nil
}

// Design section 9: "deleting NARs before narinfos": they go after, when that
// the narinfos are gone is durable, and what refers to others goes before them.
func TestNARsGoAfterNarInfos(t *testing.T) {
	for _, now := range []bool{false, true} {
		s := newGCScene(t)
		info := func(p storepath.Path) string { return "take " + s.path(cacheDir, p.Hash()+narInfoExt) }
		nar := "take " + s.path(cacheDir, s.narInfo(s.only).URL)
		s.forget("drop")
		fs := new(recorder)
		if _, err := gc(t.Context(), fs, s.dir, GCOptions{Now: now}); err != nil {
			t.Fatal(err)
		}
		at := []int{slices.Index(fs.log, info(s.drop))}
		for _, next := range []string{"sync " + s.path(cacheDir), info(s.only), "sync " + s.path(cacheDir), nar, "sync " + s.path(cacheDir, narDir)} {
			from := at[len(at)-1] + 1
			at = append(at, from+slices.Index(fs.log[from:], next))
			if at[len(at)-1] < from {
				t.Fatalf("no %q after %d in\n%s", next, from, strings.Join(fs.log, "\n"))
			}
		}
	}
}

// What belongs to store paths and derivations goes with them, and what killed
// backups left goes, too; what gc does not know stays.
func TestLeftovers(t *testing.T) {
	s := newGCScene(t)
	drv := s.store.add("keep.drv", "derivation")
	info := s.narInfo(s.keep)
	info.Deriver = drv
	s.write(string(info.Bytes()), cacheDir, s.keep.Hash()+narInfoExt)
	gone := "0123456789abcdfghijklmnpqrsvwxyz-gone"
	keepURL, dropURL := s.narInfo(s.keep).URL, s.narInfo(s.only).URL
	files := map[string]struct {
		text string
		goes bool
	}{
		"cache/log/" + string(drv):                       {"log", false},
		"cache/log/" + gone + ".drv":                     {"log", true},
		"cache/log/" + gone + ".drv.bz2":                 {"log", true},
		"cache/log/notes":                                {"notes", false},
		"cache/realisations/sha256:aa!out.doi":           {`{"outPath":"` + string(s.keep) + `"}`, false},
		"cache/realisations/sha256:bb!out.doi":           {`{"outPath":"` + string(s.only) + `"}`, true},
		"cache/realisations/sha256:cc!out.doi":           {`{`, false},
		"cache/build-trace-v2/" + gone + ".drv/out.doi":  {`{"outPath":"` + gone + `"}`, true},
		"cache/build-trace-v2/" + string(drv) + "/x.doi": {`{"outPath":"` + string(s.keep) + `"}`, false},
		"cache/debuginfo/aa.debug":                       {`{"archive":"../` + keepURL + `","member":"x"}`, false},
		"cache/debuginfo/bb.debug":                       {`{"archive":"../` + dropURL + `","member":"x"}`, true},
		"cache/debuginfo/cc.debug":                       {`{"archive":"../nar/gone.nar.xz","member":"x"}`, true},
		"cache/0123456789abcdfghijklmnpqrsvwxyz.ls":      {"{}", true},
		"cache/nar/orphan.nar.zst":                       {"nar", true},
		"cache/orphan-of-nix-push.nar.bz2":               {"nar", true},
		"cache/.narvault-1.tmp":                          {"", true},
		"cache/nar/.narvault-2.tmp":                      {"", true},
		"releases/p/keep/.narvault-3.tmp":                {"", true},
		"releases/p/never/.narvault-4.tmp":               {"", true},
		".narvault-5.tmp":                                {"", true},
		"cache/README":                                   {"mine", false},
		"hydra/hydra-1.sql.zst":                          {"dump", false},
		"notes.txt":                                      {"mine", false},
	}
	for name, f := range files {
		s.write(f.text, name)
	}
	s.forget("drop")
	r := s.gc(GCOptions{})
	for name, f := range files {
		if there := exists(s.path(name)); there == f.goes {
			t.Errorf("%s is there: %v", name, there)
		}
		if name == "releases/p/never/.narvault-4.tmp" {
			name = filepath.Dir(name) // goes as a whole
		}
		if f.goes && !slices.ContainsFunc(r.Goes, func(i Item) bool { return i.Name == name && i.Reason != "" }) {
			t.Errorf("%s is not told of", name)
		}
	}
	if exists(s.path("releases/p/never")) {
		t.Error("the directory of a release that never came to be is left")
	}
	if !slices.ContainsFunc(r.Stays, func(i Item) bool { return i.Name == "cache/README" }) {
		t.Errorf("stays: %v", r.Stays)
	}
	checkWhole(t, s.dir, "p/keep")
	if r := s.gc(GCOptions{Now: true}); len(r.Goes) != 0 {
		t.Errorf("the second time: %v", r.Goes)
	}
}

// NARs that an interrupted backup finished are for the next one, for a while.
func TestFinishedNARsOutliveGC(t *testing.T) {
	s := newGCScene(t)
	info := s.narInfo(s.drop)
	fileHash, err := narinfo.ParseHash(info.FileHash)
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal(memory{}, s.dir)
	err = j.add([]narFile{{info.URL, info.Compression, fileHash, info.FileSize, info.NarHash, info.NarSize}})
	if err := errors.Join(err, j.close()); err != nil {
		t.Fatal(err)
	}
	s.remove(releasesDir, "p", "drop")
	s.remove(cacheDir, s.drop.Hash()+narInfoExt)
	r := s.gc(GCOptions{})
	if got := goes(r, NARKind); len(got) != 1 || len(r.Stays) != 1 {
		t.Errorf("goes %v, stays %v", got, r.Stays)
	}
	if r := mustRun(t, s.dir, s.store, request("drop", s.drop)); r.Write.Paths != 0 {
		t.Errorf("written again: %+v", r.Estimate)
	}
	checkWhole(t, s.dir, "p/keep", "p/drop")

	if err := j.add(nil); err != nil {
		t.Fatal(err)
	}
	j.close()
	s.gc(GCOptions{now: time.Now().Add(DefaultGrace + time.Minute)})
	if exists(s.path(journalFile)) {
		t.Error("an old journal is left")
	}
}

// Directories that hydra-backup wrote are collected, too: NAR files at the top,
// records of closure.txt alone, no narvault.json.
func TestGCOfOldLayout(t *testing.T) {
	s := newGCScene(t)
	for p := range s.store.infos {
		info := s.narInfo(p)
		url := filepath.Base(info.URL)
		if exists(s.path(cacheDir, info.URL)) {
			if err := os.Rename(s.path(cacheDir, info.URL), s.path(cacheDir, url)); err != nil {
				t.Fatal(err)
			}
		}
		info.URL, info.FileHash, info.Sigs = url, "", nil
		s.write(string(info.Bytes()), cacheDir, p.Hash()+narInfoExt)
		s.remove(cacheDir, p.Hash()+lsExt)
	}
	for _, name := range []string{configFile, readmeFile, "cache/nar", "cache/log", "cache/realisations", "cache/build-trace-v2", "releases/p/keep/release.json", "releases/p/drop/release.json", lockFile, locksDir} {
		s.remove(name)
	}
	if r := s.gc(GCOptions{}); len(r.Goes) != 0 || len(r.Kept) != 6 {
		t.Errorf("nothing to collect: %+v", r.Goes)
	}
	s.forget("drop")
	r := s.gc(GCOptions{})
	if len(goes(r, NarInfoKind)) != 3 || len(goes(r, NARKind)) != 2 {
		t.Errorf("goes %v", r.Goes)
	}
	if err := Unforget(t.Context(), s.dir, ReleaseID{"p", "drop"}, LockOptions{}); err != nil {
		t.Error(err)
	}
	if r := s.gc(GCOptions{}); len(r.Goes) != 0 || len(r.Kept) != 6 {
		t.Errorf("after undo: %+v", r.Goes)
	}
	mustRun(t, s.dir, s.store, request("keep", s.keep)) // continued in place
}

// gc keeps out of the way of backups, and they of it.
func TestGCAndBackupExclude(t *testing.T) {
	s := newGCScene(t)
	var locked *LockedError
	req := request("new", s.keep)
	req.Progress.Planned = func(Estimate) {
		if _, err := gc(t.Context(), memory{}, s.dir, GCOptions{}); !errors.As(err, &locked) {
			t.Errorf("gc beside a backup: %v", err)
		}
		s.gc(GCOptions{DryRun: true})
	}
	mustRun(t, s.dir, s.store, req)
	held := mustLock(t, s.dir, excluding, LockOptions{})
	if _, err := run(t.Context(), memory{}, s.dir, s.store, req); !errors.As(err, &locked) {
		t.Errorf("a backup beside gc: %v", err)
	}
	held.Close()
}

// What a backup needs again comes out of the trash, and is not written anew.
func TestBackupBringsBack(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	s.gc(GCOptions{})
	r := mustRun(t, s.dir, s.store, request("again", s.drop))
	if r.Write.Paths != 0 || r.Recovered != 3 {
		t.Errorf("written %d, from the trash %d", r.Write.Paths, r.Recovered)
	}
	checkWhole(t, s.dir, "p/keep", "p/again")
	// But not what has another content now, nor what is damaged.
	s.forget("again")
	s.gc(GCOptions{})
	nars, err := filepath.Glob(s.path(trashDir, "*", cacheDir, narDir, "*"))
	if err != nil || len(nars) != 2 {
		t.Fatal(nars, err)
	}
	for _, name := range nars {
		if err := os.Truncate(name, 5); err != nil {
			t.Fatal(err)
		}
	}
	r = mustRun(t, s.dir, s.store, request("again", s.drop))
	if r.Recovered != 0 {
		t.Errorf("from the trash came %d", r.Recovered)
	}
	checkWhole(t, s.dir, "p/keep", "p/again")
}

// gc needs no room on the medium when it deletes at once.
func TestGCOnFullDisk(t *testing.T) {
	s := newGCScene(t)
	s.forget("drop")
	if _, err := gc(t.Context(), fullDisk{}, s.dir, GCOptions{Now: true}); err != nil {
		t.Error(err)
	}
	checkWhole(t, s.dir, "p/keep")
}

// A fullDisk has no room for anything new.
type fullDisk struct{ memory }

func (fullDisk) Mkdir(string) error                   { return errFull }
func (fullDisk) CreateTemp(string) (disk.File, error) { return nil, errFull }
func (fullDisk) Append(string) (disk.File, error)     { return nil, errFull }

var errFull = errors.New("full")
