package index

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// refer rewrites the narinfo of a store path with other references.
func (f *fakeCache) refer(p storepath.Path, line string) {
	f.t.Helper()
	w := *f.want[p]
	before, after, _ := strings.Cut(string(w.file), "\nReferences: ")
	_, after, _ = strings.Cut(after, "\n")
	f.write(p, []byte(before+"\nReferences: "+line+"\n"+after))
	f.want[p].listing = w.listing
}

// Whatever references a narinfo has, in whatever form, it comes back byte by
// byte, also after what it refers to came, went, or got another number.
func TestReferences(t *testing.T) {
	f := newFakeCache(t, 6)
	dir := t.TempDir()
	all := f.paths()
	absent := randomHash(f.rnd) + "-absent"
	for i, line := range []string{
		fmt.Sprint(all[5], " ", all[0], " ", all[3]), // not sorted
		fmt.Sprint(all[1], " ", absent),
		fmt.Sprint(all[1], "  ", all[2]), // two spaces
		"",
		absent,
		fmt.Sprint(all[0], " ", all[0]), // twice
	} {
		f.refer(all[i], line)
	}
	f.build(dir, BuildOptions{})
	f.check(dir)
	f.refer(all[4], string(all[5]))
	late := f.add("late")
	f.refer(late, fmt.Sprint(absent, " ", late, " ", all[0]))
	f.remove(all[1]) // all[1] and all[2] still refer to it
	if s := f.build(dir, BuildOptions{}); s.Reused != 4 {
		t.Errorf("%d records reused", s.Reused)
	}
	f.check(dir)
	f.refer(all[0], "")
	f.build(dir, BuildOptions{})
	f.check(dir)
}

// Without the table of references nothing is said of a narinfo, and what does
// not need it goes on.
func TestDamagedReferences(t *testing.T) {
	f := newFakeCache(t, 3)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	name := filepath.Join(dir, "gen-1", referencesFile)
	good, err := os.ReadFile(name)
	must(t, err)
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	must(t, os.WriteFile(name, bad, 0o644))
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	for p, w := range f.want {
		var damage *DamageError
		if _, err := ix.Record(p); !errors.As(err, &damage) || damage.File != name {
			t.Errorf("record: %v", err)
		}
		if l, _, err := ix.Contents(p, w.file); err != nil || describeListing(l) != w.listing {
			t.Errorf("contents: %v", err)
		}
	}
	if s := f.build(dir, BuildOptions{}); s.Unchanged || s.Reused != 0 {
		t.Errorf("built from damaged references: %+v", s)
	}
	f.check(dir)
}

// FuzzReferences: no panic; what is decoded are store paths, as many as encoded.
func FuzzReferences(f *testing.F) {
	q := storepath.Path("z" + fuzzPath[1:])
	all := []Entry{{fuzzPath, 1}, {q, 2}}
	packed, err := encodeNames(all)
	must(f, err)
	n, err := decodeNames(packed)
	must(f, err)
	for _, refs := range [][]storepath.Path{nil, {fuzzPath, q}, {"y" + q[1:], q}} {
		var l referenceList
		l.add(refs)
		l.add(fuzzParsed().References)
		b := l.encode(all, []int{0, 1})
		f.Add(b)
		table, err := decodeReferences(b, n)
		must(f, err)
		if got := table.of(0); !slices.Equal(got, refs) {
			f.Errorf("%s became %s", refs, got)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := decodeReferences(b, n)
		if err != nil {
			return
		}
		for i := range all {
			for _, p := range table.of(i) {
				if _, err := storepath.Parse(string(p)); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// A narinfo as they usually are shrinks to its hashes and a few bytes, and what
// does not fit costs only itself.
func TestText(t *testing.T) {
	c := newTexter()
	usual := fuzzParsed()
	usual.URL = "nar/" + strings.TrimPrefix(usual.FileHash, "sha256:") + ".nar.zst"
	usual.NarHash = narinfo.Hash(sum256(nil))
	usual.Deriver = "0123456789abcdfghijklmnpqrsvwxyz-x.drv"
	usual.Sigs = []string{"cache.nixos.org-1:" + strings.Repeat("A", 86) + "=="}
	file := string(usual.Bytes())
	for _, test := range []struct {
		name          string
		file          string
		words, hashes int // at most, exactly
		refs          int
	}{
		{"usual", file, 21, 32 + 32 + 20 + 64, 1},
		{"references in another form", strings.Replace(file, "\nReferences: ", "\nReferences:  ", 1), 60, 32 + 32 + 20 + 64, 0},
		{"byte that stands for something", file + "X: \x05\n", len(file) + 6, 0, 0},
	} {
		x := c.short([]byte(test.file), usual)
		if len(x.words) > test.words || len(x.hashes) != test.hashes || len(x.refs) != test.refs {
			t.Errorf("%s: %q, %d bytes of hashes, references %s", test.name, x.words, len(x.hashes), x.refs)
		}
		if back, ok := c.long(x, usual.StorePath, usual.NarSize); !ok || string(back) != test.file {
			t.Errorf("%s: became %q", test.name, back)
		}
	}
}

// A text from somewhere cannot take more memory than a narinfo file may.
func TestDenseText(t *testing.T) {
	c := newTexter()
	for _, w := range []byte{1, ownPath, references, sameHash} {
		x := text{words: bytes.Repeat([]byte{w}, maxText), refs: make([]storepath.Path, 1000)}
		if got, ok := c.long(x, fuzzPath, 112); ok {
			t.Errorf("%#x: %d bytes", w, len(got))
		}
	}
}
