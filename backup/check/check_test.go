package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread"
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
		if found := r.Counts[Damage]+r.Counts[Warning] > 0; !found && !isOptional && path.Ext(name) != lsExt {
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

// What was verified longest ago is read first, and remembered.
func TestOldestFirst(t *testing.T) {
	s := newScene(t)
	seen := make(map[string]bool)
	for range 3 {
		r := s.check(Options{ReadData: Selection{Percent: 0.001}})
		if r.ReadData.NarFiles != 1 || r.ReadData.Left != 2 {
			t.Fatalf("%+v", r.ReadData)
		}
		for url := range readMemory(s.path(memoryFile)) {
			seen[url] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("three checks of one file each read %v", seen)
	}
	// The oldest of all is the next.
	text := memoryHeader + "\n"
	for i, url := range slices.Sorted(maps.Keys(seen)) {
		text += fmt.Sprintf("%d %s\n", 1000-i, url)
	}
	s.write(memoryFile, text)
	oldest := slices.Max(slices.Collect(maps.Keys(seen)))
	r := s.check(Options{ReadData: Selection{Percent: 1}})
	if got := readMemory(s.path(memoryFile))[oldest]; time.Since(got) > time.Minute {
		t.Errorf("%s was not read, but verified last at %v", oldest, got)
	}
	if r.ReadData.Oldest == nil || r.ReadData.Oldest.Unix() != 999 {
		t.Errorf("oldest is %v", r.ReadData.Oldest)
	}
}

// The memory may hold anything: it is then as if there were none.
func TestBadMemory(t *testing.T) {
	s := newScene(t)
	for _, text := range []string{"", "x", memoryHeader + "\nx\n\n1\n-5 nar/x\n99999999999 nar/y", strings.Repeat("x", 1<<17)} {
		s.write(memoryFile, text)
		if r := s.check(all); r.ReadData.NarFiles != 3 || r.Counts[Damage]+r.Counts[Note] > 0 {
			t.Errorf("%.20q: %+v", text, r)
		}
		if got := len(readMemory(s.path(memoryFile))); got != 3 {
			t.Errorf("%.20q: %d files remembered", text, got)
		}
	}
	s.remove(memoryFile)
	must(t, os.Symlink("/dev/zero", s.path(memoryFile)))
	s.check(all).want(t)
}

func TestSelection(t *testing.T) {
	for text, want := range map[string]Selection{
		"": {All: true}, "all": {All: true}, "10%": {Percent: 10}, "0.5%": {Percent: 0.5}, "2/7": {Part: 2, Parts: 7}, "30m": {Budget: 30 * time.Minute},
	} {
		if got, err := ParseSelection(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"x", "0%", "101%", "-1%", "NaN%", "%", "0/7", "8/7", "1/", "/", "1/x", "0s", "-1m", "30"} {
		if got, err := ParseSelection(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	// The parts together are all, and no file is in two.
	var nars []*narFile
	for i := range 1000 {
		nars = append(nars, &narFile{url: fmt.Sprint("nar/", i), size: int64(i)})
	}
	count := 0
	for part := 1; part <= 7; part++ {
		n := len(Selection{Part: part, Parts: 7}.choose(nars, nil))
		if n < 100 || n > 190 {
			t.Errorf("part %d has %d of 1000 files", part, n)
		}
		count += n
	}
	if count != 1000 {
		t.Errorf("all parts have %d of 1000 files", count)
	}
	var size int64
	for _, n := range (Selection{Percent: 10}).choose(nars, nil) {
		size += n.size
	}
	if size < 49950 || size > 51000 {
		t.Errorf("10%% are %d of 499500 bytes", size)
	}
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

// When the time is up, no NAR file is begun.
func TestBudget(t *testing.T) {
	s := newScene(t)
	r := s.check(Options{ReadData: Selection{Budget: time.Nanosecond}})
	r.want(t)
	if r.ReadData.NarFiles > 1 || r.ReadData.NarFiles+r.ReadData.Left != 3 {
		t.Errorf("%+v", r.ReadData)
	}
	if r = s.check(Options{ReadData: Selection{Budget: time.Hour}}); r.ReadData.NarFiles != 3 {
		t.Errorf("%+v", r.ReadData)
	}
}

// What cannot be read is not called damaged. The kernel refuses to read where a
// process has no memory.
func TestUnreadable(t *testing.T) {
	s := newScene(t)
	c := &checker{o: &Options{}, table: newTable(nil)}
	c.o.applyDefaults()
	b, err := backup.Open(s.dir, openOptions())
	must(t, err)
	defer b.Close()
	c.b, c.cache = b, b.Cache
	info, err := b.Cache.Lookup(s.lib)
	must(t, err)
	mem, err := os.Open("/proc/self/mem")
	must(t, err)
	defer mem.Close()
	e := &examination{c: c, n: &narFile{url: "nar/x"}, claim: claim{"zstd", info.FileHash, info.FileSize, info.NarHash, info.NarSize}, file: "nar/x"}
	e.run(t.Context(), mem, info.FileSize)
	if len(e.out) != 1 || e.out[0].Severity != Unreadable || !strings.Contains(e.out[0].Message, "input/output error") {
		t.Errorf("%+v", e.out)
	}
	for err, want := range map[error]Severity{
		&fs.PathError{Err: syscall.EIO}: Unreadable, &fs.PathError{Err: syscall.EACCES}: Unreadable, syscall.ESTALE: Unreadable,
		&fs.PathError{Err: syscall.EISDIR}: Damage, syscall.ELOOP: Damage, errors.New("path escapes from parent"): Damage,
		&narread.DamageError{Err: io.ErrUnexpectedEOF}: Damage,
	} {
		if got := severityOf(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// TestSource reads a file in every order of its pieces: the hash is that of the
// file, and each byte is counted once.
func TestSource(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	data := bytes.Repeat([]byte("0123456789"), 100)
	must(t, os.WriteFile(name, data, 0o644))
	h, _ := newFileHash("")
	h.Write(data)
	want := h.Sum(nil)
	for _, order := range [][]int64{{0, 250, 500, 750}, {750, 0, 500, 250}, {500, 250}, {}, {0, 0, 250, 750, 750, 100}, {900, 100, 1}} {
		f, err := os.Open(name)
		must(t, err)
		read := 0
		h, _ := newFileHash("")
		s := newSource(f, int64(len(data)), h, func(n int) { read += n })
		for _, off := range order {
			p := make([]byte, 250)
			if n, err := s.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
				t.Errorf("read at %d: %d, %v", off, n, err)
			}
		}
		must(t, s.finish())
		if !bytes.Equal(h.Sum(nil), want) || read != len(data) || s.held != 0 {
			t.Errorf("%v: hash %x, read %d bytes, held %d", order, h.Sum(nil), read, s.held)
		}
		must(t, f.Close())
	}
}

// Signatures and content addresses that Nix makes are right.
func TestNixSignsAndAddresses(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "user"))
	nix := func(name string, args ...string) string {
		return strings.TrimSpace(testenv.Run(t, dir, name, args...))
	}
	must(t, os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "sub", "file"), []byte("text\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "flat"), bytes.Repeat([]byte("text\n"), 1000), 0o644))
	top := build(t, "testdata/small.nix")
	rewritten := nix("nix", "--extra-experimental-features", "ca-derivations", "store", "make-content-addressed", "--json", top)
	var made struct{ Rewrites map[string]string }
	must(t, json.Unmarshal([]byte(rewritten), &made))
	paths := []string{
		nix("nix-store", "--add", "tree"), nix("nix-store", "--add-fixed", "sha256", "flat"), nix("nix-store", "--add-fixed", "md5", "flat"),
		nix("nix-store", "--add-fixed", "--recursive", "sha1", "tree"), made.Rewrites[top],
	}
	cache := filepath.Join(dir, "cache")
	nix("nix", append([]string{"copy", "--to", "file://" + cache + "?compression=zstd&write-nar-listing=true"}, paths...)...)
	nix("nix-store", "--generate-binary-cache-key", "test-2", "secret", "public")
	nix("nix", append([]string{"store", "sign", "--store", "file://" + cache, "--key-file", "secret"}, paths...)...)
	text, err := os.ReadFile(filepath.Join(dir, "public"))
	must(t, err)
	key, err := signature.ParsePublicKey(string(text))
	must(t, err)
	o := all
	o.TrustedKeys = []signature.PublicKey{key}
	r, err := Run(t.Context(), cache, o)
	must(t, err)
	r.want(t)
	if r.StorePaths < len(paths) {
		t.Errorf("%d store paths", r.StorePaths)
	}
	for _, p := range paths {
		name := filepath.Join(cache, filepath.Base(p)[:32]+narInfoExt)
		text, err := os.ReadFile(name)
		must(t, err)
		if !bytes.Contains(text, []byte("\nCA: ")) {
			t.Errorf("%s has no content address:\n%s", p, text)
		}
	}
	// The content of one under the address of another.
	spoil(t, cache, paths[1], "CA: fixed:sha256:", "CA: fixed:r:sha256:")
	spoil(t, cache, paths[4], "Sig: test-2:", "Sig: test-2:A")
	r, err = Run(t.Context(), cache, o)
	must(t, err)
	base := func(p string) string { return filepath.Base(p)[:32] + narInfoExt }
	r.want(t, "damage content-address "+base(paths[1]), "damage content-address "+base(paths[1]), "warning narinfo-odd "+base(paths[4]))
}

func spoil(t *testing.T, cache, path, old, new string) {
	t.Helper()
	name := filepath.Join(cache, filepath.Base(path)[:32]+narInfoExt)
	text, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	must(t, os.WriteFile(name, bytes.Replace(text, []byte(old), []byte(new), 1), 0o644))
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
		_, err := backup.Forget(ctx, s.dir, backup.ForgetRequest{Releases: []backup.ReleaseID{id}})
		if err != nil {
			return err
		}
		_, err = backup.GC(ctx, s.dir, backup.GCOptions{Now: true, NoReleases: true})
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
