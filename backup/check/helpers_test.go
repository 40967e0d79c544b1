package check

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// A scene is a backup of the closure in testdata/small.nix, and what is in it.
type scene struct {
	t                    testing.TB
	dir                  string
	top, lib, twin, note storepath.Path
	dump                 string // of a database, where there is one
}

// The backup is made once, and copied for every test.
var pristine struct {
	once sync.Once
	dir  string
	top  string // the store path
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(pristine.dir)
	os.Exit(code)
}

// build returns a store path that Nix has built from an expression.
func build(t testing.TB, expr string) string {
	t.Helper()
	return strings.TrimSpace(testenv.Run(t, "", "nix-build", "--no-out-link", expr))
}

// backUp makes a release of store paths of the real Nix store.
func backUp(t testing.TB, dir, release, description string, roots ...string) {
	t.Helper()
	store, err := nixstore.Open(t.Context(), nixstore.Options{Env: testenv.NixEnv(t)})
	must(t, err)
	defer store.Close()
	id, err := backup.ParseReleaseID(release)
	must(t, err)
	req := backup.Request{Release: id, Description: description, Compression: "zstd", Level: 19}
	for _, root := range roots {
		p, err := store.Resolve(root)
		must(t, err)
		req.Roots = append(req.Roots, p)
	}
	_, err = backup.Run(t.Context(), dir, store, req)
	must(t, err)
}

func newScene(t testing.TB) *scene {
	t.Helper()
	testenv.Need(t, "nix")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	pristine.once.Do(func() {
		dir, err := os.MkdirTemp("", "narvault-check-test-")
		must(t, err)
		pristine.dir = dir
		pristine.top = build(t, "testdata/small.nix")
		backUp(t, filepath.Join(dir, "backup"), "demo/one", "one", pristine.top)
		backUp(t, filepath.Join(dir, "backup"), "demo/one", "again, so that there is a record before", pristine.top)
	})
	if pristine.top == "" {
		t.Fatal("the backup could not be made")
	}
	s := &scene{t: t, dir: filepath.Join(t.TempDir(), "backup")}
	must(t, os.CopyFS(s.dir, os.DirFS(filepath.Join(pristine.dir, "backup"))))
	s.findPaths()
	return s
}

// findPaths sets the store paths by their names.
func (s *scene) findPaths() {
	paths := backuptest.Paths(s.t, s.dir)
	s.top, s.lib, s.twin, s.note = paths["top"], paths["lib"], paths["twin"], paths["note"]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// narInfo returns the name of a narinfo, relative to the backup.
func narInfo(p storepath.Path) string { return "cache/" + p.Hash() + bincache.NarInfoExt }

// nar returns the name of the NAR file of a store path, relative to the backup.
func (s *scene) nar(p storepath.Path) string {
	return "cache/" + s.field(p, "URL: ")
}

// field returns the value of a field of a narinfo.
func (s *scene) field(p storepath.Path, key string) string {
	s.t.Helper()
	_, rest, _ := strings.Cut(s.read(narInfo(p)), "\n"+key)
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// exchange gives the narinfo of top a field of lib's.
func (s *scene) exchange(key string) {
	s.t.Helper()
	s.edit(narInfo(s.top), key+s.field(s.top, key), key+s.field(s.lib, key))
}

func (s *scene) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	must(s.t, err)
	return string(text)
}

// write writes a file, as if it had been so for an hour.
func (s *scene) write(name, text string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
	must(s.t, os.WriteFile(s.path(name), []byte(text), 0o644))
	hourAgo := time.Now().Add(-time.Hour)
	must(s.t, os.Chtimes(s.path(name), hourAgo, hourAgo))
}

// edit replaces the first occurrence of old in a file, which must have one.
func (s *scene) edit(name, old, new string) {
	s.t.Helper()
	text := s.read(name)
	if !strings.Contains(text, old) {
		s.t.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	s.write(name, strings.Replace(text, old, new, 1))
}

func (s *scene) remove(name string) {
	s.t.Helper()
	must(s.t, os.RemoveAll(s.path(name)))
}

// all reads all NAR files.
var all = Options{ReadData: Selection{All: true}}

func (s *scene) check(o Options) *Report {
	s.t.Helper()
	r, err := Run(s.t.Context(), s.dir, o)
	must(s.t, err)
	return r
}

// want compares the findings, notes left out unless they are wanted, with
// wanted kinds and files.
func (r *Report) want(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	for _, f := range r.Findings {
		text := string(f.Severity) + " " + string(f.Kind) + " " + f.File
		if f.Severity != Note || slices.Contains(want, text) {
			got = append(got, text)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("findings are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		for _, f := range r.Findings {
			t.Logf("%+v", f)
		}
	}
}

// flipAt changes one bit of a file.
func (s *scene) flipAt(name string, offset int) {
	text := []byte(s.read(name))
	text[offset] ^= 0x10
	s.write(name, string(text))
}

// replace gives a store path another NAR, not packed, with a narinfo that fits.
func (s *scene) replace(p storepath.Path, nar string) {
	s.t.Helper()
	sum := narinfo.Hash(sha256.Sum256([]byte(nar)))
	b, err := backup.Open(s.dir, openOptions())
	must(s.t, err)
	defer b.Close()
	info, err := b.Cache.Lookup(p)
	must(s.t, err)
	info.URL, info.Compression = "nar/"+sum.Nix32()+".nar", "none"
	info.FileHash, info.FileSize = sum.String(), int64(len(nar))
	info.NarHash, info.NarSize = sum, int64(len(nar))
	s.write("cache/"+info.URL, nar)
	s.write(narInfo(p), string(info.Bytes()))
}

// str is a string in a NAR.
func str(s string) string {
	var b []byte
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	b = append(b, s...)
	return string(append(b, make([]byte, -len(s)&7)...))
}

func strs(words ...string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(str(w))
	}
	return b.String()
}

// unsortedNAR is a NAR that Nix 2.8 restores and newer ones refuse.
var unsortedNAR = strs("nix-archive-1", "(", "type", "directory",
	"entry", "(", "name", "b", "node", "(", "type", "symlink", "target", "x", ")", ")",
	"entry", "(", "name", "a", "node", "(", "type", "symlink", "target", "x", ")", ")", ")")

// indexWithout builds the index while a store path is not there.
func (s *scene) indexWithout(p storepath.Path) {
	s.t.Helper()
	text := s.read(narInfo(p))
	s.remove(narInfo(p))
	b, err := backup.Open(s.dir, openOptions())
	must(s.t, err)
	defer b.Close()
	_, err = b.BuildIndex(s.t.Context(), s.path("index"), true, index.BuildOptions{})
	must(s.t, err)
	s.write(narInfo(p), text)
}
