package index

import (
	"bytes"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

const fuzzPath = storepath.Path("sh8025fhmz1wq27663bakmq915a2pf79-x")

func fuzzInfo() []byte { return fuzzParsed().Bytes() }

func fuzzParsed() *narinfo.NarInfo {
	return &narinfo.NarInfo{
		StoreDir: "/nix/store", StorePath: fuzzPath, URL: "nar/x.nar.zst", Compression: "zstd",
		FileHash: "sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl", FileSize: 5,
		NarSize: 112, NarHash: narinfo.Hash{1}, References: []storepath.Path{fuzzPath}, Deriver: fuzzPath + ".drv",
	}
}

// FuzzRecord: no panic on a record with the right checksum and any content;
// what is accepted fits the path.
func FuzzRecord(f *testing.F) {
	c, err := newCodec()
	must(f, err)
	e := Entry{fuzzPath, 7}
	info := fuzzInfo()
	l, err := tinyListing(f.Context(), nil)
	must(f, err)
	listing, err := l.AppendBinary(nil)
	must(f, err)
	for _, r := range []record{
		{head: head{kind: kindPath, narSize: 112, sum: narInfoSum(info), nodes: 1}, text: c.short(info, fuzzParsed()), listing: listing, layout: []byte("layout")},
		{head: head{kind: kindPath, narSize: 112, sum: narInfoSum(info)}, text: c.short(info, fuzzParsed()), reason: "none"},
		{head: head{kind: kindDamaged}, reason: "bad"},
	} {
		f.Add(c.encode(r)[checksumSize:])
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		value := append(make([]byte, checksumSize), rest...)
		if len(value) >= headSize {
			seal(value, e)
		}
		r, err := c.open(value, e, fuzzParsed().References)
		if err != nil {
			return
		}
		if r.Info.StorePath != e.Path {
			t.Errorf("record of %s", r.Info.StorePath)
		}
		if l, err := r.Listing(); err == nil && l.NarSize() != r.Info.NarSize {
			t.Errorf("NAR of %d bytes", l.NarSize())
		}
	})
}

// FuzzText: every narinfo file comes back byte by byte, and no text is worse
// than an error.
func FuzzText(f *testing.F) {
	c := newTexter()
	f.Add(fuzzInfo())
	f.Add([]byte("\x00\x01\x0b"))
	f.Add([]byte("StorePath: /nix/store/\x00"))
	f.Add([]byte("Sig: a:" + strings.Repeat("A", 86) + "==" + strings.Repeat("\n"+strings.Repeat("0", 52), 20)))
	f.Add([]byte("NarSize: 112\nReferences: " + fuzzPath + "\nReferences: " + fuzzPath + "\nDeriver: " + fuzzPath + ".drv"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, file []byte) {
		x := c.short(file, fuzzParsed())
		if got, ok := c.long(x, fuzzPath, 112); !ok || !bytes.Equal(got, file) {
			t.Errorf("%q became %q", file, got)
		}
		c.long(text{words: file, hashes: file}, fuzzPath, 112)
	})
}

// FuzzNames: no panic; what is decoded is sorted, and encoded again the same.
func FuzzNames(f *testing.F) {
	for _, entries := range [][]Entry{nil, {{fuzzPath, 1}}, {{fuzzPath, 2}, {"z" + fuzzPath[1:], 1}}} {
		b, err := encodeNames(entries)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNames(b)
		if err != nil {
			return
		}
		for _, e := range n.entries() {
			if got, ok := n.number(e.Path); !ok || got != e.Number {
				t.Fatalf("%s has number %d, %v", e.Path, got, ok)
			}
		}
		if again, err := encodeNames(n.entries()); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encoded again, it differs: %v", err)
		}
	})
}

func TestNamesRefuses(t *testing.T) {
	q := storepath.Path("z" + fuzzPath[1:])
	for name, entries := range map[string][]Entry{
		"not sorted":    {{q, 1}, {fuzzPath, 2}},
		"same hash":     {{fuzzPath, 1}, {fuzzPath + "y", 2}},
		"no store path": {{"x", 1}},
		"number twice":  {{fuzzPath, 1}, {q, 1}},
		"number zero":   {{fuzzPath, 0}},
		"large number":  {{fuzzPath, maxNumber + 1}},
	} {
		b, err := encodeNames(entries)
		must(t, err)
		if _, err := decodeNames(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A listing that is too large for a record is left out, and says so.
func TestTooDense(t *testing.T) {
	c, err := newCodec()
	must(t, err)
	info := fuzzInfo()
	value := c.encode(record{head: head{kind: kindPath, narSize: 112, sum: narInfoSum(info), nodes: 9}, text: c.short(info, fuzzParsed()), listing: make([]byte, 100<<20)})
	e := Entry{fuzzPath, 1}
	seal(value, e)
	r, err := c.open(value, e, fuzzParsed().References)
	must(t, err)
	if h, ok := split(value); !ok || h.listed || h.nodes != 0 || r.reason == "" {
		t.Errorf("head %+v, reason %q", h, r.reason)
	}
}
