package repair

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// A scene is a backup of the closure of the check's tests, to be damaged.
type scene struct {
	*testing.T
	dir                  string
	top, lib, twin, note storepath.Path
}

var pristine struct {
	once sync.Once
	dir  string
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(pristine.dir)
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T) *nixstore.Store {
	t.Helper()
	store, err := nixstore.Open(t.Context(), nixstore.Options{Env: testenv.NixEnv(t)})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	return store
}

// whole is the backup before any damage.
func whole() string { return filepath.Join(pristine.dir, "backup") }

func newScene(t *testing.T) *scene {
	t.Helper()
	testenv.Need(t, "nix")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	pristine.once.Do(func() {
		dir, err := os.MkdirTemp("", "narvault-repair-test-")
		must(t, err)
		pristine.dir = dir
		store := openStore(t)
		top := strings.TrimSpace(testenv.Run(t, "", "nix-build", "--no-out-link", "../check/testdata/small.nix"))
		p, err := store.Resolve(top)
		must(t, err)
		for _, description := range []string{"one", "again, so that there is a record before"} {
			_, err = backup.Run(t.Context(), whole(), store, backup.Request{
				Release: backup.ReleaseID{Project: "demo", Name: "one"}, Description: description, Roots: []storepath.Path{p},
			})
			must(t, err)
		}
		_, err = check.Run(t.Context(), whole(), check.Options{ReadData: check.Selection{All: true}})
		must(t, err)
	})
	s := &scene{T: t, dir: filepath.Join(t.TempDir(), "backup")}
	must(t, os.CopyFS(s.dir, os.DirFS(whole())))
	paths := backuptest.Paths(t, s.dir)
	s.top, s.lib, s.twin, s.note = paths["top"], paths["lib"], paths["twin"], paths["note"]
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) read(name string) string {
	s.Helper()
	text, err := os.ReadFile(s.path(name))
	must(s, err)
	return string(text)
}

func (s *scene) write(name, text string) {
	s.Helper()
	must(s, os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
	must(s, os.WriteFile(s.path(name), []byte(text), 0o644))
	hourAgo := time.Now().Add(-time.Hour)
	must(s, os.Chtimes(s.path(name), hourAgo, hourAgo))
}

func (s *scene) edit(name, old, new string) {
	s.Helper()
	text := s.read(name)
	if !strings.Contains(text, old) {
		s.Fatalf("%s has no %q", name, old)
	}
	s.write(name, strings.Replace(text, old, new, 1))
}

func (s *scene) flip(name string, offset int) {
	s.Helper()
	text := []byte(s.read(name))
	text[offset] ^= 0x10
	s.write(name, string(text))
}

func (s *scene) remove(names ...string) {
	s.Helper()
	for _, name := range names {
		must(s, os.RemoveAll(s.path(name)))
	}
}

func narInfo(p storepath.Path) string { return "cache/" + p.Hash() + bincache.NarInfoExt }

func (s *scene) nar(p storepath.Path) string {
	_, rest, _ := strings.Cut(s.read(narInfo(p)), "URL: ")
	url, _, _ := strings.Cut(rest, "\n")
	return "cache/" + url
}

// tree has the content of each file, without what is made anew all the time.
func tree(t testing.TB, dir string, without ...string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, name)
		must(t, err)
		if first, _, _ := strings.Cut(rel, "/"); slices.Contains(without, first) {
			return nil
		}
		if !d.Type().IsRegular() {
			files[rel] = d.Type().String()
			return nil
		}
		text, err := os.ReadFile(name)
		must(t, err)
		files[rel] = string(text)
		return nil
	}))
	return files
}

// derived are what a repair may change though all is as before.
var derived = []string{"index", "trash", "locks", "lock", "verified"}

