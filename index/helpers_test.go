package index

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A fakeCache is a binary cache directory of made-up store paths.
type fakeCache struct {
	t    testing.TB
	dir  string
	rnd  *rand.Rand
	want map[storepath.Path]*wanted
}

// wanted is what the index has to know of a store path.
type wanted struct {
	file    []byte // the narinfo
	listing string // as printed by describeListing; "" if the archive is damaged
}

func newFakeCache(t testing.TB, paths int) *fakeCache {
	t.Helper()
	f := &fakeCache{t: t, dir: filepath.Join(t.TempDir(), "cache"), rnd: rand.New(rand.NewPCG(1, uint64(paths))), want: map[storepath.Path]*wanted{}}
	must(t, os.MkdirAll(filepath.Join(f.dir, "nar"), 0o755))
	must(t, os.WriteFile(filepath.Join(f.dir, bincache.InfoFile), []byte("StoreDir: /nix/store\n"), 0o644))
	for i := range paths {
		f.add(fmt.Sprintf("package-%d.%d", i, f.rnd.IntN(100)))
	}
	return f
}

func randomHash(rnd *rand.Rand) string {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	b := make([]byte, storepath.HashLen)
	for i := range b {
		b[i] = digits[rnd.IntN(len(digits))]
	}
	return string(b)
}

// add puts a store path into the cache.
func (f *fakeCache) add(name string) storepath.Path {
	f.t.Helper()
	p := storepath.Path(randomHash(f.rnd) + "-" + name)
	f.put(p, f.randomNAR())
	return p
}

// put writes the files of a store path, over what is there.
func (f *fakeCache) put(p storepath.Path, archive []byte) {
	f.t.Helper()
	url := fmt.Sprintf("nar/%x.nar", sha256.Sum256(append([]byte(p), archive...)))
	must(f.t, os.WriteFile(filepath.Join(f.dir, url), archive, 0o644))
	info := &narinfo.NarInfo{
		StoreDir: "/nix/store", StorePath: p, URL: url, Compression: "none",
		FileSize: int64(len(archive)), NarSize: int64(len(archive)), NarHash: sha256.Sum256(archive),
		References: []storepath.Path{p},
	}
	f.write(p, info.Bytes())
	l, err := nar.ReadListing(bytes.NewReader(archive), int64(len(archive)))
	must(f.t, err)
	f.want[p].listing = describeListing(l)
}

func (f *fakeCache) narInfo(p storepath.Path) string {
	return filepath.Join(f.dir, p.Hash()+bincache.NarInfoExt)
}

func (f *fakeCache) write(p storepath.Path, file []byte) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.narInfo(p), file, 0o644))
	f.want[p] = &wanted{file: file}
}

func (f *fakeCache) remove(p storepath.Path) {
	f.t.Helper()
	must(f.t, os.Remove(f.narInfo(p)))
	delete(f.want, p)
}

func (f *fakeCache) paths() []storepath.Path {
	var ps []storepath.Path
	for p := range f.want {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

func (f *fakeCache) open() *bincache.Cache {
	f.t.Helper()
	c, err := bincache.Open(f.dir, bincache.Options{})
	must(f.t, err)
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (f *fakeCache) randomNAR() []byte {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	must(f.t, w.WriteHeader(nar.Header{Type: nar.Directory}))
	for i := range 1 + f.rnd.IntN(10) {
		h := nar.Header{Depth: 1, Name: fmt.Sprintf("file-%03d", i), Type: nar.Regular, Size: int64(f.rnd.IntN(50))}
		if f.rnd.IntN(4) == 0 {
			h.Type, h.Size, h.Target = nar.Symlink, 0, fmt.Sprintf("/nix/store/%s-%d", randomHash(f.rnd), i)
		}
		must(f.t, w.WriteHeader(h))
		_, err := io.WriteString(w, strings.Repeat("x", int(h.Size)))
		must(f.t, err)
	}
	must(f.t, w.Close())
	return b.Bytes()
}

func describeListing(l *nar.Listing) string {
	var b strings.Builder
	for i := range l.Len() {
		fmt.Fprintf(&b, "%+v\n", l.Entry(i))
	}
	return b.String()
}

// build builds the index in dir.
func (f *fakeCache) build(dir string, o BuildOptions) *Stats {
	f.t.Helper()
	s, err := Build(f.t.Context(), dir, f.open(), o)
	must(f.t, err)
	return s
}

// check opens the index in dir and compares it with the cache.
func (f *fakeCache) check(dir string) {
	f.t.Helper()
	ix, err := Open(dir, Options{})
	must(f.t, err)
	defer ix.Close()
	f.compare(ix)
	must(f.t, ix.Verify(f.t.Context()))
}

func (f *fakeCache) compare(ix *Index) {
	f.t.Helper()
	var got []storepath.Path
	for _, e := range ix.Paths() {
		got = append(got, e.Path)
	}
	if want := f.paths(); !slices.Equal(got, want) {
		f.t.Fatalf("index has %d store paths, want %d", len(got), len(want))
	}
	for p, w := range f.want {
		if problem := w.compare(ix, p); problem != "" {
			f.t.Errorf("%s: %s", p, problem)
		}
	}
}

// compare returns what is wrong with the record of p.
func (w *wanted) compare(ix *Index, p storepath.Path) string {
	r, err := ix.Record(p)
	if err != nil {
		return err.Error()
	}
	if !bytes.Equal(r.NarInfo, w.file) || r.Info.StorePath != p || r.NarInfoSum != sha256.Sum256(w.file) {
		return "another narinfo"
	}
	l, err := r.Listing()
	if err != nil {
		if w.listing == "" {
			return ""
		}
		return err.Error()
	}
	if describeListing(l) != w.listing {
		return "another listing"
	}
	return ""
}

func numbers(t testing.TB, dir string) (map[storepath.Path]uint32, string) {
	t.Helper()
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	m := map[storepath.Path]uint32{}
	for _, e := range ix.Paths() {
		m[e.Path] = e.Number
	}
	return m, ix.Numbering()
}

// generations returns the names of what is in an index directory.
func generations(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, genPrefix+"*"))
	must(t, err)
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	slices.Sort(all)
	return all
}

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }
