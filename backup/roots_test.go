package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// hydraScene is a store with a build of two outputs, and what Hydra says of it.
func hydraScene(t *testing.T) (*backuptest.Store, Request) {
	s := backuptest.NewStore(t)
	lib := s.Add("lib", "library")
	out := s.Add("hello", "uses "+string(lib), lib)
	doc := s.Add("hello-doc", "manual")
	drv := s.Add("hello.drv", "derivation")
	root := Root{Job: "build", Jobset: "trunk", System: "x86_64-linux", NixName: "hello-1.0", DrvPath: drv, Build: 12}
	roots := []Root{root, root}
	roots[0].Output, roots[0].StorePath = "doc", doc
	roots[1].Output, roots[1].StorePath = "out", out
	return s, Request{Release: ReleaseID{"hello", "hello-1.0"}, Description: "Hello 1.0", Hydra: []byte(`{"version": 1}`), Record: &Release{
		Source: Source{Kind: "hydra", Database: "hydra", Evaluation: 3}, Roots: roots,
		Builds: []Build{{ID: 12, Finished: time.Unix(1_600_000_000, 0).UTC(), Description: "Hello", Products: []Product{{Type: "doc", Name: "manual", Path: "/x"}}}},
	}}
}

func TestRecord(t *testing.T) {
	store, req := hydraScene(t)
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, req)
	var release Release
	backuptest.ReadJSON(t, filepath.Join(dir, "releases/hello/hello-1.0/release.json"), &release)
	if !slices.Equal(release.Roots, req.Record.Roots) || release.Source != req.Record.Source || release.Builds[0].ID != 12 || release.Builds[0].Products[0].Path != "/x" {
		t.Errorf("release.json has %+v", release)
	}
	if release.Paths != 3 {
		t.Errorf("%d store paths, want hello, hello-doc and lib", release.Paths)
	}
	file := filepath.Join(dir, "releases/hello/hello-1.0/hydra.json")
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, req.Hydra) {
		t.Errorf("hydra.json has %q, %v", got, err)
	}

	// The same again leaves the record alone.
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, store, req)
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("hydra.json was written again (%v)", err)
	}
	if backuptest.Exists(filepath.Join(dir, "releases/hello/hello-1.0/previous")) {
		t.Error("there is a record before the first")
	}

	// Other rows are a change; so is a backup that Hydra knows nothing of.
	req.Hydra = []byte(`{"version": 1, "tables": {}}`)
	mustRun(t, dir, store, req)
	previous := filepath.Join(dir, "releases/hello/hello-1.0/previous/hydra.json")
	if got, err := os.ReadFile(previous); err != nil || string(got) != `{"version": 1}` {
		t.Errorf("previous/hydra.json has %q, %v", got, err)
	}
	mustRun(t, dir, store, Request{Release: req.Release, Roots: []storepath.Path{req.Record.Roots[1].StorePath}})
	if backuptest.Exists(file) {
		t.Error("hydra.json is left of a release that Hydra knows nothing of")
	}
	if got, err := os.ReadFile(previous); err != nil || string(got) != `{"version": 1, "tables": {}}` {
		t.Errorf("previous/hydra.json has %q, %v", got, err)
	}
	mustRun(t, dir, store, req)
	if backuptest.Exists(previous) {
		t.Error("previous/hydra.json is left beside a record that had none")
	}
}

// TestRecordMethods takes derivations, where the method asks for them.
func TestRecordMethods(t *testing.T) {
	store, req := hydraScene(t)
	req.Method = SourceOnly
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, req)
	var release Release
	backuptest.ReadJSON(t, filepath.Join(dir, "releases/hello/hello-1.0/release.json"), &release)
	want := req.Record.Roots[0]
	want.StorePath, want.Output = want.DrvPath, ""
	if !slices.Equal(release.Roots, []Root{want}) || release.Paths != 1 {
		t.Errorf("release.json has %+v", release)
	}
}