func diff(a, b map[string]string) (names []string) {
	for name, text := range a {
		if other, found := b[name]; !found || other != text {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, found := a[name]; !found {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A source says what there is to repair from.
type source int

const (
	itself source = 1 << iota
	store         // the local Nix store
	copied        // a copy of the backup
	packed        // another cache with the same content, packed otherwise
)

func (s *scene) options(from source) (o Options) {
	o.Check.ReadData.All = true
	if from&store != 0 {
		o.Request.Store = openStore(s.T)
	}
	if from&copied != 0 {
		o.Request.From = append(o.Request.From, s.open(whole()))
	}
	if from&packed != 0 {
		o.Request.From = append(o.Request.From, s.open(s.packed()))
	}
	return o
}

func (s *scene) open(dir string) *backup.Backup {
	b, err := backup.Open(dir, bincache.Options{})
	must(s, err)
	s.Cleanup(func() { b.Close() })
	return b
}

// packed makes a copy of the backup that is packed otherwise.
func (s *scene) packed() string {
	dir := filepath.Join(s.TempDir(), "packed")
	_, err := backup.Copy(s.Context(), dir, backup.FromCache(s.open(whole()), false), backup.ReleaseID{Project: "demo", Name: "one"},
		backup.Request{Compression: "xz"})
	must(s, err)
	return dir
}

func (s *scene) repair(o Options) *Report {
	s.Helper()
	r, err := Run(s.Context(), s.dir, o)
	must(s, err)
	return r
}

func (s *scene) check() *check.Report {
	s.Helper()
	r, err := check.Run(s.Context(), s.dir, check.Options{ReadData: check.Selection{All: true}})
	must(s, err)
	return r
}

// A harm is a damage, and the sources that mend it.
type harm struct {
	name string
	do   func(s *scene)
	by   []source // each alone mends it
	// other are files that are not, byte by byte, as before: they are packed
	// otherwise, or say so.
	other func(s *scene) []string
	// gone are files that are in quarantine in the end: nothing is lost with them.
	gone []string
}

const one = "releases/demo/one/"

// anyCopy is whatever has the NAR files.
var anyCopy = []source{store, copied}

var harms = []harm{
	{name: "no nix-cache-info", do: func(s *scene) { s.remove("cache/nix-cache-info") }, by: []source{itself}},
	{name: "nix-cache-info of another store", do: func(s *scene) { s.edit("cache/nix-cache-info", "/nix/store", "/gnu/store") }, by: []source{itself}},
	{name: "nix-cache-info with a wrong priority", do: func(s *scene) { s.edit("cache/nix-cache-info", "30", "much") }, by: []source{itself}},
	{name: "no directory for realisations", do: func(s *scene) { s.remove("cache/realisations") }, by: []source{itself}},
	{name: "a file instead of a directory", do: func(s *scene) { s.remove("cache/log"); s.write("cache/log", "x") }, by: []source{itself}},
	{name: "directory leads out", do: func(s *scene) { s.remove("cache/log"); must(s, os.Symlink("/etc", s.path("cache/log"))) }, by: []source{itself}},
	{name: "narinfo truncated", do: func(s *scene) { must(s, os.Truncate(s.path(narInfo(s.lib)), 100)) }, by: []source{itself}},
	{name: "narinfo empty", do: func(s *scene) { s.write(narInfo(s.top), "") }, by: []source{itself}},
	{name: "narinfo of another path", do: func(s *scene) { s.write(narInfo(s.lib), s.read(narInfo(s.twin))) }, by: []source{itself}},
	{name: "narinfo leads out", do: func(s *scene) { s.edit(narInfo(s.lib), "URL: nar/", "URL: ../") }, by: []source{itself}},
	{name: "narinfo is a link", do: func(s *scene) {
		s.remove(narInfo(s.lib))
		must(s, os.Symlink("/etc/passwd", s.path(narInfo(s.lib))))
	}, by: []source{itself}},
	{name: "narinfo with a wrong FileHash", do: func(s *scene) { s.edit(narInfo(s.top), "FileHash: sha256:", "FileHash: sha257:") }, by: []source{itself}},
	{name: "a reference that was not there", do: func(s *scene) { s.edit(narInfo(s.lib), "References: ", "References: "+string(s.note)) }, by: []source{itself}},
	{name: "a reference by another name", do: func(s *scene) { s.edit(narInfo(s.top), string(s.lib), string(s.lib)+"2") }, by: []source{itself}},
	{name: "a narinfo is gone", do: func(s *scene) { s.remove(narInfo(s.lib)) }, by: []source{itself}},
	{name: "a narinfo is gone, and the index", do: func(s *scene) { s.remove(narInfo(s.lib), "index") }, by: []source{store}},
	{name: "all narinfos but one are gone", do: func(s *scene) { s.remove(narInfo(s.lib), narInfo(s.twin), narInfo(s.note)) }, by: []source{itself}},
	{name: "all narinfos but one are gone, and the index", do: func(s *scene) {
		s.remove(narInfo(s.lib), narInfo(s.twin), narInfo(s.note), "index")
	}, by: []source{store}},
	{name: "a narinfo and its NAR are gone", do: func(s *scene) { s.remove(s.nar(s.top), narInfo(s.top)) }, by: anyCopy},
	{name: "a narinfo and its listing and its NAR are gone", do: func(s *scene) {
		s.remove(s.nar(s.top), narInfo(s.top), "cache/"+s.top.Hash()+bincache.ListingExt)
	}, by: anyCopy},
	{name: "NAR file is gone", do: func(s *scene) { s.remove(s.nar(s.lib)) }, by: anyCopy},
	{name: "all NAR files are gone", do: func(s *scene) { s.remove("cache/nar") }, by: anyCopy},
	{name: "NAR file is longer", do: func(s *scene) { s.write(s.nar(s.top), s.read(s.nar(s.top))+"x") }, by: anyCopy},
	{name: "NAR file is shorter", do: func(s *scene) { s.write(s.nar(s.top), s.read(s.nar(s.top))[:50]) }, by: anyCopy},
	{name: "NAR file changed", do: func(s *scene) { s.flip(s.nar(s.lib), 20) }, by: anyCopy},
	{name: "NAR file is a link", do: func(s *scene) {
		name := s.nar(s.lib)
		s.remove(name)
		must(s, os.Symlink("/etc/passwd", s.path(name)))
	}, by: anyCopy},
	{name: "two NAR files swapped", do: func(s *scene) {
		a, b := s.read(s.nar(s.lib)), s.read(s.nar(s.top))
		s.write(s.nar(s.lib), b)
		s.write(s.nar(s.top), a)
	}, by: anyCopy},
	{name: "narinfos contradict each other", do: func(s *scene) { s.edit(narInfo(s.twin), "NarSize: ", "NarSize: 1") }, by: []source{itself}},
	{name: "NAR file changed, and another has the same NAR", do: func(s *scene) {
		nar := testenv.Run(s, "", "nix-store", "--dump", "/nix/store/"+string(s.twin))
		h := &hostile{scene: s}
		h.content(s.twin, nar, false)
		s.remove("index")
		s.flip(s.nar(s.lib), 20)
	}, by: []source{itself}, other: func(s *scene) []string {
		if s.nar(s.lib) != s.nar(s.twin) {
			s.Errorf("%s is not that of the twin, %s", s.nar(s.lib), s.nar(s.twin))
		}
		return []string{narInfo(s.lib), narInfo(s.twin)}
	}},
	{name: "container is another one", do: func(s *scene) { s.edit(narInfo(s.top), "zstd", "xz") }, by: []source{itself}},
	{name: "listing is no JSON", do: func(s *scene) { s.edit("cache/"+s.lib.Hash()+bincache.ListingExt, "{", "[") }, by: []source{itself}},
	{name: "listing is of another path", do: func(s *scene) {
		s.write("cache/"+s.lib.Hash()+bincache.ListingExt, s.read("cache/"+s.top.Hash()+bincache.ListingExt))
	}, by: []source{itself}},
	{name: "listing is gone", do: func(s *scene) { s.remove("cache/" + s.lib.Hash() + bincache.ListingExt) }, by: []source{itself}},
	{name: "listing is gone, and the index", do: func(s *scene) { s.remove("cache/"+s.lib.Hash()+bincache.ListingExt, "index") }, by: []source{itself}},
	{name: "listing of nothing", do: func(s *scene) { s.write("cache/"+strings.Repeat("0", 32)+bincache.ListingExt, "{}") }, by: []source{itself},
		gone: []string{"cache/" + strings.Repeat("0", 32) + bincache.ListingExt}},
	{name: "closure.txt is gone", do: func(s *scene) { s.remove(one + "closure.txt") }, by: []source{itself}},
	{name: "closure.txt is cut off", do: func(s *scene) { s.write(one+"closure.txt", s.read(one + "closure.txt")[:60]) }, by: []source{itself}},
	{name: "closure.txt lacks a line", do: func(s *scene) { s.edit(one+"closure.txt", "/nix/store/"+string(s.lib)+"\n", "") }, by: []source{itself}},
	{name: "closure.txt is gone, and what was before", do: func(s *scene) { s.remove(one+"closure.txt", one+"previous") }, by: []source{itself},
		gone: []string{one + "previous", one + "previous/closure.txt", one + "previous/release.json"}},
	{name: "release.json is damaged", do: func(s *scene) { s.edit(one+"release.json", "again", "Again") }, by: []source{copied}},
	{name: "release.json is gone", do: func(s *scene) { s.remove(one + "release.json") }, by: []source{copied}},
	{name: "the record before is damaged", do: func(s *scene) { s.edit(one+"previous/closure.txt", "/nix", "/nox") }, by: []source{itself},
		gone: []string{one + "previous/closure.txt"}},
	{name: "realisations", do: func(s *scene) {
		s.write("cache/realisations/sha256:3!out.doi", `{"id":"sha256:4!out","outPath":"`+string(s.lib)+`"}`)
		s.write("cache/debuginfo/3.debug", `{"archive":"../../../x","member":"x"}`)
		must(s, os.Mkdir(s.path("cache/log/x.drv"), 0o755))
	}, by: []source{itself}, gone: []string{"cache/debuginfo"}},
	{name: "the index is truncated", do: func(s *scene) { must(s, os.Truncate(s.path("index/gen-1/records/000001.sst"), 1000)) }, by: []source{itself}},
	{name: "the index has a flipped bit", do: func(s *scene) { s.flip("index/gen-1/records/000001.sst", 700) }, by: []source{itself}},
	{name: "narvault.json is no JSON", do: func(s *scene) { s.edit("narvault.json", "{", "[") }, by: []source{itself},
		other: func(s *scene) []string {
			for _, line := range strings.Split(s.read("narvault.json"), "\n") {
				if was, _ := os.ReadFile(filepath.Join(whole(), "narvault.json")); !strings.Contains(line, "created") && !strings.Contains(string(was), line) {
					s.Errorf("narvault.json has %q, was %s", line, was)
				}
			}
			return []string{"narvault.json"} // the time is that of the file
		}},
	{name: "another content address", do: func(s *scene) { s.edit(narInfo(s.note), "CA: text:sha256:", "CA: text:sha256:0") }, by: []source{itself}},
	{name: "the address of other content", do: func(s *scene) {
		s.edit(narInfo(s.note), "NarHash", "Deriver: "+string(s.top)+".drv\nNarHash")
		s.edit(narInfo(s.note), "References: ", "References: "+string(s.lib))
	}, by: []source{itself}},
	{name: "packed otherwise", do: func(s *scene) { s.flip(s.nar(s.top), 20) }, by: []source{packed}, other: func(s *scene) []string {
		return []string{narInfo(s.top)}
	}},
}

// TestMended repairs each damage from each source that has what it needs. The
// backup is then, byte by byte, what it was.
func TestMended(t *testing.T) {
	seen := make(map[check.Kind]bool)
	for _, h := range harms {
		for _, from := range h.by {
			t.Run(h.name, func(t *testing.T) {
				s := newScene(t)
				before := tree(t, s.dir, derived...)
				h.do(s)
				dry := s.options(from)
				dry.Request.DryRun = true
				harmed := tree(t, s.dir)
				if r := s.repair(dry); len(r.Remaining) > 0 {
					t.Errorf("the dry run says that damage would remain: %+v", r.Remaining)
				}
				if d := diff(harmed, tree(t, s.dir)); len(slices.DeleteFunc(d, func(n string) bool { return n == "verified" })) > 0 {
					t.Errorf("the dry run changed %q", d)
				}
				o := s.options(from)
				o.Checked = func(r *check.Report) {
					for _, f := range r.Findings {
						seen[f.Kind] = true
					}
				}
				r := s.repair(o)
				if len(r.Remaining) > 0 || len(r.Lost) > 0 {
					t.Errorf("remaining: %+v, %+v", r.Remaining, r.Lost)
				}
				if c := s.check(); c.Counts[check.Damage]+c.Counts[check.Warning] > 0 {
					t.Errorf("the check finds %+v", c.Findings)
				}
				s.compare(before, &h)
				s.again(from)
			})
		}
	}
	for _, kind := range check.Kinds() {
		if seen[kind] == (elsewhere[kind] != "") {
			t.Errorf("kind %s: seen is %v, and elsewhere says %q", kind, seen[kind], elsewhere[kind])
		}
	}
}

// elsewhere says why TestMended need not have a kind of finding.
var elsewhere = map[check.Kind]string{
	check.Dump: "TestDump", check.NarFormat: "TestNoNAR", check.Signature: "TestSignature",
	check.Unsigned: "a warning", check.NarInfoOdd: "a warning", check.NarPortable: "a warning",
	check.Leftover: "a note, for gc", check.Memory: "a note",
}

// TestSignature mends a wrong signature out of the index, where a key tells that
// it is wrong.
func TestSignature(t *testing.T) {
	s := newScene(t)
	secret, public, err := signature.GenerateKeypair("ours-1", nil)
	must(t, err)
	file := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, []byte(secret.String()), 0o600))
	key, err := backup.LoadKey(file)
	must(t, err)
	_, _, err = backup.Sign(t.Context(), s.dir, backup.SignRequest{Keys: []backup.SignKey{key}})
	must(t, err)
	good := s.read(narInfo(s.top))
	_, sig, _ := strings.Cut(good, "Sig: ours-1:")
	s.edit(narInfo(s.top), "Sig: ours-1:"+sig[:1], "Sig: ours-1:"+string(sig[0]^1))
	o := s.options(itself)
	o.Check.TrustedKeys = []signature.PublicKey{public}
	o.Request.TrustedKeys = o.Check.TrustedKeys
	if r := s.repair(o); len(r.Remaining) > 0 || s.read(narInfo(s.top)) != good {
		t.Errorf("%+v, narinfo is\n%s", r.Remaining, s.read(narInfo(s.top)))
	}
}

// compare compares with before what may not differ.
func (s *scene) compare(before map[string]string, h *harm) {
	s.Helper()
	may := slices.Clone(h.gone)
	if h.other != nil {
		may = append(may, h.other(s)...)
	}
	d := slices.DeleteFunc(diff(before, tree(s, s.dir, derived...)), func(name string) bool {
		return slices.Contains(may, name) || h.other != nil && strings.HasPrefix(name, "cache/nar/")
	})
	if len(d) > 0 {
		s.Errorf("not as before: %q", d)
	}
}

// again repairs once more, which must change nothing.
func (s *scene) again(from source) {
	s.Helper()
	before := tree(s, s.dir, "verified")
	if r := s.repair(s.options(from)); len(r.Repaired)+len(r.Quarantined) > 0 {
		s.Errorf("the second repair did %+v, %+v", r.Repaired, r.Quarantined)
	}
	if d := diff(before, tree(s, s.dir, "verified")); len(d) > 0 {
		s.Errorf("the second repair changed %q", d)
	}
}

// TestDump takes a dump of a database from another backup, if that has the same
// text.
func TestDump(t *testing.T) {
	s := newScene(t)
	r, err := backup.AddDump(t.Context(), s.dir, backup.DumpRequest{Write: func(_ context.Context, w io.Writer) (string, json.RawMessage, error) {
		_, err := io.WriteString(w, strings.Repeat("SELECT 1;\n", 1000))
		return "hydra", nil, err
	}})
	must(t, err)
	name, err := filepath.Rel(s.dir, r.Dump.File)
	must(t, err)
	good := s.read(name)
	other := filepath.Join(t.TempDir(), "other")
	must(t, os.CopyFS(other, os.DirFS(s.dir)))
	liar := filepath.Join(t.TempDir(), "liar")
	must(t, os.CopyFS(liar, os.DirFS(whole())))
	must(t, os.MkdirAll(filepath.Join(liar, "hydra"), 0o755))
	_, err = backup.AddDump(t.Context(), liar, backup.DumpRequest{Write: func(_ context.Context, w io.Writer) (string, json.RawMessage, error) {
		_, err := io.WriteString(w, "DROP TABLE builds;\n")
		return "hydra", nil, err
	}})
	must(t, err)
	lies, err := filepath.Glob(filepath.Join(liar, "hydra", "*.zst"))
	must(t, err)
	must(t, os.Rename(lies[0], filepath.Join(liar, name)))
	s.flip(name, 15)
	bad := s.read(name)
	o := s.options(itself)
	o.Request.From = []*backup.Backup{s.open(liar)}
	if r := s.repair(o); len(r.Remaining) != 1 || r.Remaining[0].Kind != check.Dump || s.read(name) != bad {
		t.Errorf("from one that lies: %+v, %+v", r.Repaired, r.Remaining)
	}
	o.Request.From = append(o.Request.From, s.open(other))
	if r := s.repair(o); len(r.Remaining) != 0 || s.read(name) != good {
		t.Errorf("%+v, %+v", r.Repaired, r.Remaining)
	}
}

// TestQuarantined damages what nothing can mend: it is taken out of the way of
// Nix, and named. A later repair with a source mends it.
func TestQuarantined(t *testing.T) {
	for name, do := range map[string]func(s *scene) storepath.Path{
		"NAR changed":                func(s *scene) storepath.Path { s.flip(s.nar(s.top), 20); return s.top },
		"NAR gone":                   func(s *scene) storepath.Path { s.remove(s.nar(s.top)); return s.top },
		"NAR changed, without index": func(s *scene) storepath.Path { s.flip(s.nar(s.top), 20); s.remove("index"); return s.top },
		"shared NAR changed":         func(s *scene) storepath.Path { s.flip(s.nar(s.lib), 20); return s.lib },
		"narinfo truncated, NAR gone": func(s *scene) storepath.Path {
			s.remove(s.nar(s.lib))
			must(s, os.Truncate(s.path(narInfo(s.lib)), 100))
			return s.lib
		},
		"NAR of another": func(s *scene) storepath.Path {
			s.write(s.nar(s.top), s.read(s.nar(s.lib)))
			return s.top
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			before := tree(t, s.dir, derived...)
			p := do(s)
			harmed := s.read(narInfo(p))
			dry := s.options(itself)
			dry.Request.DryRun = true
			if r := s.repair(dry); len(r.Quarantined) == 0 || len(r.Remaining) == 0 {
				t.Errorf("the dry run says %+v, %+v", r.Quarantined, r.Remaining)
			}
			r := s.repair(s.options(itself))
			i := slices.IndexFunc(r.Quarantined, func(q backup.Quarantined) bool { return q.StorePath == p })
			if i < 0 || r.Quarantined[i].Reason == "" || len(r.Quarantined[i].Releases) != 1 {
				t.Fatalf("quarantined is %+v", r.Quarantined)
			}
			if len(r.Remaining) == 0 {
				t.Error("no damage remains")
			}
			if _, err := os.Lstat(s.path(narInfo(p))); err == nil {
				t.Error("the narinfo is still there")
			}
			if got := s.read(r.Trash + "/quarantine/" + narInfo(p)); got != harmed {
				t.Errorf("the narinfo in the trash is %q, was %q", got, harmed)
			}
			s.again(itself)
			// The medium with the other copy is found.
			r = s.repair(s.options(copied))
			if len(r.Remaining) > 0 || len(r.Quarantined) > 0 {
				t.Errorf("with a source: %+v, %+v", r.Quarantined, r.Remaining)
			}
			s.compare(before, new(harm))
			s.check()
			s.again(copied)
		})
	}
}

// A NAR with the right NarHash that no Nix reads cannot be mended out of a cache
// that has another one.
func TestNoNAR(t *testing.T) {
	s := newScene(t)
	h := &hostile{scene: s}
	h.content(s.top, "no NAR at all", false)
	s.remove("index")
	r := s.repair(s.options(copied))
	if len(r.Quarantined) != 1 || r.Quarantined[0].StorePath != s.top || !strings.Contains(r.Quarantined[0].Reason, "another content") {
		t.Errorf("quarantined is %+v", r.Quarantined)
	}
	s.again(copied)
}

// TestBeside repairs again and again beside backups, which never fail and never
// see a store path go that can be mended.
func TestBeside(t *testing.T) {
	s := newScene(t)
	store := openStore(t)
	o := s.options(copied)
	o.Request.Lock.Wait = -1
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			_, err := backup.Run(t.Context(), s.dir, store, backup.Request{
				Release: backup.ReleaseID{Project: "demo", Name: fmt.Sprint("beside-", i%3)}, Roots: []storepath.Path{s.top},
				Lock: lock.Options{Wait: -1},
			})
			if err != nil || ctx.Err() != nil {
				done <- err
				return
			}
		}
	}()
	want := s.read(s.nar(s.top))
	for i := range 8 {
		if i%2 == 0 {
			s.flip(s.nar(s.top), 20+i)
		} else {
			s.remove(narInfo(s.lib))
		}
		if r := s.repair(o); len(r.Quarantined) > 0 {
			t.Errorf("round %d: %+v", i, r.Quarantined)
		}
	}
	stop()
	must(t, <-done)
	if c := s.check(); c.Counts[check.Damage] > 0 || s.read(s.nar(s.top)) != want {
		t.Errorf("%+v", c.Findings)
	}
}
