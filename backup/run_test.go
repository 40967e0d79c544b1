package backup

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

func mustRun(t *testing.T, dir string, store Store, req Request) *Result {
	t.Helper()
	r, err := run(t.Context(), backuptest.Memory{}, dir, store, req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustOpen opens a backup until the test ends.
func mustOpen(t *testing.T, dir string) *Backup {
	t.Helper()
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// Store paths are stored once, and so are equal contents.
func TestDeduplication(t *testing.T) {
	store := backuptest.NewStore(t)
	a := store.Add("a", "content")
	b := store.Add("b", "content", a)
	c := store.Add("c", "content", b)
	d := store.Add("d", "other", c)
	dir := filepath.Join(t.TempDir(), "backup")
	first := mustRun(t, dir, store, request("one", a))
	if first.Write.Paths != 1 || first.Unchanged.Paths != 0 {
		t.Errorf("first run: %+v", first.Estimate)
	}
	second := mustRun(t, dir, store, request("two", d))
	if second.Write.Paths != 1 || second.Shared.Paths != 2 || second.Unchanged.Paths != 1 || second.Total.Paths != 4 {
		t.Errorf("second run: %+v", second.Estimate)
	}
	third := mustRun(t, dir, store, request("two", d))
	if third.Write.Paths != 0 || third.Unchanged.Paths != 4 || third.FileSize != 0 {
		t.Errorf("third run: %+v", third)
	}
	files, err := os.ReadDir(filepath.Join(dir, layout.CacheDir, bincache.NARDir))
	if err != nil || len(files) != 2 {
		t.Errorf("NAR files: %v, %v", files, err)
	}
	backuptest.CheckWhole(t, dir, "p/one", "p/two")
}

// Twins in one run: the second waits for the first.
func TestDeduplicationInOneRun(t *testing.T) {
	store := backuptest.NewStore(t)
	var twins []storepath.Path
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		twins = append(twins, store.Add(name, strings.Repeat("x", 1<<20)))
	}
	top := store.Add("top", "top", twins...)
	dir := filepath.Join(t.TempDir(), "backup")
	if r := mustRun(t, dir, store, request("r", top)); r.Write.Paths != 2 || r.Shared.Paths != 5 {
		t.Errorf("got %+v", r.Estimate)
	}
	backuptest.CheckWhole(t, dir, "p/r")
}

// The archived content of a store path stays, whatever the store says later.
func TestConflict(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("p.txt", "one")
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("r", p))
	before := store.Valid[p]
	if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	store.Register(p, nil)
	r := mustRun(t, dir, store, request("r", p))
	want := Conflict{Path: p, Archived: before.NarHash, Local: store.Valid[p].NarHash}
	if len(r.Conflicts) != 1 || r.Conflicts[0] != want || !r.Partial() {
		t.Errorf("got %+v, want %+v", r.Conflicts, want)
	}
	b := mustOpen(t, dir)
	if info, err := b.Cache.Lookup(p); err != nil || info.NarHash != before.NarHash {
		t.Errorf("archived now: %+v, %v", info, err)
	}
}

// What changed in the store after Nix registered it is not archived.
func TestChangedInStore(t *testing.T) {
	store := backuptest.NewStore(t)
	good := store.Add("good.txt", "good")
	p := store.Add("p.txt", "one", good)
	if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	_, err := run(t.Context(), backuptest.Memory{}, dir, store, request("r", p))
	var changed *ChangedError
	if !errors.As(err, &changed) || changed.Path != store.RealPath(p) || changed.Recorded != store.Valid[p].NarHash {
		t.Errorf("got %v", err)
	}
	if backuptest.Exists(filepath.Join(dir, layout.ReleasesDir, "p")) {
		t.Error("the release was recorded")
	}
	backuptest.CheckWhole(t, dir)
}

// A path that is deleted while it is read is an error that names it.
func TestDeletedWhileRead(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("p", "one")
	if err := os.RemoveAll(store.RealPath(p)); err != nil {
		t.Fatal(err)
	}
	_, err := run(t.Context(), backuptest.Memory{}, filepath.Join(t.TempDir(), "backup"), store, request("r", p))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), string(p)) {
		t.Errorf("got %v", err)
	}
}

