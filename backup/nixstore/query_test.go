package nixstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// absent is well-formed and in no store.
const absent = storepath.Path("00000000000000000000000000000000-absent")

func TestDirs(t *testing.T) {
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, outs []storepath.Path) {
		if want := filepath.Dir(s.nix(t, "nix-store", "-q", "--outputs", drv.In(s.Dir()))[0]); s.Dir() != want {
			t.Errorf("Dir() = %s, want %s", s.Dir(), want)
		}
		content, err := os.ReadFile(s.RealPath(outs[0]))
		if err != nil || !strings.HasPrefix(string(content), "text\n") {
			t.Errorf("RealPath: %q, %v", content, err)
		}
	})
}

func TestClosure(t *testing.T) {
	ctx := context.Background()
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, outs []storepath.Path) {
		for _, roots := range [][]storepath.Path{nil, outs, {drv}, append(outs, drv)} {
			for _, flags := range [][]string{nil, {"--include-outputs"}} {
				var want []storepath.Path
				if len(roots) > 0 {
					want = s.paths(t, "nix-store", slices.Concat([]string{"-qR"}, flags, s.abs(roots...))...)
				}
				got, err := s.Closure(ctx, roots, flags != nil)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("Closure(%s) %v = %s, %v; want %s", roots, flags, got, err, want)
				}
			}
		}
		_, err := s.Closure(ctx, []storepath.Path{outs[0], absent}, false)
		wantInvalid(t, err, absent)
		if _, err := s.Closure(ctx, outs, false); err != nil {
			t.Errorf("after a path that is not valid: %v", err)
		}
	})
}

func wantInvalid(t *testing.T, err error, want ...storepath.Path) {
	t.Helper()
	var e *InvalidPathsError
	if !errors.As(err, &e) || !slices.Equal(e.Paths, want) {
		t.Errorf("error = %v; want one that says %s are not valid", err, want)
	}
	for _, p := range want {
		if err != nil && !strings.Contains(err.Error(), string(p)) {
			t.Errorf("error %q does not name %s", err, p)
		}
	}
}

func TestInfos(t *testing.T) {
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, outs []storepath.Path) {
		paths := append(s.paths(t, "nix-store", "-qR", "--include-outputs", drv.In(s.Dir())), s.odd(t)...)
		slices.Reverse(paths) // the order is ours, not Nix's
		got, err := s.Infos(context.Background(), paths)
		if err != nil {
			t.Fatal(err)
		}
		for i, info := range got {
			if info.Path != paths[i] {
				t.Errorf("info %d is about %s, not %s", i, info.Path, paths[i])
			}
			checkQueries(t, s, info)
			checkSigs(t, s, info)
			if signed := info.Path.Name() == "signed"; signed != (len(info.Sigs) > 0) {
				t.Errorf("%s has the signatures %q", info.Path, info.Sigs)
			}
		}
	})
}

// odd adds a signed path and content-addressed ones.
func (s *testStore) odd(t *testing.T) []storepath.Path {
	p := s.add(t, "signed", "signed")
	key := filepath.Join(s.dir, "key")
	write(t, key, testenv.Run(t, s.dir, "nix", "key", "generate-secret", "--key-name", "test-1"))
	// Once: in the machine's store signatures would pile up from run to run.
	if infos, err := s.Infos(context.Background(), []storepath.Path{p}); err == nil && len(infos[0].Sigs) == 0 {
		s.nix(t, "nix", "store", "sign", "--key-file", key, p.In(s.Dir()))
	}
	write(t, filepath.Join(s.dir, "fixed"), "fixed")
	paths := []storepath.Path{p}
	for _, args := range [][]string{{"sha256"}, {"sha1"}, {"--recursive", "sha256"}, {"--recursive", "sha512"}} {
		args = slices.Concat([]string{"--add-fixed"}, args, []string{filepath.Join(s.dir, "fixed")})
		paths = append(paths, s.paths(t, "nix-store", args...)...)
	}
	return paths
}

// checkSigs compares with a line of nix path-info --sigs:
//
//	/nix/store/... [ultimate] [ca:CA] SIGNATURE...
func checkSigs(t *testing.T, s *testStore, info PathInfo) {
	t.Helper()
	args := []string{"path-info", "--sigs", info.Path.In(s.Dir())}
	if info.Path.IsDerivation() {
		args = append(args, "--derivation") // otherwise its outputs are meant
	}
	want := slices.DeleteFunc(s.nix(t, "nix", args...)[1:], func(word string) bool { return word == "ultimate" })
	var got []string
	if info.CA != "" {
		got = append(got, "ca:"+info.CA)
	}
	if got = append(got, info.Sigs...); !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", info.Path, got, want)
	}
}

func checkQueries(t *testing.T, s *testStore, info PathInfo) {
	t.Helper()
	query := func(what string) string {
		return strings.Join(s.nix(t, "nix-store", "-q", what, info.Path.In(s.Dir())), " ")
	}
	deriver := "unknown-deriver"
	if info.Deriver != "" {
		deriver = info.Deriver.In(s.Dir())
	}
	for what, got := range map[string]string{
		"--hash": info.NarHash.String(), "--size": strconv.FormatInt(info.NarSize, 10), "--deriver": deriver,
	} {
		if want := query(what); got != want {
			t.Errorf("%s: %s is %s, want %s", info.Path, what, got, want)
		}
	}
	refs := s.abs(info.References...)
	want := strings.Fields(query("--references"))
	slices.Sort(want) // it prints them in topological order
	if !slices.Equal(refs, want) && len(refs)+len(want) > 0 {
		t.Errorf("%s: references %s, want %s", info.Path, refs, want)
	}
}

