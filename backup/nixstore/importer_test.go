package nixstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
)

// A nixDump is what "nix-store --dump" writes.
type nixDump struct {
	s *testStore
	p storepath.Path
}

func (d nixDump) WriteTo(w io.Writer) (int64, error) {
	out, stderr, err := d.s.try("nix-store", "--dump", d.s.RealPath(d.p))
	if err != nil {
		return 0, errors.New(stderr)
	}
	n, err := io.WriteString(w, out)
	return int64(n), err
}

// everything returns the closure of top's derivation with its outputs, and of a
// path that was added and so has a content address, references first.
func (s *testStore) everything(t *testing.T) []PathInfo {
	t.Helper()
	drv, _ := s.build(t, "top")
	write(t, filepath.Join(s.dir, "added"), "content")
	added := s.paths(t, "nix-store", "--add", filepath.Join(s.dir, "added"))
	closure, err := s.Closure(t.Context(), append(added, drv), true)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := s.Infos(t.Context(), closure)
	if err != nil {
		t.Fatal(err)
	}
	refs := make(map[storepath.Path]int)
	for range infos {
		for _, i := range infos {
			for _, r := range i.References {
				if r != i.Path {
					refs[i.Path] = max(refs[i.Path], refs[r]+1)
				}
			}
		}
	}
	slices.SortStableFunc(infos, func(a, b PathInfo) int { return refs[a.Path] - refs[b.Path] })
	return infos
}

// Everything that Nix knows about a path arrives, in a store with and without a
// daemon; .drv files, too, and nothing is built.
func TestImporter(t *testing.T) {
	from := openSystem(t)
	for name, to := range map[string]func(testing.TB) *testStore{"chroot": openChroot, "daemon": openChrootDaemon} {
		t.Run(name, func(t *testing.T) {
			to := to(t)
			infos := from.everything(t)
			for i := range infos {
				infos[i].Sigs = append(infos[i].Sigs, "test-key:"+strings.Repeat("A", 86)+"==")
			}
			add(t, from, to, infos)
			add(t, from, to, infos[:1]) // again
			for _, want := range infos {
				got, err := to.Infos(t.Context(), []storepath.Path{want.Path})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(want.Sigs)
				slices.Sort(got[0].Sigs)
				if g := got[0]; g.NarHash != want.NarHash || g.NarSize != want.NarSize || g.Deriver != want.Deriver || g.CA != want.CA ||
					!slices.Equal(g.References, want.References) || !slices.Equal(g.Sigs, want.Sigs) {
					t.Errorf("got %+v, want %+v", g, want)
				}
			}
			to.nix(t, "nix-store", "--verify", "--check-contents")
		})
	}
}

func add(t *testing.T, from, to *testStore, infos []PathInfo) {
	t.Helper()
	m := to.NewImporter()
	for _, info := range infos {
		if err := m.Add(t.Context(), info, nixDump{from, info.Path}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// A NAR that is not what was promised, or breaks off, adds nothing, and the next
// path is added all the same.
func TestImporterRefuses(t *testing.T) {
	from, to := openSystem(t), openChroot(t)
	infos := from.everything(t)
	good := infos[0]
	var dump bytes.Buffer
	if _, err := (nixDump{from, good.Path}).WriteTo(&dump); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the medium was pulled")
	m := to.NewImporter()
	defer m.Close()
	for name, archive := range map[string]io.WriterTo{
		"breaks off": failing{dump.Bytes()[:100], broken},
		"other":      bytes.NewReader(bytes.Replace(dump.Bytes(), []byte("content"), []byte("c0ntent"), 1)),
		"no NAR":     bytes.NewReader(make([]byte, dump.Len())),
		"nothing":    failing{nil, broken},
	} {
		info := good
		if name == "other" && bytes.Equal(dump.Bytes(), dumpOf(archive)) {
			info.NarHash[0] ^= 1 // there was nothing to replace
			archive = bytes.NewReader(dump.Bytes())
		}
		err := m.Add(t.Context(), info, archive)
		var command *CommandError
		switch archive.(type) {
		case failing:
			if !errors.Is(err, broken) {
				t.Errorf("%s: %v", name, err)
			}
		default:
			if !errors.As(err, &command) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if found, err := to.Reserve(t.Context(), []storepath.Path{good.Path}); err != nil || len(found) > 0 {
			t.Errorf("%s: valid are %v, %v", name, found, err)
		}
	}
	// One whose references are not there.
	last := infos[len(infos)-1]
	if err := m.Add(t.Context(), last, nixDump{from, last.Path}); err == nil {
		t.Error("a path was added without its references")
	}
	if err := m.Add(t.Context(), good, bytes.NewReader(dump.Bytes())); err != nil {
		t.Errorf("after all that: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Add(ctx, infos[1], failing{nil, context.Canceled}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func dumpOf(archive io.WriterTo) []byte {
	r := archive.(*bytes.Reader)
	b := make([]byte, r.Len())
	r.ReadAt(b, 0)
	return b
}

// failing writes something and fails.
type failing struct {
	data []byte
	err  error
}

func (f failing) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(f.data)
	return int64(n), errors.Join(f.err, err)
}

// Design section 9: "starting builds on restore; registering no GC roots". Roots
// keep what is valid, .drv files among it, which are not built.
func TestAddRoot(t *testing.T) {
	from := openSystem(t)
	for name, to := range map[string]func(testing.TB) *testStore{"chroot": openChroot, "daemon": openChrootDaemon} {
		t.Run(name, func(t *testing.T) {
			to := to(t)
			infos := from.everything(t)
			add(t, from, to, infos)
			links := t.TempDir()
			var rooted []storepath.Path
			for _, info := range infos {
				if strings.HasSuffix(string(info.Path), "-leaf") || strings.HasSuffix(string(info.Path), "-middle.drv") {
					rooted = append(rooted, info.Path)
					for range 2 {
						if err := to.AddRoot(t.Context(), info.Path, filepath.Join(links, "new", string(info.Path))); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := to.AddRoot(t.Context(), rooted[0], links); err == nil {
				t.Error("a directory was replaced")
			}
			to.nix(t, "nix-store", "--gc")
			for i, there := range to.exist(rooted...) {
				if link, err := os.Readlink(filepath.Join(links, "new", string(rooted[i]))); !there || link != rooted[i].In(to.Dir()) {
					t.Errorf("%s is there: %v; its root is %q, %v", rooted[i], there, link, err)
				}
			}
			last := infos[len(infos)-1].Path
			if !strings.HasSuffix(string(last), ".drv") && to.exist(last)[0] {
				t.Errorf("%s is there still", last)
			}
			if err := to.AddRoot(t.Context(), infos[len(infos)-1].Path, filepath.Join(links, "gone")); err == nil && !to.exist(last)[0] {
				t.Error("what is not there got a root")
			}
		})
	}
}