// Unknown paths are named before anything is written.
func TestInvalidPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backup")
	_, err := run(t.Context(), backuptest.Memory{}, dir, backuptest.NewStore(t), request("r", sp("absent")))
	var invalid *nixstore.InvalidPathsError
	if !errors.As(err, &invalid) || backuptest.Exists(dir) {
		t.Errorf("got %v; written: %v", err, backuptest.Exists(dir))
	}
}

func TestInterrupted(t *testing.T) {
	store := backuptest.NewStore(t)
	var paths []storepath.Path
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		paths = append(paths, store.Add(name, strings.Repeat(name, 1<<20)))
	}
	top := store.Add("top", "top", paths...)
	dir := filepath.Join(t.TempDir(), "backup")
	ctx, cancel := context.WithCancel(t.Context())
	req := request("r", top)
	req.Progress.Archived = func(storepath.Path, int64) { cancel() }
	if _, err := run(ctx, backuptest.Memory{}, dir, &stuckStore{store, top}, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	backuptest.CheckWhole(t, dir)
	backuptest.CheckNoTemp(t, dir)
	if r := mustRun(t, dir, store, request("r", top)); r.Unchanged.Paths == 0 {
		t.Errorf("nothing was kept: %+v", r.Estimate)
	}
}

// A stuckStore never comes to the end of one store path: else all of them could
// be archived before an interruption is seen.
type stuckStore struct {
	*backuptest.Store
	at storepath.Path
}

func (s *stuckStore) Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error) {
	if p == s.at {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}
	return s.Store.Dump(ctx, w, p)
}

func TestLocked(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("p", "x")
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("r", p))
	held, err := lock.Take(t.Context(), dir, lock.Excluding, lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = run(t.Context(), backuptest.Memory{}, dir, store, request("r", p))
	var locked *lock.HeldError
	if !errors.As(err, &locked) || len(locked.Holders) != 1 || !strings.Contains(locked.Holders[0], "process ") {
		t.Errorf("got %v", err)
	}
	held.Close()
	mustRun(t, dir, store, request("r", p))
}

// Fields of a newer narvault survive, and the description too.
func TestReleaseRecord(t *testing.T) {
	store := backuptest.NewStore(t)
	a, b := store.Add("a", "a"), store.Add("b", "b")
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("r", a)
	req.Description = "the first"
	mustRun(t, dir, store, req)
	name := filepath.Join(dir, layout.ReleasesDir, "p", "r", layout.ReleaseFile)
	var record map[string]any
	backuptest.ReadJSON(t, name, &record)
	record["future"] = map[string]any{"x": 1.0}
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := (disk.WriteFile(backuptest.Memory{}, name, text)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, store, request("r", b))
	record = nil
	backuptest.ReadJSON(t, name, &record)
	if record["description"] != "the first" || record["future"] == nil || record["paths"] != 1.0 {
		t.Errorf("got %v", record)
	}
	// An unchanged release is not written again: previous/ would lose its worth.
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, store, request("r", b))
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) {
		t.Errorf("the record was written again (%v)", err)
	}
}

// A damaged narinfo or a missing NAR file is mended by the next backup.
func TestHeal(t *testing.T) {
	for name, damage := range map[string]func(cache string) error{
		"narinfo": func(cache string) error {
			files, _ := filepath.Glob(cache + "/*.narinfo")
			return os.Truncate(files[0], 20)
		},
		"NAR": func(cache string) error {
			files, _ := filepath.Glob(cache + "/nar/*")
			return os.Remove(files[0])
		},
		"short NAR": func(cache string) error {
			files, _ := filepath.Glob(cache + "/nar/*")
			return os.Truncate(files[0], 20)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, store, top := backedUp(t, "zstd")
			if err := damage(filepath.Join(dir, layout.CacheDir)); err != nil {
				t.Fatal(err)
			}
			r := mustRun(t, dir, store, request("r", top))
			if len(r.Healed) != 1 {
				t.Errorf("healed: %v", r.Healed)
			}
			backuptest.CheckWhole(t, dir, "p/r")
		})
	}
}

