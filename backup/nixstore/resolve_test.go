package nixstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
)

func TestResolve(t *testing.T) {
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, outs []storepath.Path) {
		top, link := outs[0], s.named(t, drv, "link")
		middle := s.named(t, drv, "middle")
		dir := t.TempDir()
		t.Chdir(dir)
		result := symlink(t, top.In(s.Dir()), "result")
		symlink(t, "result", "second")
		symlink(t, filepath.Join(dir, "second"), "third")
		symlink(t, middle.In(s.Dir()), "profile-1-link")
		symlink(t, "profile-1-link", "profile")
		symlink(t, link.In(s.Dir()), "to-link")
		symlink(t, ".", "here")
		if err := os.Mkdir("sub", 0o755); err != nil {
			t.Fatal(err)
		}
		symlink(t, "../profile/bin/tool", "sub/tool")
		symlink(t, "sub", "alias")
		for _, test := range []struct {
			name, arg string
			want      storepath.Path
		}{
			{"store path", top.In(s.Dir()), top},
			{"with slashes", top.In(s.Dir()) + "//", top},
			{"below a store path", middle.In(s.Dir()) + "/bin/tool", middle},
			{"derivation", drv.In(s.Dir()), drv},
			{"real path", s.RealPath(top), top},
			{"hash", top.Hash(), top},
			{"base name", string(top), top},
			{"a store path that is a symlink", link.In(s.Dir()), link},
			{"symlink to one", "to-link", link},
			{"relative", "./result", top},
			{"without a slash", result, top},
			{"absolute", filepath.Join(dir, "result"), top},
			{"chain", "third", top},
			{"profile", "profile", middle},
			{"below a profile", "profile/bin", middle},
			{"file below a profile", "profile/bin/tool", middle},
			{"through a directory symlink", "here/here/profile", middle},
			{"dot dot in a link", "alias/tool", middle},
			{"dot dot", "sub/../result", top},
		} {
			got, err := s.Resolve(test.arg)
			if err != nil || got != test.want {
				t.Errorf("%s: Resolve(%q) = %s, %v; want %s", test.name, test.arg, got, err, test.want)
			}
		}
	})
}

// named returns the path in the closure of drv that is called name.
func (s *testStore) named(t *testing.T, drv storepath.Path, name string) storepath.Path {
	t.Helper()
	for _, p := range s.paths(t, "nix-store", "-qR", "--include-outputs", drv.In(s.Dir())) {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("no %s in the closure of %s", name, drv)
	return ""
}

func TestResolveErrors(t *testing.T) {
	s := openChroot(t)
	p := s.add(t, "file", "x")
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "plain", "")
	symlink(t, "plain", "to-plain")
	symlink(t, "nowhere", "dangling")
	symlink(t, "loop-b", "loop-a")
	symlink(t, "loop-a", "loop-b")
	symlink(t, absent.In(s.Dir()), "collected")
	for _, test := range []struct {
		name, arg string
		want      error
	}{
		{"empty", "", ErrNotInStore},
		{"no such file", "./nothing", fs.ErrNotExist},
		{"below a file", "plain/x", syscall.ENOTDIR},
		{"dangling", "dangling", fs.ErrNotExist},
		{"loop", "loop-a", syscall.ELOOP},
		{"outside", "plain", ErrNotInStore},
		{"link outside", "to-plain", ErrNotInStore},
		{"root", "/", ErrNotInStore},
		{"store directory", s.Dir(), ErrNotInStore},
		{"real store directory", s.real, ErrNotInStore},
		{"not a store path", s.Dir() + "/.links", ErrNotInStore},
		{"collected", "collected", fs.ErrNotExist},
		{"store path without files", absent.In(s.Dir()), fs.ErrNotExist},
		{"base name without files", string(absent), fs.ErrNotExist},
		{"hash", absent.Hash(), fs.ErrNotExist},
		{"another store", "/other/store/" + string(p), fs.ErrNotExist},
	} {
		got, err := s.Resolve(test.arg)
		if got != "" || !errors.Is(err, test.want) || !strings.Contains(err.Error(), `"`+test.arg+`"`) {
			t.Errorf("%s: Resolve(%q) = %q, %v; want %v and the argument in it", test.name, test.arg, got, err, test.want)
		}
	}
}

// TestResolveHash: files that begin with the hash of a path but are not valid.
func TestResolveHash(t *testing.T) {
	s := openChroot(t)
	p := s.add(t, "file", "x")
	write(t, s.RealPath(p)+".lock", "")
	if got, err := s.Resolve(p.Hash()); err != nil || got != p {
		t.Errorf("beside a lock file: %s, %v; want %s", got, err, p)
	}
	for _, name := range []string{"-a", "-b"} {
		write(t, filepath.Join(s.real, absent.Hash()+name), "")
	}
	if got, err := s.Resolve(absent.Hash()); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("two files, none of them valid: %s, %v; want ErrAmbiguous", got, err)
	}
}

func TestRealDirs(t *testing.T) {
	t.Chdir("/usr")
	env := []string{"HOME=/home/u"}
	const rootless = "/home/u/.local/share/nix/root/nix/store"
	for setting, want := range map[string][]string{
		"":                             {"/s", rootless},
		"auto":                         {"/s", rootless},
		"daemon":                       {"/s"},
		"local":                        {"/s"},
		"local?x=y":                    {"/s"},
		"unix:///run/socket":           {"/s"},
		"/mnt":                         {"/mnt/nix/store"},
		"./mnt/":                       {"/usr/mnt/nix/store"},
		"/mnt?store=/other":            {"/mnt/nix/store"},
		"local?root=/mnt":              {"/mnt/nix/store"},
		"local?state=/x&root=/m%20t":   {"/m t/nix/store"},
		"local?root=/mnt&real=/data":   {"/data"},
		"/mnt?real=/data":              {"/data"},
		"local:///mnt":                 {"/mnt/nix/store"},
		"local://?root=/mnt":           {"/mnt/nix/store"},
		"unix:///run/socket?root=/mnt": {"/mnt/nix/store"},
		"local-overlay://?root=/a&lower-store=/b": {"/a/nix/store"},
	} {
		got, err := realDirs(setting, "/s", env)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("realDirs(%q) = %q, %v; want %q", setting, got, err, want)
		}
		if err := checkLocal(setting); err != nil {
			t.Errorf("checkLocal(%q) = %v", setting, err)
		}
	}
	for _, setting := range []string{"ssh://host", "ssh-ng://h?x", "https://cache", "file:///cache", "s3://b", "dummy://"} {
		if err := checkLocal(setting); !errors.Is(err, ErrNotLocal) {
			t.Errorf("checkLocal(%q) = %v, want ErrNotLocal", setting, err)
		}
	}
}
