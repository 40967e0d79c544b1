package gc

import (
	"fmt"
	"hash/crc32"
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
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// What belongs to store paths and derivations goes with them, and what killed
// backups left goes, too; what gc does not know stays.
func TestLeftovers(t *testing.T) {
	s := newScene(t)
	drv := s.Store.Add("keep.drv", "derivation")
	info := s.NarInfo(s.Keep)
	info.Deriver = drv
	s.Write(string(info.Bytes()), layout.CacheDir, s.Keep.Hash()+bincache.NarInfoExt)
	gone := "0123456789abcdfghijklmnpqrsvwxyz-gone"
	keepURL, dropURL := s.NarInfo(s.Keep).URL, s.NarInfo(s.Only).URL
	files := map[string]struct {
		text string
		goes bool
	}{
		"cache/log/" + string(drv):                       {"log", false},
		"cache/log/" + gone + ".drv":                     {"log", true},
		"cache/log/" + gone + ".drv.bz2":                 {"log", true},
		"cache/log/notes":                                {"notes", false},
		"cache/realisations/sha256:aa!out.doi":           {`{"outPath":"` + string(s.Keep) + `"}`, false},
		"cache/realisations/sha256:bb!out.doi":           {`{"outPath":"` + string(s.Only) + `"}`, true},
		"cache/realisations/sha256:cc!out.doi":           {`{`, false},
		"cache/build-trace-v2/" + gone + ".drv/out.doi":  {`{"outPath":"` + gone + `"}`, true},
		"cache/build-trace-v2/" + string(drv) + "/x.doi": {`{"outPath":"` + string(s.Keep) + `"}`, false},
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
		s.Write(f.text, name)
	}
	s.forget("drop")
	r := s.gc(Options{})
	for name, f := range files {
		if there := backuptest.Exists(s.Path(name)); there == f.goes {
			t.Errorf("%s is there: %v", name, there)
		}
		if name == "releases/p/never/.narvault-4.tmp" {
			name = filepath.Dir(name) // goes as a whole
		}
		if f.goes && !slices.ContainsFunc(r.Goes, func(i Item) bool { return i.Name == name && i.Reason != "" }) {
			t.Errorf("%s is not told of", name)
		}
	}
	if backuptest.Exists(s.Path("releases/p/never")) {
		t.Error("the directory of a release that never came to be is left")
	}
	if !slices.ContainsFunc(r.Stays, func(i Item) bool { return i.Name == "cache/README" }) {
		t.Errorf("stays: %v", r.Stays)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep")
	if r := s.gc(Options{Now: true}); len(r.Goes) != 0 {
		t.Errorf("the second time: %v", r.Goes)
	}
}

// NARs that an interrupted backup finished are for the next one, for a while.
func TestFinishedNARsOutliveGC(t *testing.T) {
	s := newScene(t)
	info := s.NarInfo(s.Drop)
	fileHash, err := narinfo.ParseHash(info.FileHash)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%s %d %s %s %d %s", info.NarHash, info.NarSize, info.URL, fileHash, info.FileSize, info.Compression)
	journal := fmt.Sprintf("%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
	s.Write(journal, layout.JournalFile)
	s.Remove(layout.ReleasesDir, "p", "drop")
	s.Remove(layout.CacheDir, s.Drop.Hash()+bincache.NarInfoExt)
	r := s.gc(Options{})
	if got := goes(r, NARKind); len(got) != 1 || len(r.Stays) != 1 {
		t.Errorf("goes %v, stays %v", got, r.Stays)
	}
	if r := mustRun(t, s.Dir, s.Store, request("drop", s.Drop)); r.Write.Paths != 0 {
		t.Errorf("written again: %+v", r.Estimate)
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop")

	s.Write(journal, layout.JournalFile)
	s.gc(Options{now: time.Now().Add(DefaultGrace + time.Minute)})
	if backuptest.Exists(s.Path(layout.JournalFile)) {
		t.Error("an old journal is left")
	}
}

// Directories that hydra-backup wrote are collected, too: NAR files at the top,
// records of closure.txt alone, no narvault.json.
func TestGCOfOldLayout(t *testing.T) {
	s := newScene(t)
	for p := range s.Store.Valid {
		info := s.NarInfo(p)
		url := filepath.Base(info.URL)
		if backuptest.Exists(s.Path(layout.CacheDir, info.URL)) {
			if err := os.Rename(s.Path(layout.CacheDir, info.URL), s.Path(layout.CacheDir, url)); err != nil {
				t.Fatal(err)
			}
		}
		info.URL, info.FileHash, info.Sigs = url, "", nil
		s.Write(string(info.Bytes()), layout.CacheDir, p.Hash()+bincache.NarInfoExt)
		s.Remove(layout.CacheDir, p.Hash()+bincache.ListingExt)
	}
	for _, name := range []string{layout.ConfigFile, layout.ReadmeFile, "cache/nar", "cache/log", "cache/realisations", "cache/build-trace-v2", "releases/p/keep/release.json", "releases/p/drop/release.json", layout.LockFile, layout.LocksDir} {
		s.Remove(name)
	}
	if r := s.gc(Options{}); len(r.Goes) != 0 || len(r.Kept) != 6 {
		t.Errorf("nothing to collect: %+v", r.Goes)
	}
	s.forget("drop")
	r := s.gc(Options{})
	if len(goes(r, NarInfoKind)) != 3 || len(goes(r, NARKind)) != 2 {
		t.Errorf("goes %v", r.Goes)
	}
	if err := Unforget(t.Context(), s.Dir, backup.ReleaseID{Project: "p", Name: "drop"}, lock.Options{}); err != nil {
		t.Error(err)
	}
	if r := s.gc(Options{}); len(r.Goes) != 0 || len(r.Kept) != 6 {
		t.Errorf("after undo: %+v", r.Goes)
	}
	mustRun(t, s.Dir, s.Store, request("keep", s.Keep)) // continued in place
}

// Logs of the derivations that a record names stay, and when it was changed, and
// so does not say any more whose they are, all do.
func TestLogsOfRecord(t *testing.T) {
	store := backuptest.NewStore(t)
	hello, drv := store.Add("hello", "hello"), store.Add("hello.drv", "derivation")
	req := backup.Request{Release: backup.ReleaseID{Project: "hello", Name: "hello-1.0"}, Record: &backup.Release{
		Source: backup.Source{Kind: "hydra"}, Roots: []backup.Root{{Job: "build", Output: "out", NixName: "hello-1.0", StorePath: hello, DrvPath: drv, Build: 12}},
	}}
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("built"), 0o644); err != nil {
		t.Fatal(err)
	}
	req.Logs = map[storepath.Path]string{drv: log}
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, req)
	collect := func() {
		t.Helper()
		if _, err := run(t.Context(), backuptest.Memory{}, dir, Options{Now: true}); err != nil {
			t.Fatal(err)
		}
		if !backuptest.Exists(filepath.Join(dir, "cache/log", string(drv))) {
			t.Error("the log is gone")
		}
	}
	collect()
	name := filepath.Join(dir, "releases/hello/hello-1.0/release.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other := "0123456789abcdfghijklmnpqrsvwxyz"
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(text), drv.Hash(), other)), 0o644); err != nil {
		t.Fatal(err)
	}
	collect()
}
