package backup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// What belongs to store paths and derivations goes with them, and what killed
// backups left goes, too; what gc does not know stays.
func TestLeftovers(t *testing.T) {
	s := newGCScene(t)
	drv := s.store.add("keep.drv", "derivation")
	info := s.narInfo(s.keep)
	info.Deriver = drv
	s.write(string(info.Bytes()), layout.CacheDir, s.keep.Hash()+bincache.NarInfoExt)
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
	s.remove(layout.ReleasesDir, "p", "drop")
	s.remove(layout.CacheDir, s.drop.Hash()+bincache.NarInfoExt)
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
	if exists(s.path(layout.JournalFile)) {
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
		if exists(s.path(layout.CacheDir, info.URL)) {
			if err := os.Rename(s.path(layout.CacheDir, info.URL), s.path(layout.CacheDir, url)); err != nil {
				t.Fatal(err)
			}
		}
		info.URL, info.FileHash, info.Sigs = url, "", nil
		s.write(string(info.Bytes()), layout.CacheDir, p.Hash()+bincache.NarInfoExt)
		s.remove(layout.CacheDir, p.Hash()+bincache.ListingExt)
	}
	for _, name := range []string{layout.ConfigFile, layout.ReadmeFile, "cache/nar", "cache/log", "cache/realisations", "cache/build-trace-v2", "releases/p/keep/release.json", "releases/p/drop/release.json", layout.LockFile, layout.LocksDir} {
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
	if err := Unforget(t.Context(), s.dir, ReleaseID{"p", "drop"}, lock.Options{}); err != nil {
		t.Error(err)
	}
	if r := s.gc(GCOptions{}); len(r.Goes) != 0 || len(r.Kept) != 6 {
		t.Errorf("after undo: %+v", r.Goes)
	}
	mustRun(t, s.dir, s.store, request("keep", s.keep)) // continued in place
}

// A record that was changed does not say any more whose logs are needed.
func TestLogsOfChangedRecord(t *testing.T) {
	store, req := hydraScene(t)
	drv := req.Record.Roots[0].DrvPath
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("built"), 0o644); err != nil {
		t.Fatal(err)
	}
	req.Logs = map[storepath.Path]string{drv: log}
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, req)
	name := filepath.Join(dir, "releases/hello/hello-1.0/release.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other := "0123456789abcdfghijklmnpqrsvwxyz"
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(text), drv.Hash(), other)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := gc(t.Context(), memory{}, dir, GCOptions{Now: true}); err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(dir, "cache/log", string(drv))) {
		t.Error("the log is gone")
	}
}
