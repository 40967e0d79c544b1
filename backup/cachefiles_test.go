package backup

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
)

// openFiles opens the cache of a backup as files.
func openFiles(t *testing.T, dir string) *CacheFiles {
	t.Helper()
	l, _ := openLive(t, dir)
	c, err := l.CacheFiles()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCacheFilesShowOnlyTheCache(t *testing.T) {
	dir, _, top := backedUp(t, "zstd")
	at := func(name string) string { return filepath.Join(dir, layout.CacheDir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, text string) { t.Helper(); check(os.WriteFile(at(name), []byte(text), 0o644)) }
	info, err := os.ReadFile(at(top.Hash() + bincache.NarInfoExt))
	check(err)
	evil := strings.Repeat("0", 32)
	put(evil+bincache.NarInfoExt, strings.NewReplacer(string(top), evil+"-out", "URL: nar/", "URL: ../").Replace(string(info)))
	put("nar/real.nar", "real")
	put("old.nar.xz", "at the top, as nix-push had it")
	hidden := []string{
		"lock", "notes.txt", ".narvault-1.tmp", "nar/x.nar.tmp.12.3", "nar/x.nar.tmp", "nar/y~", "nar/.z", "short.narinfo", "nar/pipe",
		"nar/out", "nar/dangling", "nar/round", "nar/x.lock", evil + bincache.NarInfoExt,
	}
	for _, name := range hidden[:8] {
		put(name, "x")
	}
	put("nar/x.lock", "")
	check(syscall.Mkfifo(at("nar/pipe"), 0o644))
	check(os.Symlink("../../../narvault.json", at("nar/out")))
	check(os.Symlink("nowhere", at("nar/dangling")))
	check(os.Symlink("..", at("nar/round")))
	check(os.Symlink("real.nar", at("nar/alias.nar")))
	check(os.Remove(at("realisations")))

	c := openFiles(t, dir)
	var all []string
	for _, in := range []string{"", "nar", "realisations", "build-trace-v2"} {
		names, err := c.Names(in)
		check(err)
		for _, name := range names {
			name = strings.TrimPrefix(in+"/"+name, "/")
			all = append(all, name)
			st, err := c.Stat(strings.TrimSuffix(name, "/"))
			if err != nil || st.Dir != strings.HasSuffix(name, "/") {
				t.Errorf("%s: %+v, %v", name, st, err)
			}
			if st.Dir {
				continue
			}
			want, err := os.ReadFile(at(name))
			check(err)
			f, size, err := c.Open(name)
			check(err)
			got, err := io.ReadAll(f)
			f.Close()
			if err != nil || string(got) != string(want) || size != int64(len(want)) || st.Size != size {
				t.Errorf("%s: %d bytes, size %d and %d, want %d", name, len(got), size, st.Size, len(want))
			}
		}
	}
	for _, want := range []string{"nar/", "log/", "realisations/", "build-trace-v2/", "nix-cache-info", top.Hash() + bincache.NarInfoExt, top.Hash() + bincache.ListingExt, "nar/real.nar", "nar/alias.nar", "old.nar.xz"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not listed", want)
		}
	}
	for _, name := range append(hidden, "../narvault.json", "/etc/passwd", "nar/../../narvault.json", "nar//real.nar", "absent", "nar/real.nar/x") {
		if slices.Contains(all, name) {
			t.Errorf("%s is listed", name)
		}
		_, statErr := c.Stat(name)
		f, _, err := c.Open(name)
		if err == nil {
			f.Close()
		}
		if statErr == nil || err == nil {
			t.Errorf("%s: stat: %v; open: %v", name, statErr, err)
		}
		var damage *bincache.DamageError
		if gone := errors.Is(statErr, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist); name == evil+bincache.NarInfoExt {
			if gone || !errors.As(err, &damage) {
				t.Errorf("%s: %v", name, err)
			}
		} else if !gone && name != "nar/real.nar/x" {
			t.Errorf("%s: stat: %v; open: %v", name, statErr, err)
		}
	}
}

// The time of a file changes with all that changes, and settles.
func TestCacheFilesTime(t *testing.T) {
	dir, _, top := backedUp(t, "none")
	c := openFiles(t, dir)
	name := top.Hash() + bincache.ListingExt
	file := filepath.Join(dir, layout.CacheDir, name)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	later := now.Add(time.Hour)
	if changeTime(info, now).Equal(changeTime(info, now.Add(1))) {
		t.Error("a file that may be written this moment seems not to change")
	}
	old := changeTime(info, later)
	if !old.Equal(changeTime(info, later.Add(1))) || old.Unix() != info.ModTime().Unix() {
		t.Errorf("time %v of a file of %v", old, info.ModTime())
	}
	if changeTime(info, now).After(now) {
		t.Error("a file of the future")
	}
	// Another file with the same size and time.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, file+"2", data)
	if err := errors.Join(os.Chtimes(file+"2", info.ModTime(), info.ModTime()), os.Rename(file+"2", file)); err != nil {
		t.Fatal(err)
	}
	other, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if changeTime(other, later).Equal(old) {
		t.Error("another file has the same time")
	}
	if st, err := c.Stat(name); err != nil || st.Size != info.Size() {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestCacheFilesListsFollow(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	c := openFiles(t, dir)
	list := func() []string {
		t.Helper()
		names, err := c.Names("")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := list()
	added := store.Add("added", "new", top)
	mustRun(t, dir, store, request("r2", added))
	if after := list(); slices.Contains(before, added.Hash()+bincache.NarInfoExt) || !slices.Contains(after, added.Hash()+bincache.NarInfoExt) {
		t.Errorf("after a backup: %q", after)
	}
	name := filepath.Join(dir, layout.CacheDir, added.Hash()+bincache.NarInfoExt)
	replace(t, name, []byte("broken"))
	// Mending and breaking in place changes no directory, and a path that was
	// good once stays good for Live; what is asked for is what is there.
	if _, err := c.Stat(added.Hash() + bincache.NarInfoExt); err == nil {
		t.Error("a broken narinfo is shown")
	}
	for i := range 2 * maxNameLists { // the memory of lists is bounded
		sub := filepath.Join(dir, layout.CacheDir, "nar", strings.Repeat("d", i+1))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if names, err := c.Names("nar/" + filepath.Base(sub)); err != nil || len(names) != 0 {
			t.Errorf("%q, %v", names, err)
		}
	}
	if len(c.lists) > maxNameLists {
		t.Errorf("%d lists are kept", len(c.lists))
	}
}

func TestHidden(t *testing.T) {
	for name, want := range map[string]bool{
		"x.nar.zst": false, "a.b.tmp.c": false, "x-1.2.3": false, "12.34": false, "tmp": false, "x.tmpl": false, "debug.10.nar": false,
		"x.tmp": true, "x.tmp.1": true, "x.tmp.12.3": true, "x.lock": true, ".x": true, "x~": true, "lock": true, "x.part": true,
	} {
		if hidden(name) != want {
			t.Errorf("hidden(%q) is %v", name, !want)
		}
	}
}

func TestJobs(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	b := mustOpen(t, dir)
	j := NewJobs(b)
	ids, err := b.Releases()
	if err != nil || len(ids) != 1 {
		t.Fatalf("%v, %v", ids, err)
	}
	roots, err := j.Roots(ids[0])
	if err != nil || len(roots) != 1 || roots[0].StorePath != top {
		t.Fatalf("%+v, %v", roots, err)
	}
	again, err := j.Roots(ids[0])
	if err != nil || &again[0] != &roots[0] {
		t.Errorf("nothing changed, but another slice comes: %v", err)
	}
	added := store.Add("added", "new", top)
	mustRun(t, dir, store, request(ids[0].Name, added))
	if roots, err = j.Roots(ids[0]); err != nil || len(roots) != 1 || roots[0].StorePath != added {
		t.Errorf("after another backup: %+v, %v", roots, err)
	}
	if _, err := j.Roots(ReleaseID{"no", "such"}); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNoRelease) {
		t.Errorf("no such release: %v", err)
	}
	name := filepath.Join(dir, layout.ReleasesDir, ids[0].Project, ids[0].Name, layout.ReleaseFile)
	replace(t, name, []byte("{"))
	var damage *bincache.DamageError
	if _, err := j.Roots(ids[0]); !errors.As(err, &damage) {
		t.Errorf("a damaged record: %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if roots, err := j.Roots(ids[0]); err != nil || len(roots) != 0 {
		t.Errorf("a release of hydra-backup: %+v, %v", roots, err)
	}
}