// TestRecordGone names what the store has not any more, and changes nothing.
func TestRecordGone(t *testing.T) {
	store, req := hydraScene(t)
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, req)
	file := filepath.Join(dir, "releases/hello/hello-1.0/closure.txt")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	delete(store.Valid, req.Record.Roots[0].StorePath)
	_, err = Run(t.Context(), dir, store, req)
	var gone *GoneError
	if !errors.As(err, &gone) || !slices.Equal(gone.Roots, req.Record.Roots[:1]) {
		t.Fatalf("error is %v", err)
	}
	want := fmt.Sprintf("1 of 2 are not in the store any more (Hydra lets its garbage collector have what nothing keeps): "+
		"take them from another cache, with --from, or leave these builds out:\n  build.x86_64-linux, output doc, build 12: %s", gone.Roots[0].StorePath)
	if err.Error() != want {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the closure has changed (%v)", err)
	}
	if _, err := Run(t.Context(), dir, store, Request{Release: req.Release, Record: &Release{}}); err == nil || !strings.Contains(err.Error(), "there is nothing to back up") {
		t.Errorf("without roots: %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the closure has changed (%v)", err)
	}
}

// TestLogs archives build logs in all forms; what is wrong with one is a
// warning.
func TestLogs(t *testing.T) {
	testenv.Need(t, "bzip2", "zstd")
	store, req := hydraScene(t)
	logs := t.TempDir()
	text := strings.Repeat("building\n", 100)
	req.Logs = make(map[storepath.Path]string)
	add := func(name, suffix, content string) storepath.Path {
		drv := store.Add(name+".drv", name)
		req.Record.Roots = append(req.Record.Roots, Root{Job: name, NixName: name, DrvPath: drv, StorePath: req.Record.Roots[0].StorePath})
		file := filepath.Join(logs, name+suffix)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		req.Logs[drv] = file
		return drv
	}
	good := []storepath.Path{
		add("plain", "", text),
		add("packed", ".bz2", testenv.RunInput(t, logs, []byte(text), "bzip2")),
		add("zipped", ".zst", testenv.RunInput(t, logs, []byte(text), "zstd")),
	}
	bad := add("damaged", ".bz2", "BZh9 and no more")
	pipe := add("pipe", "", "")
	if err := errors.Join(os.Remove(req.Logs[pipe]), syscall.Mkfifo(req.Logs[pipe], 0o644)); err != nil {
		t.Fatal(err)
	}
	vanished := add("vanished", "", "")
	if err := os.Remove(req.Logs[vanished]); err != nil {
		t.Fatal(err)
	}
	other := add("other", "", "of another release")
	req.Record.Roots = req.Record.Roots[:len(req.Record.Roots)-1]
	dir := filepath.Join(t.TempDir(), "backup")
	kept := add("kept", "", "new")
	if err := os.MkdirAll(filepath.Join(dir, "cache/log"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "narvault.json"), []byte(`{"version": 1, "compression": "zstd"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cache/log", string(kept)), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := mustRun(t, dir, store, req)
	for _, drv := range good {
		if got, err := os.ReadFile(filepath.Join(dir, "cache/log", string(drv))); err != nil || string(got) != text {
			t.Errorf("log of %s has %d bytes, %v", drv, len(got), err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "cache/log", string(kept))); err != nil || string(got) != "old" {
		t.Errorf("a log that was there has become %q, %v", got, err)
	}
	for _, drv := range []storepath.Path{bad, pipe, vanished} {
		if backuptest.Exists(filepath.Join(dir, "cache/log", string(drv))) {
			t.Errorf("there is a log of %s", drv)
		}
		if !strings.Contains(strings.Join(r.Warnings, "\n"), "build log of "+string(drv)+" is left out: ") {
			t.Errorf("no warning about %s in %q", drv, r.Warnings)
		}
	}
	if backuptest.Exists(filepath.Join(dir, "cache/log", string(other))) {
		t.Error("there is a log that does not belong to the release")
	}
	backuptest.CheckNoTemp(t, filepath.Join(dir, "cache/log"))
}

// What a log has beyond the limit is left out, and that is said.
func TestLogIsCutOff(t *testing.T) {
	dir, _, _ := backedUp(t, "none")
	b := mustOpen(t, dir)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &runner{fsys: backuptest.Memory{}}
	for i, limit := range []int64{9, 10, 11} {
		drv := sp(fmt.Sprint("d", i, ".drv"))
		cut, err := r.archiveLog(b, drv, log, limit)
		text, readErr := os.ReadFile(filepath.Join(dir, "cache/log", string(drv)))
		if errors.Join(err, readErr) != nil || cut != (limit < 10) || string(text) != "0123456789"[:min(limit, 10)] {
			t.Errorf("limit %d: %q, cut off: %v, %v, %v", limit, text, cut, err, readErr)
		}
	}
}

// TestCopyLogs copies a release with its build log; a symlink in place of a log
// is not followed.
func TestCopyLogs(t *testing.T) {
	store, req := hydraScene(t)
	drv := req.Record.Roots[0].DrvPath
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte("built"), 0o644); err != nil {
		t.Fatal(err)
	}
	req.Logs = map[storepath.Path]string{drv: log}
	mustRun(t, filepath.Join(dir, "one"), store, req)
	b := mustOpen(t, filepath.Join(dir, "one"))
	copied := filepath.Join("cache/log", string(drv))
	if _, err := Copy(t.Context(), filepath.Join(dir, "two"), FromCache(b, false), req.Release, Request{}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "two", copied)); err != nil || string(text) != "built" {
		t.Errorf("the log has become %q, %v", text, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "one", copied)), os.Symlink(log, filepath.Join(dir, "one", copied))); err != nil {
		t.Fatal(err)
	}
	r, err := Copy(t.Context(), filepath.Join(dir, "three"), FromCache(b, false), req.Release, Request{})
	if err != nil {
		t.Fatal(err)
	}
	if backuptest.Exists(filepath.Join(dir, "three", copied)) || !strings.Contains(strings.Join(r.Warnings, "\n"), "is left out") {
		t.Errorf("a symlink has become a log; warnings are %q", r.Warnings)
	}
}

// TestCrashRecord cuts the power at each operation while a release of Hydra's is
// updated: its rows are the old ones or the new, and so is its log.
func TestCrashRecord(t *testing.T) {
	store, req := hydraScene(t)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("built"), 0o644); err != nil {
		t.Fatal(err)
	}
	next := req
	next.Hydra, next.Logs = []byte(`{"version": 1, "tables": {}}`), map[storepath.Path]string{req.Record.Roots[0].DrvPath: log}
	for op := 1; ; op++ {
		dir := filepath.Join(t.TempDir(), "backup")
		if _, err := run(t.Context(), backuptest.Memory{}, dir, store, req); err != nil {
			t.Fatal(err)
		}
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		_, err := run(t.Context(), fs, dir, store, next)
		if err == nil {
			t.Logf("%d operations", op-1)
			return
		}
		fs.Crash()
		backuptest.CheckWhole(t, dir, "hello/hello-1.0")
		rows, err := os.ReadFile(filepath.Join(dir, "releases/hello/hello-1.0/hydra.json"))
		if err != nil || !bytes.Equal(rows, req.Hydra) && !bytes.Equal(rows, next.Hydra) {
			t.Errorf("after a crash at operation %d, hydra.json has %q, %v", op, rows, err)
		}
		archived := filepath.Join(dir, "cache/log", string(req.Record.Roots[0].DrvPath))
		if text, err := os.ReadFile(archived); err == nil && string(text) != "built" {
			t.Errorf("after a crash at operation %d, the log has %q", op, text)
		}
		if _, err := run(t.Context(), backuptest.Memory{}, dir, store, next); err != nil {
			t.Errorf("after a crash at operation %d: %v", op, err)
		}
		backuptest.CheckNoTemp(t, filepath.Join(dir, "cache/log"))
	}
}
