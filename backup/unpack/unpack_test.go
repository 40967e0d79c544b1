package unpack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/testenv"
)

// A tree comes out as it went in, and a second time is left alone.
func TestRestore(t *testing.T) {
	n := dump(t, source(t))
	for kind, container := range map[string][]byte{"zstd": pack(t, n), "none": nil} {
		t.Run(kind, func(t *testing.T) {
			d, to := target(t)
			tree := restore(t, d, item(t, "p", n, container))
			if tree.State != Restored || len(tree.LeftOut) > 0 || len(tree.Files) != 12 {
				t.Errorf("got %+v", tree)
			}
			is(t, filepath.Join(to, "p"), n)
			for name, want := range map[string]fs.FileMode{"p/program": 0o555, "p/upper": 0o444, "p/dir/deep": fs.ModeDir | 0o555} {
				st, err := os.Lstat(filepath.Join(to, name))
				must(t, err)
				if st.Mode() != want || st.ModTime().Unix() != 1 {
					t.Errorf("%s: %v, %v", name, st.Mode(), st.ModTime())
				}
			}
			if again := restore(t, d, item(t, "p", n, container)); again.State != Kept || len(again.Files) != 12 || again.Files[3] != tree.Files[3] {
				t.Errorf("the second time: %+v", again)
			}
			if got := names(t, to); !slices.Equal(got, []string{"p"}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestHoles(t *testing.T) {
	d, to := target(t)
	restore(t, d, item(t, "p", dump(t, source(t)), nil))
	for name, most := range map[string]int64{"p/sparse": 32, "p/zeros": 8} { // blocks of 512 bytes
		st, err := os.Stat(filepath.Join(to, name))
		must(t, err)
		if got := st.Sys().(*syscall.Stat_t).Blocks; got > most {
			t.Errorf("%s takes %d blocks of %d bytes", name, got, st.Size())
		}
	}
}

// The root of a store path may be a file or a symlink.
func TestRestoreRoots(t *testing.T) {
	d, to := target(t)
	restore(t, d, item(t, "file", narOf(fileNode("content")), nil))
	restore(t, d, item(t, "link", narOf(linkNode("/away")), nil))
	is(t, filepath.Join(to, "file"), narOf(fileNode("content")))
	if got, err := os.Readlink(filepath.Join(to, "link")); got != "/away" {
		t.Error(got, err)
	}
	if again := restore(t, d, item(t, "link", narOf(linkNode("/away")), nil)); again.State != Kept {
		t.Errorf("the second time: %+v", again)
	}
}

func TestRelink(t *testing.T) {
	d, to := target(t)
	it := item(t, "p", dump(t, source(t)), nil)
	it.Relink = func(target string, depth int) string { return strings.Repeat("../", depth) + filepath.Base(target) }
	restore(t, d, it)
	if got, err := os.Readlink(filepath.Join(to, "p/dir/absolute")); got != "../../y" {
		t.Error(got, err)
	}
}

// What is below an archive.
func TestSelection(t *testing.T) {
	n := dump(t, source(t))
	d, to := target(t)
	for path, want := range map[string]string{"dir/deep": "er", "dir/small": "", "dir": "absolute deep small up"} {
		it := item(t, filepath.Base(path)+"-x", n, nil)
		it.Path = path
		restore(t, d, it)
		if want != "" {
			if got := strings.Join(names(t, filepath.Join(to, it.Name)), " "); got != want {
				t.Errorf("%s: %q", path, got)
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join(to, "small-x")); string(text) != "small" {
		t.Error(string(text), err)
	}
	it := item(t, "none", n, nil)
	it.Path = "dir/de" // only the beginning of a name
	if _, err := d.Unpack(t.Context(), it); err == nil {
		t.Error("what is not there was restored")
	}
}

// Whatever an interrupted run left, or somebody put in its place, the outcome
// is right, and what was right is not written again.
func TestResume(t *testing.T) {
	n := dump(t, source(t))
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("mine"), 0o644))
	for name, disturb := range map[string]func(t *testing.T, temp string){
		"nothing":        func(*testing.T, string) {},
		"truncated":      func(t *testing.T, temp string) { must(t, os.Truncate(temp+"/large", 300_001)) },
		"longer":         func(t *testing.T, temp string) { must(t, os.Truncate(temp+"/large", 900_000)) },
		"zeros at start": func(t *testing.T, temp string) { overwrite(t, temp+"/large", 0, 500) },
		"zeros at end":   func(t *testing.T, temp string) { overwrite(t, temp+"/large", 699_000, 1000) },
		"hole filled":    func(t *testing.T, temp string) { must(t, os.WriteFile(temp+"/zeros", noise(300_000, 9), 0o600)) },
		"file missing":   func(t *testing.T, temp string) { must(t, os.Remove(temp+"/dir/small")) },
		"foreign file":   func(t *testing.T, temp string) { must(t, os.WriteFile(temp+"/dir/foreign", nil, 0o600)) },
		"link for file": func(t *testing.T, temp string) {
			must(t, os.Remove(temp+"/large"))
			must(t, os.Symlink(outside, temp+"/large"))
		},
		"hard link": func(t *testing.T, temp string) {
			must(t, os.Remove(temp+"/large"))
			must(t, os.Link(outside, temp+"/large"))
		},
		"link for directory": func(t *testing.T, temp string) {
			must(t, os.RemoveAll(temp+"/dir"))
			must(t, os.Symlink(filepath.Dir(outside), temp+"/dir"))
		},
		"directory for file": func(t *testing.T, temp string) {
			must(t, os.Remove(temp+"/large"))
			must(t, os.MkdirAll(temp+"/large/x/y", 0o700))
			must(t, os.Chmod(temp+"/large/x", 0o500))
			must(t, os.Chmod(temp+"/large", 0o500))
		},
		"pipe for file": func(t *testing.T, temp string) {
			must(t, os.Remove(temp+"/large"))
			must(t, syscall.Mkfifo(temp+"/large", 0o600))
		},
		"file for directory": func(t *testing.T, temp string) {
			must(t, os.RemoveAll(temp+"/emptydir"))
			must(t, os.WriteFile(temp+"/emptydir", nil, 0o400))
		},
		"file for link": func(t *testing.T, temp string) {
			must(t, os.Remove(temp+"/dir/up"))
			must(t, os.WriteFile(temp+"/dir/up", nil, 0o400))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, to := target(t)
			it := item(t, "p", n, pack(t, n))
			temp := filepath.Join(to, tempName(it))
			_, err := d.Unpack(t.Context(), it) // and no Commit
			must(t, err)
			must(t, makeWritable(d.root, tempName(it)))
			held, err := os.Open(temp + "/sparse") // so that its inode is not used again
			must(t, err)
			defer held.Close()
			before, err := held.Stat()
			must(t, err)
			for _, name := range []string{"/large", "/zeros"} {
				must(t, os.Chmod(temp+name, 0o600))
			}
			disturb(t, temp)
			if tree := restore(t, d, it); tree.State != Restored {
				t.Errorf("got %+v", tree)
			}
			is(t, filepath.Join(to, "p"), n)
			after, err := os.Stat(to + "/p/sparse")
			must(t, err)
			if kept := os.SameFile(before, after); kept != (name != "foreign file") {
				t.Errorf("a file that was right was kept: %v", kept)
			}
			if text, err := os.ReadFile(outside); string(text) != "mine" {
				t.Fatalf("outside is now %q, %v", text, err)
			}
		})
	}
}

func overwrite(t *testing.T, name string, off int64, n int) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, n), off)
	must(t, err)
}

// An interrupted run leaves nothing under its name.
func TestCanceled(t *testing.T) {
	n := dump(t, source(t))
	for stop := 0; stop < len(n); stop += 400_000 {
		d, to := target(t)
		ctx, cancel := context.WithCancel(t.Context())
		it := item(t, "p", n, pack(t, n))
		read := 0
		it.Read = func(n int) {
			if read += n; read > stop {
				cancel()
			}
		}
		if _, err := d.Unpack(ctx, it); !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d bytes: %v", stop, err)
		}
		for _, name := range names(t, to) {
			if !strings.HasPrefix(name, ".narvault-") {
				t.Errorf("after %d bytes there is %s", stop, name)
			}
		}
		it.Read = nil
		restore(t, d, it)
		is(t, filepath.Join(to, "p"), n)
	}
}