func TestInfosNotValid(t *testing.T) {
	s := openChroot(t)
	p := s.add(t, "file", "x")
	_, err := s.Infos(context.Background(), []storepath.Path{absent, p, absent})
	wantInvalid(t, err, absent)
	infos, err := s.Infos(context.Background(), []storepath.Path{p, p})
	if err != nil || len(infos) != 2 || infos[0].Path != p || infos[1].Path != p {
		t.Errorf("the same path twice: %v, %v", infos, err)
	}
}

// TestLock lets the real garbage collector loose on a store.
func TestLock(t *testing.T) {
	s := openChroot(t)
	kept, dropped := s.add(t, "kept", "k"), s.add(t, "dropped", "d")
	if err := s.Lock(context.Background(), []storepath.Path{kept}); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := s.try("nix-store", "--delete", kept.In(s.Dir())); err == nil {
		t.Errorf("nix-store --delete deletes a locked path: %s", stderr)
	}
	s.nix(t, "nix-store", "--gc")
	if got, want := s.exist(kept, dropped), []bool{true, false}; !slices.Equal(got, want) {
		t.Errorf("after --gc exist %v, want %v", got, want)
	}
	wantInvalid(t, s.Lock(context.Background(), []storepath.Path{kept, dropped}), dropped)
	if roots, err := s.GCRoots(context.Background()); err != nil || len(roots) > 0 {
		t.Errorf("GCRoots = %v, %v; want none: our own locks are temporary", roots, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s.nix(t, "nix-store", "--gc")
	if s.exist(kept)[0] {
		t.Error("the path is still locked after Close")
	}
}

func (s *testStore) exist(paths ...storepath.Path) (list []bool) {
	for _, p := range paths {
		_, err := os.Lstat(s.RealPath(p))
		list = append(list, err == nil)
	}
	return list
}

// TestFresh: what others add and delete meanwhile is noticed.
func TestFresh(t *testing.T) {
	ctx := context.Background()
	s := openChroot(t)
	p := s.add(t, "file", "x")
	s.nix(t, "nix-store", "--delete", p.In(s.Dir()))
	_, err := s.Infos(ctx, []storepath.Path{p})
	wantInvalid(t, err, p)
	s.add(t, "file", "x")
	if err := s.Lock(ctx, []storepath.Path{p}); err != nil {
		t.Errorf("added by others after we had asked: %v", err)
	}
	other := s.add(t, "other", "x")
	if _, err := s.Infos(ctx, []storepath.Path{other}); err != nil {
		t.Fatal(err)
	}
	s.nix(t, "nix-store", "--delete", other.In(s.Dir()))
	wantInvalid(t, s.Lock(ctx, []storepath.Path{other}), other)
}

func TestLockFilesGone(t *testing.T) {
	s := openChroot(t)
	p, q := s.add(t, "gone", "x"), s.add(t, "there", "x")
	if err := os.RemoveAll(s.RealPath(p)); err != nil {
		t.Fatal(err)
	}
	wantInvalid(t, s.Lock(context.Background(), []storepath.Path{p, q}), p)
}

// TestWrongReal: a store that Nix keeps elsewhere than RealPath says.
func TestWrongReal(t *testing.T) {
	s := openChroot(t)
	p := s.add(t, "file", "x")
	s.real = t.TempDir()
	if err := s.Lock(context.Background(), []storepath.Path{p}); !errors.Is(err, ErrNotLocal) {
		t.Errorf("Lock = %v, want ErrNotLocal", err)
	}
}

// Design section 9: "command lines longer than ARG_MAX".
func TestManyPaths(t *testing.T) {
	ctx := context.Background()
	s := openChroot(t)
	var files []string
	for i := range 2000 {
		files = append(files, filepath.Join(s.dir, fmt.Sprintf("file-%04d", i)))
		write(t, files[i], files[i])
	}
	paths := s.paths(t, "nix-store", append([]string{"--add"}, files...)...)
	many := slices.Repeat(paths, 25) // 2.8 MB of names; ARG_MAX is 2 MB
	if err := s.Lock(ctx, many); err != nil {
		t.Fatal(err)
	}
	closure, err := s.Closure(ctx, many, true)
	if err != nil || !slices.Equal(closure, paths) {
		t.Errorf("Closure of %d paths: %d, %v", len(paths), len(closure), err)
	}
	infos, err := s.Infos(ctx, paths)
	if err != nil || len(infos) != 2000 || infos[1999].Path != paths[1999] {
		t.Errorf("Infos of %d paths: %d, %v", len(paths), len(infos), err)
	}
}

func TestGCRoots(t *testing.T) {
	s := openMoved(t)
	_, outs := s.build(t, "middle")
	direct := filepath.Join(filepath.Dir(s.Dir()), "var/gcroots/a -> b")
	symlink(t, outs[1].In(s.Dir()), direct)
	indirect := filepath.Join(s.dir, "result")
	s.nix(t, "nix-store", "--realise", outs[0].In(s.Dir()), "--add-root", indirect, "--indirect")
	got, err := s.GCRoots(context.Background())
	want := []GCRoot{{indirect, outs[0]}, {direct, outs[1]}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("GCRoots = %v, %v; want %v", got, err, want)
	}
}