func TestCompressionSettings(t *testing.T) {
	store := backuptest.NewStore(t)
	a, b := store.Add("a", "a"), store.Add("b", "b")
	dir := filepath.Join(t.TempDir(), "backup")
	req := request("a", a)
	req.Compression = "none"
	mustRun(t, dir, store, req)
	mustRun(t, dir, store, request("b", b)) // as the backup was made
	if files, _ := filepath.Glob(dir + "/cache/nar/*.nar"); len(files) != 2 {
		t.Errorf("NAR files: %v", files)
	}
	backuptest.CheckWhole(t, dir, "p/a", "p/b")
}

// Content that is shared is read first: a damaged NAR file gets no second user
// but is written again.
func TestSharedContentIsVerified(t *testing.T) {
	for _, offset := range []int64{30, -60} { // in the first frame, and in the last
		store := backuptest.NewStore(t)
		content := strings.Repeat("0123456789abcdef", 40_000)
		a := store.Add("a", content)
		b := store.Add("b", content)
		dir := filepath.Join(t.TempDir(), "backup")
		mustRun(t, dir, store, request("a", a))
		files, err := filepath.Glob(filepath.Join(dir, layout.CacheDir, bincache.NARDir, "*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		data, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		data[(int64(len(data))+offset)%int64(len(data))] ^= 1
		if err := os.WriteFile(files[0], data, 0o644); err != nil {
			t.Fatal(err)
		}
		r := mustRun(t, dir, store, request("b", b))
		if len(r.Healed) != 1 {
			t.Errorf("offset %d: healed %v", offset, r.Healed)
		}
		backuptest.CheckWhole(t, dir, "p/a", "p/b")
	}
}

// After a conflict the release has what the archived path needs.
func TestConflictKeepsReleaseWhole(t *testing.T) {
	store := backuptest.NewStore(t)
	lib, other := store.Add("lib", "lib"), store.Add("other", "other")
	p := store.Add("p.txt", "one", lib)
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("r", p))
	if err := os.WriteFile(store.RealPath(p), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	store.Register(p, []storepath.Path{other})
	if r := mustRun(t, dir, store, request("r2", p)); len(r.Conflicts) != 1 {
		t.Errorf("got %+v", r.Conflicts)
	}
	b := mustOpen(t, dir)
	paths, err := b.Closure(ReleaseID{"p", "r2"})
	if err != nil || len(paths) != 3 {
		t.Errorf("closure: %v, %v", paths, err)
	}
	if _, err := b.NewExport(paths); err != nil {
		t.Error(err)
	}
	backuptest.CheckWhole(t, dir, "p/r", "p/r2")
}

// What was finished before an error is not done again, whatever it waited for.
func TestFinishedNARsAreKept(t *testing.T) {
	store := backuptest.NewStore(t)
	bad := store.Add("bad.txt", "one")
	paths := []storepath.Path{bad}
	for _, name := range []string{"c", "d"} {
		paths = append(paths, store.Add(name, strings.Repeat(name, 1<<20), bad))
	}
	top := store.Add("top", "top", paths...)
	if err := os.WriteFile(store.RealPath(top)+"/content", []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	if _, err := run(t.Context(), backuptest.Memory{}, dir, store, request("r", top)); err == nil {
		t.Fatal("a changed path was archived")
	}
	backuptest.CheckNoTemp(t, dir)
	finished, err := newJournal(disk.OS{}, dir).load()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, layout.CacheDir, bincache.NARDir, "*"))
	if err != nil || len(files) != len(finished) {
		t.Errorf("NAR files %v, journal %v (%v)", files, finished, err)
	}
}

// A record that is damaged, or half a crash's, does not replace a good previous
// one.
func TestPreviousStaysGood(t *testing.T) {
	store := backuptest.NewStore(t)
	a := store.Add("a", "a")
	b := store.Add("b", "b", a)
	c := store.Add("c", "c", b)
	dir := filepath.Join(t.TempDir(), "backup")
	release := filepath.Join(dir, layout.ReleasesDir, "p", "r")
	for name, damage := range map[string]func() error{
		"release.json": func() error { return os.WriteFile(release+"/release.json", []byte("{"), 0o644) },
		"closure.txt":  func() error { return os.Truncate(release+"/closure.txt", 0) },
		"half of a crash": func() error {
			return os.WriteFile(release+"/closure.txt", formatClosure([]storepath.Path{a}, store.Dir()), 0o644)
		},
	} {
		mustRun(t, dir, store, request("r", a))
		mustRun(t, dir, store, request("r", b)) // previous is a
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		mustRun(t, dir, store, request("r", c))
		text, err := os.ReadFile(release + "/previous/closure.txt")
		if want := formatClosure([]storepath.Path{a}, store.Dir()); err != nil || string(text) != string(want) {
			t.Errorf("%s: previous is %q, %v", name, text, err)
		}
		backuptest.CheckWhole(t, dir, "p/r")
	}
}

// A backup on a hostile medium does not make us write elsewhere.
func TestSymlinksAreNotFollowed(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("p", "x")
	for _, name := range []string{layout.LockFile, layout.LocksDir, layout.JournalFile, layout.ReleasesDir + "/p", layout.ReleasesDir, layout.CacheDir + "/nar", layout.CacheDir} {
		dir := filepath.Join(t.TempDir(), "backup")
		mustRun(t, dir, store, request("r", p))
		outside := t.TempDir()
		victim := filepath.Join(outside, "victim")
		if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
		target := outside
		if name == layout.LockFile || name == layout.JournalFile {
			target = victim
		}
		os.RemoveAll(filepath.Join(dir, name))
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		q := store.Add("q-"+filepath.Base(name), "y "+name)
		if _, err := run(t.Context(), disk.OS{}, dir, store, request("q", q)); err == nil {
			t.Errorf("%s: a symlink was followed", name)
		}
		entries, err := os.ReadDir(outside)
		text, _ := os.ReadFile(victim)
		if err != nil || len(entries) != 1 || string(text) != "precious" {
			t.Errorf("%s: outside there is %v, %q", name, entries, text)
		}
	}
}

// A file that is called lock and is not ours stays as it is.
func TestForeignLockFile(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("p", "x")
	dir := t.TempDir()
	name := filepath.Join(dir, layout.LockFile)
	if err := os.WriteFile(name, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := run(t.Context(), backuptest.Memory{}, dir, store, request("r", p))
	if text, _ := os.ReadFile(name); err == nil || string(text) != "precious" {
		t.Errorf("it is %q now, %v", text, err)
	}
}

// Where the release cannot be recorded, nothing is copied first.
func TestReleaseNotWritable(t *testing.T) {
	store := backuptest.NewStore(t)
	p, q := store.Add("p", "x"), store.Add("q", "y")
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("r", p))
	if err := os.WriteFile(filepath.Join(dir, layout.ReleasesDir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	req := request("r", q)
	req.Release = ReleaseID{"x", "r"}
	if _, err := run(t.Context(), backuptest.Memory{}, dir, store, req); err == nil {
		t.Fatal("a file was taken for a project")
	}
	if files, _ := filepath.Glob(filepath.Join(dir, layout.CacheDir, bincache.NARDir, "*")); len(files) != 1 {
		t.Errorf("NAR files: %v", files)
	}
}

// Pipes in place of files make nobody wait.
func TestPipes(t *testing.T) {
	for _, name := range []string{layout.LockFile, layout.JournalFile, layout.ConfigFile, "releases/p/r/closure.txt", "releases/p/r/release.json"} {
		dir, store, top := backedUp(t, "zstd")
		file := filepath.Join(dir, name)
		os.Remove(file)
		if err := syscall.Mkfifo(file, 0o644); err != nil {
			t.Fatal(err)
		}
		// An error or not: it ends.
		_, err := run(t.Context(), backuptest.Memory{}, dir, store, request("r", top))
		t.Logf("%s: %v", name, err)
		b, err := Open(dir, bincache.Options{})
		if err != nil {
			continue
		}
		b.Closure(ReleaseID{"p", "r"})
		b.Release(ReleaseID{"p", "r"})
		b.Close()
	}
}