// What is there under its name is never changed.
func TestDiffering(t *testing.T) {
	n := dump(t, source(t))
	for name, disturb := range map[string]func(p string) error{
		"content":    func(p string) error { return os.WriteFile(p+"/dir/small", []byte("smaLl"), 0o644) },
		"size":       func(p string) error { return os.WriteFile(p+"/dir/small", []byte("smalll"), 0o644) },
		"mode":       func(p string) error { return os.Chmod(p+"/program", 0o644) },
		"missing":    func(p string) error { return os.Remove(p + "/upper") },
		"extra":      func(p string) error { return os.WriteFile(p+"/emptydir/x", nil, 0o644) },
		"link":       func(p string) error { return errors.Join(os.Remove(p+"/dir/up"), os.Symlink("..", p+"/dir/up")) },
		"type":       func(p string) error { return errors.Join(os.Remove(p+"/upper"), os.Symlink("/etc/passwd", p+"/upper")) },
		"pipe":       func(p string) error { return errors.Join(os.Remove(p+"/upper"), syscall.Mkfifo(p+"/upper", 0o600)) },
		"all a link": func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) },
	} {
		t.Run(name, func(t *testing.T) {
			d, to := target(t)
			restore(t, d, item(t, "p", n, nil))
			must(t, makeWritable(d.root, "p"))
			must(t, os.Chmod(to+"/p/dir/small", 0o644))
			must(t, disturb(to+"/p"))
			before := tree(t, to)
			if got := restore(t, d, item(t, "p", n, nil)); got.State != Differing || got.Err == nil || len(got.Files) > 0 {
				t.Errorf("got %+v", got)
			}
			if after := tree(t, to); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// Archives that try to get out, or that are none, whose hash is right.
func TestHostile(t *testing.T) {
	outside := t.TempDir()
	for name, node := range map[string]string{
		"link, then directory of its name": dirNode(entry("a", linkNode(outside)), entry("a", dirNode(entry("x", fileNode("evil"))))),
		"the same, apart":                  dirNode(entry("b", linkNode(outside)), entry("a", fileNode("")), entry("b", dirNode(entry("x", fileNode("evil"))))),
		"link, then file of its name":      dirNode(entry("b", linkNode(outside+"/x")), entry("a", fileNode("")), entry("b", fileNode("evil"))),
		"name with slash":                  dirNode(entry("../"+filepath.Base(outside)+"/x", fileNode("evil"))),
		"name ..":                          dirNode(entry("..", dirNode(entry("x", fileNode("evil"))))),
		"cut short":                        dirNode(entry("x", fileNode("evil")))[:100],
		"no NAR":                           words("(", "type", "socket", ")"),
	} {
		d, to := target(t)
		tree := restore(t, d, item(t, "p", narOf(node), nil))
		var damage *narread.DamageError
		if tree.State != Damaged || !errors.As(tree.Err, &damage) {
			t.Errorf("%s: %+v", name, tree)
		}
		if got := append(names(t, to), names(t, outside)...); len(got) > 0 {
			t.Errorf("%s: there is %q", name, got)
		}
	}
}

// Symlinks that lie in the directory lead nowhere.
func TestHostileDirectory(t *testing.T) {
	outside := t.TempDir()
	n := narOf(dirNode(entry("x", fileNode("content"))))
	d, to := target(t)
	it := item(t, "p", n, nil)
	must(t, os.Symlink(outside, filepath.Join(to, tempName(it))))
	must(t, os.Symlink(filepath.Join(outside, "sums"), filepath.Join(to, tempSums)))
	restore(t, d, it)
	is(t, filepath.Join(to, "p"), n)
	must(t, os.Symlink(outside, filepath.Join(to, "q")))
	if tree := restore(t, d, item(t, "q", n, nil)); tree.State != Differing {
		t.Errorf("got %+v", tree)
	}
	sums, err := d.NewSums()
	must(t, err)
	must(t, sums.Finish([]byte("{}\n")))
	must(t, sums.Close())
	if got := names(t, outside); len(got) > 0 {
		t.Errorf("outside there is %q", got)
	}
}

// Whatever bit of an archive flips, no wrong byte is restored, only what is
// whole gets the name, and files that are whole are saved.
func TestDamage(t *testing.T) {
	n := dump(t, source(t))
	good := pack(t, n)
	saved := 0
	for offset := 0; offset < len(good); offset += len(good) / 15 {
		container := bytes.Clone(good)
		container[offset] ^= 4
		d, to := target(t)
		o := narread.Options{Name: "x.nar", Compression: "zstd", NarSize: int64(len(n)), NarHash: item(t, "p", n, nil).NarHash}
		a, err := narread.Open(bytes.NewReader(container), int64(len(container)), o)
		if err != nil {
			continue
		}
		tree := restore(t, d, Item{Name: "p", Archive: a, NarHash: o.NarHash})
		switch tree.State {
		case Restored:
			is(t, filepath.Join(to, "p"), n)
		case Damaged:
			saved += wantSaved(t, tree, to, n)
		default:
			t.Errorf("byte %d: %+v", offset, tree)
		}
		a.Close()
		if t.Failed() {
			t.Fatalf("with byte %d flipped", offset)
		}
		// When the archive is whole again, so is the tree.
		restore(t, d, item(t, "p", n, good))
		is(t, filepath.Join(to, "p"), n)
		if got := names(t, to); !slices.Equal(got, []string{"p"}) {
			t.Errorf("there is %q", got)
		}
	}
	if saved == 0 {
		t.Error("nothing was ever saved")
	}
}

// wantSaved checks what was saved of a damaged archive, against the whole one.
func wantSaved(t *testing.T, tree *Tree, to string, n []byte) int {
	t.Helper()
	var damage *narread.DamageError
	if !errors.As(tree.Err, &damage) {
		t.Errorf("damage, and the error is %v", tree.Err)
	}
	if _, err := os.Lstat(filepath.Join(to, "p")); err == nil {
		t.Error("a damaged tree has the name")
	}
	whole, dir := target(t)
	restore(t, whole, item(t, "p", n, nil))
	for _, f := range tree.Files {
		want, err := os.ReadFile(filepath.Join(dir, f.Path))
		must(t, err)
		got, err := os.ReadFile(filepath.Join(to, "p.damaged"+strings.TrimPrefix(f.Path, "p")))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was saved wrongly: %v", f.Path, err)
		}
	}
	return len(tree.Files)
}

// Two cannot work in one directory.
func TestBusy(t *testing.T) {
	d, to := target(t)
	if _, err := Open(to); !errors.Is(err, ErrBusy) {
		t.Errorf("a second time: %v", err)
	}
	must(t, d.Close())
	second, err := Open(to)
	must(t, err)
	must(t, second.Close())
}

// All of this holds for an ordinary user, whom modes concern.
func TestOrdinaryUser(t *testing.T) {
	testenv.Need(t, "root")
	dir, err := os.MkdirTemp("", "narvault-unpack-") // t.TempDir is closed to others
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	test := filepath.Join(dir, "test")
	must(t, os.WriteFile(test, self, 0o755))
	temp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(temp, 0o777))
	must(t, os.Chmod(temp, 0o777))
	cmd := exec.Command(test, "-test.run=^(TestRestore|TestResume|TestCanceled|TestDiffering|TestHostile|TestHostileDirectory|TestDamage)$", "-test.v")
	cmd.Dir, cmd.Env = temp, append(os.Environ(), "TMPDIR="+temp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestDamage")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The lines are those of sha256sum, and those of other trees stay.
func TestSums(t *testing.T) {
	n := dump(t, source(t))
	d, to := target(t)
	for _, name := range []string{"p", "q", "p"} {
		sums, err := d.NewSums()
		must(t, err)
		sums.Add(restore(t, d, item(t, name, n, nil)))
		must(t, sums.Finish([]byte("{}\n")))
		must(t, sums.Close())
	}
	text, err := os.ReadFile(filepath.Join(to, SumsFile))
	must(t, err)
	if lines := bytes.Count(text, []byte("\n")); lines != 24 {
		t.Errorf("%d lines:\n%s", lines, text)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", SumsFile)
	cmd.Dir = to
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}
