package unpack

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/narvault/narvault/narread/nar"
)

// Whatever an archive is that has the right hash, nothing outside the directory
// changes, and what is restored is what the archive says.
func FuzzUnpack(f *testing.F) {
	for _, node := range []string{
		fileNode("x"), linkNode("/etc"), dirNode(), dirNode(entry("a", fileNode("")), entry("b", dirNode(entry("c", linkNode(".."))))),
		dirNode(entry("b", linkNode("../../outside")), entry("a", fileNode("")), entry("b", dirNode(entry("x", fileNode("evil"))))),
		dirNode(entry("a", linkNode("../outside")), entry("a", dirNode(entry("x", fileNode("evil"))))),
	} {
		f.Add(narOf(node))
	}
	f.Fuzz(func(t *testing.T, n []byte) {
		if len(n) == 0 {
			return
		}
		base := t.TempDir()
		to, outside := filepath.Join(base, "to"), filepath.Join(base, "outside")
		must(t, os.Mkdir(outside, 0o755))
		d := open(t, to)
		restored := restore(t, d, item(t, "p", n, pack(t, n)))
		if got := names(t, outside); len(got) > 0 {
			t.Fatalf("outside there is %q", got)
		}
		if got := names(t, base); len(got) != 2 {
			t.Fatalf("beside there is %q", got)
		}
		l, err := nar.ReadListing(bytes.NewReader(n), int64(len(n)))
		switch {
		case restored.State == Damaged:
			if got := names(t, to); len(got) > 0 {
				t.Errorf("of what is no archive there is %q", got)
			}
		case err != nil:
			t.Errorf("%s, but: %v", restored.State, err)
		case l.Deviation() == nil && l.NarSize() == int64(len(n)):
			is(t, filepath.Join(to, "p"), n)
		}
	})
}
