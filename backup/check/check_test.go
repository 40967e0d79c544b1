package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/gc"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// optional are the files of a backup without which nothing is lost: see why.
var optional = map[string]string{
	"narvault.json":               "the next backup writes it; until then the index counts as another cache's",
	"lock":                        "is made again",
	"locks/mutex":                 "is made again",
	"index/lock":                  "is made again",
	"index/CURRENT":               "there is no index then",
	one + "previous/closure.txt":  "is for undo",
	one + "previous/release.json": "is for undo",
}

// TestFilesRemovedAndCut removes and cuts each file of a backup in turn.
func TestFilesRemovedAndCut(t *testing.T) {
	s := newScene(t)
	for _, name := range s.files() {
		good := s.read(name)
		for change, bad := range map[string]string{
			"emptied": "", "cut in half": good[:len(good)/2], "cut by a byte": good[:max(len(good)-1, 0)], "longer": good + "x",
		} {
			if bad == good {
				continue
			}
			s.write(name, bad)
			r := s.check(all)
			if r.Counts[Damage]+r.Counts[Warning] == 0 && harmless(name, []byte(good), []byte(bad)) == "" {
				t.Errorf("%s, %s: not found", name, change)
			}
		}
		s.remove(name)
		_, isOptional := optional[name]
		r := s.check(all)
		if found := r.Counts[Damage]+r.Counts[Warning] > 0; !found && !isOptional && path.Ext(name) != bincache.ListingExt {
			t.Errorf("%s, removed: not found", name)
		}
		s.write(name, good)
	}
	s.check(all).want(t)
}

// TestFilesSwapped exchanges the files of each kind.
func TestFilesSwapped(t *testing.T) {
	s := newScene(t)
	names := s.files()
	for i, a := range names {
		for _, b := range names[i+1:] {
			x, y := s.read(a), s.read(b)
			if path.Dir(a) != path.Dir(b) || path.Ext(a) != path.Ext(b) || x == y {
				continue
			}
			s.write(a, y)
			s.write(b, x)
			if s.check(all).Counts[Damage] == 0 {
				t.Errorf("%s and %s: not found", a, b)
			}
			s.write(a, x)
			s.write(b, y)
		}
	}
}

// TestReadOnce counts the bytes that are read of NAR files: those of each file,
// once, though two store paths share one.
func TestReadOnce(t *testing.T) {
	s := newScene(t)
	var read, files, planned atomic.Int64
	o := all
	o.Progress = Progress{
		Planned: func(n int, size int64) { planned.Store(size) },
		Read:    func(n int) { read.Add(int64(n)) },
		Checked: func() { files.Add(1) },
	}
	r := s.check(o)
	if r.StorePaths != 4 || r.NarFiles != 3 || files.Load() != 3 || r.ReadData.NarFiles != 3 || r.ReadData.Left != 0 {
		t.Errorf("%+v, %+v", r, r.ReadData)
	}
	if read.Load() != r.FileSize || planned.Load() != r.FileSize || r.ReadData.FileSize != r.FileSize {
		t.Errorf("read %d, planned %d, of %d bytes", read.Load(), planned.Load(), r.FileSize)
	}
}

// NAR files are read at the same time: who has read one waits here until a second
// has been read.
func TestReadAtTheSameTime(t *testing.T) {
	s := newScene(t)
	var files atomic.Int64
	both := make(chan struct{})
	o := all
	o.Workers = 2
	o.Progress.Checked = func() {
		if files.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(time.Minute):
			t.Error("one file is read after the other")
		}
	}
	s.check(o).want(t)
}

// A foreign cache is checked, and nothing in it changes.
func TestForeignIsNotTouched(t *testing.T) {
	s := newScene(t)
	foreign := s.path("cache")
	must(t, os.Chmod(foreign, 0o555))
	before := snapshot(t, foreign)
	r, err := Run(t.Context(), foreign, all)
	must(t, err)
	r.want(t)
	if r.StorePaths != 4 || r.Releases != 0 || r.ReadData.NarFiles != 3 {
		t.Errorf("%+v", r)
	}
	s.flipAt(s.nar(s.lib), 20)
	before[strings.TrimPrefix(s.nar(s.lib), "cache/")] = snapshot(t, foreign)[strings.TrimPrefix(s.nar(s.lib), "cache/")]
	r, err = Run(t.Context(), foreign, all)
	must(t, err)
	r.want(t, "damage nar-data "+strings.TrimPrefix(s.nar(s.lib), "cache/"))
	if after := snapshot(t, foreign); !maps.Equal(before, after) {
		t.Errorf("before\n%v\nafter\n%v", before, after)
	}
	if r.ReadData.Oldest != nil {
		t.Error("a damaged file counts as verified")
	}
}

