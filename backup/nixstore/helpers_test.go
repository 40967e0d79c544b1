package nixstore

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// A testStore is a real Nix store to ask with both Nix's commands and a Store.
type testStore struct {
	*Store
	opts Options
	dir  string // scratch
}

// nix runs a Nix command on the store and returns the words it prints.
func (s *testStore) nix(t testing.TB, name string, args ...string) []string {
	t.Helper()
	out, stderr, err := s.try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr)
	}
	return strings.Fields(out)
}

func (s *testStore) try(name string, args ...string) (stdout, stderr string, err error) {
	if s.opts.URL != "" {
		args = append([]string{args[0], "--store", s.opts.URL}, args[1:]...)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = s.dir, s.opts.Env
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	return string(out), errs.String(), err
}

// paths runs a command that prints store paths.
func (s *testStore) paths(t testing.TB, name string, args ...string) []storepath.Path {
	t.Helper()
	var paths []storepath.Path
	for _, word := range s.nix(t, name, args...) {
		paths = append(paths, s.parse(t, word))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (s *testStore) parse(t testing.TB, abs string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseIn(s.Dir(), abs)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// add puts a file into the store.
func (s *testStore) add(t testing.TB, name, content string) storepath.Path {
	t.Helper()
	file := filepath.Join(s.dir, name)
	write(t, file, content)
	return s.paths(t, "nix-store", "--add", file)[0]
}

// abs returns the logical absolute paths.
func (s *testStore) abs(paths ...storepath.Path) []string {
	var list []string
	for _, p := range paths {
		list = append(list, p.In(s.Dir()))
	}
	return list
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, link string) string {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// scratch is t.TempDir for stores, whose directories cannot be written to.
func scratch(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(path, 0o755)
			}
			return nil
		})
	})
	return dir
}

func open(t testing.TB, o Options) *testStore {
	t.Helper()
	testenv.Need(t, "nix")
	if o.Env == nil {
		o.Env = testenv.NixEnv(t)
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testStore{Store: s, opts: o, dir: t.TempDir()}
}

// openSystem opens the machine's own store.
func openSystem(t testing.TB) *testStore { return open(t, Options{}) }

// openChroot opens a new store in a directory, which cannot build.
func openChroot(t testing.TB) *testStore { return open(t, Options{URL: scratch(t)}) }

// openMoved opens a new store with another store directory, which can build.
func openMoved(t testing.TB) *testStore {
	dir := scratch(t)
	return open(t, Options{Env: append(testenv.NixEnv(t),
		"NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/var", "NIX_LOG_DIR="+dir+"/log")})
}

// graph is the Nix expression of a handful of packages: references in a chain,
// to itself and to another output, a store path that is a symlink, a source.
const graph = `
let
  make = name: script: attrs: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
    PATH = "/usr/bin:/bin";
  } // attrs);
in rec {
  leaf = make "leaf" "echo leaf > $out" { };
  link = make "link" "ln -s $leaf $out" { inherit leaf; };
  middle = make "middle" "mkdir -p $out/bin $dev; echo $out $leaf > $out/bin/tool; echo $out > $dev/h" {
    inherit leaf; outputs = [ "out" "dev" ];
  };
  top = make "top-1.0" "cat $text > $out; echo $middle $link >> $out" {
    inherit link; middle = middle.out; text = builtins.toFile "text" "text\n";
  };
}
`

// build makes the graph's attribute and returns its derivation and outputs.
func (s *testStore) build(t testing.TB, attr string) (drv storepath.Path, outs []storepath.Path) {
	t.Helper()
	drv = s.instantiate(t, graph, attr)
	return drv, s.paths(t, "nix-store", "--realise", drv.In(s.Dir()))
}

func (s *testStore) instantiate(t testing.TB, expr, attr string) storepath.Path {
	t.Helper()
	file := filepath.Join(s.dir, "graph.nix")
	write(t, file, expr)
	return s.paths(t, "nix-instantiate", file, "-A", attr)[0]
}

// chrootWithGraph returns a chroot store that holds top of the graph, its
// derivation, and everything these need.
func chrootWithGraph(t testing.TB) (s *testStore, drv storepath.Path, outs []storepath.Path) {
	t.Helper()
	sys, s := openSystem(t), openChroot(t)
	drv, outs = sys.build(t, "top")
	args := []string{"copy", "--no-check-sigs", "--to", s.opts.URL}
	sys.nix(t, "nix", append(args, sys.abs(outs...)...)...)
	sys.nix(t, "nix", append(args, "--derivation", drv.In(sys.Dir()))...)
	return s, drv, outs
}

// eachStore runs a test on every kind of store, with top of the graph in it.
func eachStore(t *testing.T, test func(t *testing.T, s *testStore, drv storepath.Path, outs []storepath.Path)) {
	for name, openStore := range map[string]func(testing.TB) *testStore{"system": openSystem, "moved": openMoved} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			drv, outs := s.build(t, "top")
			test(t, s, drv, outs)
		})
	}
	t.Run("chroot", func(t *testing.T) {
		s, drv, outs := chrootWithGraph(t)
		test(t, s, drv, outs)
	})
}
