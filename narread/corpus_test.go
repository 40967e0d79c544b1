package narread

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/spool"
	"github.com/narvault/narvault/narread/testenv"
)

// corpusPackers are the containers that caches have in the field, made at the
// least effort: none, and those of Nix in one piece and in several, and ours.
func corpusPackers() []packer {
	return []packer{
		{"none", "none", func(_ testing.TB, nar []byte) []byte { return nar }},
		program("gzip", "gzip", "-1"),
		program("bzip2", "bzip2", "-1"),
		program("xz", "xz", "-0", "-T1"),
		program("xz", "xz", "-0", "-T1", "--block-size=1MiB"),
		program("zstd", "zstd", "-1", "--no-check"),                           // Nix 2.8: of a pipe, no size, no checksum
		pieces(zstdFile("-1", "--no-check"), 16<<20, "zstd frames of 16 MiB"), // Nix since 2.35
		own,
	}
}

// TestRealFiles reads a NAR of real files out of the containers of the field: the
// small form of TestAcceptanceContainers.
func TestRealFiles(t *testing.T) {
	var out bytes.Buffer
	l, _, err := nar.Dump(context.Background(), &out, strings.TrimSpace(testenv.Run(t, ".", "go", "env", "GOROOT"))+"/src/encoding")
	must(t, err)
	cache := NewCache(1 << 20) // most of it is read from the containers, not from the cache
	for _, p := range corpusPackers() {
		t.Run(p.name, func(t *testing.T) { compareCorpus(t, p, out.Bytes(), l, cache) })
	}
}

// compareCorpus compares with the NAR what is read out of a container of it: the
// whole in order, once by blocks of the cache and once by WriteTo, pieces here and
// there, and the listing.
func compareCorpus(t *testing.T, p packer, n []byte, l *nar.Listing, cache *Cache) {
	t.Helper()
	o := optionsFor(n, p.compression)
	o.Cache, o.Spool = cache, spool.New(t.TempDir(), 2<<30)
	a := open(t, p.pack(t, n), o)
	buf := make([]byte, 128<<10)
	for off := 0; off < len(n); off += len(buf) {
		comparePiece(t, a, n, off, buf)
	}
	r := rand.New(rand.NewPCG(uint64(len(n)), 3))
	for range 50 {
		comparePiece(t, a, n, r.IntN(len(n)), buf[:1+r.IntN(len(buf))])
	}
	rest := &comparing{want: n}
	if _, err := a.WriteTo(rest); err != nil || len(rest.want) > 0 {
		t.Errorf("WriteTo: %v, %d bytes missing", err, len(rest.want))
	}
	got, err := a.Listing()
	must(t, err)
	if !slices.Equal(entriesOf(got), entriesOf(l)) {
		t.Error("another listing")
	}
	must(t, a.Close())
}

func comparePiece(t *testing.T, a *Archive, n []byte, off int, buf []byte) {
	t.Helper()
	want := n[off:min(off+len(buf), len(n))]
	c, err := a.ReadAt(buf, int64(off))
	if c != len(want) || err != nil && err != io.EOF || !bytes.Equal(buf[:c], want) {
		t.Fatalf("ReadAt(%d, %d) = %d, %v: wrong", len(buf), off, c, err)
	}
}

// comparing is a writer that takes nothing but want.
type comparing struct{ want []byte }

func (c *comparing) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.want, p) {
		return 0, errChanged
	}
	c.want = c.want[len(p):]
	return len(p), nil
}

func entriesOf(l *nar.Listing) []nar.Entry {
	out := make([]nar.Entry, l.Len())
	for i := range out {
		out[i] = l.Entry(i)
	}
	return out
}