// snapshot describes all files below a directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, name)
		text := ""
		if d.Type().IsRegular() {
			b, _ := os.ReadFile(name)
			text = string(b)
		}
		files[rel] = fmt.Sprint(info.Mode(), info.ModTime(), text)
		return err
	}))
	return files
}

// In a NAR of many blocks, the files of the damaged ones are named, and no other.
func TestLostFiles(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "user"))
	tree := filepath.Join(dir, "tree")
	must(t, os.Mkdir(tree, 0o755))
	random := rand.NewChaCha8([32]byte{1})
	for i := range 8 {
		data := make([]byte, 256<<10)
		random.Read(data)
		must(t, os.WriteFile(filepath.Join(tree, fmt.Sprint("file", i)), data, 0o644))
	}
	p := strings.TrimSpace(testenv.Run(t, dir, "nix-store", "--add", "tree"))
	s := &scene{t: t, dir: filepath.Join(dir, "backup")}
	backUp(t, s.dir, "demo/large", "", p)
	base, err := storepath.ParseIn("/nix/store", p)
	must(t, err)
	nar := s.nar(base)
	size := len(s.read(nar))
	s.flipAt(nar, size*3/16) // in the middle of file1
	s.flipAt(nar, size*11/16)
	for _, index := range []bool{true, false} {
		r := s.check(all)
		if len(r.Findings) != 1 || r.Findings[0].Kind != NarData {
			t.Fatalf("%+v", r.Findings)
		}
		f := r.Findings[0]
		if !slices.Contains(f.Files, "file1") || !slices.Contains(f.Files, "file5") || len(f.Files) > 4 ||
			!strings.Contains(f.Message, "2 of its blocks are damaged") || f.Offset == nil || *f.Offset == 0 {
			t.Errorf("with index %v: %v, %v, %s", index, f.Files, f.Offset, f.Message)
		}
		s.remove("index")
	}
}

// TestReportJSON holds the names and types of what programs read.
func TestReportJSON(t *testing.T) {
	s := newScene(t)
	s.flipAt(s.nar(s.lib), 20)
	text, err := json.Marshal(s.check(all))
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(text, &got))
	const schema = `{"counts":{"damage":0,"note":0,"unreadable":0,"warning":0},"dir":"","fileSize":0,
		"findings":[{"file":"","files":[""],"kind":"","message":"","offset":0,"releases":[""],"remedy":"","severity":"","storePaths":["",""]}],
		"narFiles":0,"readData":{"fileSize":0,"left":0,"narFiles":0,"narSize":0},"releases":0,"seconds":0,"storePaths":0,"version":0}`
	var want map[string]any
	must(t, json.Unmarshal([]byte(schema), &want))
	if g, w := shape(got), shape(want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if got["version"] != 1.0 {
		t.Errorf("version %v", got["version"])
	}
	text, err = json.Marshal(newScene(t).check(Options{}))
	must(t, err)
	if !bytes.Contains(text, []byte(`"findings":[]`)) || bytes.Contains(text, []byte("readData")) {
		t.Errorf("got %s", text)
	}
}

// shape is JSON with all values made alike.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key+":"+shape(v[key]))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, shape(x))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprintf("%T", v)
}

// TestBesideOthers checks while releases come and go and garbage is collected:
// none of it looks like damage.
func TestBesideOthers(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var changes atomic.Int64
	var ended atomic.Bool
	go func() {
		defer ended.Store(true)
		var err error
		for ; err == nil && ctx.Err() == nil; changes.Add(1) {
			err = s.change(ctx, int(changes.Load()))
		}
		done <- err
	}()
	checks := 0
	for ; changes.Load() < 8 && !ended.Load(); checks++ {
		r := s.check(all)
		if r.Counts[Damage]+r.Counts[Unreadable]+r.Counts[Warning] > 0 {
			t.Errorf("%+v", r.Findings)
			break
		}
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	t.Logf("%d checks beside %d changes", checks, changes.Load())
}

// change backs up the scene's closure again, and takes it away.
func (s *scene) change(ctx context.Context, i int) error {
	id := backup.ReleaseID{Project: "demo", Name: "one"}
	if i%2 == 0 {
		_, err := gc.Forget(ctx, s.dir, gc.ForgetRequest{Releases: []backup.ReleaseID{id}})
		if err != nil {
			return err
		}
		_, err = gc.Run(ctx, s.dir, gc.Options{Now: true, NoReleases: true})
		return err
	}
	store, err := nixstore.Open(ctx, nixstore.Options{Env: testenv.NixEnv(s.t)})
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = backup.Run(ctx, s.dir, store, backup.Request{Release: id, Roots: []storepath.Path{s.top}})
	return err
}

// What is no backup is an error, not a finding.
func TestNoBackup(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "no-such-directory", "check_test.go"} {
		if r, err := Run(t.Context(), dir, Options{}); err == nil {
			t.Errorf("%s: %+v", dir, r)
		}
	}
}
