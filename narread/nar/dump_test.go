package nar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/narread/testenv"
)

func dump(t testing.TB, path string) ([]byte, *Listing, []string) {
	t.Helper()
	var b bytes.Buffer
	l, warnings, err := Dump(t.Context(), &b, path)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), l, warnings
}

// writeTree makes files at path, below which a name that ends in / is a
// directory, contents that start with -> a symlink, and #! an executable.
func writeTree(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, contents := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(path, 0o755))
		case strings.HasPrefix(contents, "->"):
			must(t, os.Symlink(contents[2:], path))
		case strings.HasPrefix(contents, "#!"):
			must(t, os.WriteFile(path, []byte(contents), 0o755))
		default:
			must(t, os.WriteFile(path, []byte(contents), 0o644))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// oddTree has what is easily done wrong.
func oddTree(t testing.TB) string {
	root := filepath.Join(t.TempDir(), "odd")
	writeTree(t, root, map[string]string{
		"empty": "", "empty-dir/": "", "seven": "1234567", "eight": "12345678", "nine": "123456789",
		"long-link": "->" + strings.Repeat("l/", 2047) + "l", "dangling": "->/does/not/exist", "self": "->.",
		"latin1-\xe9": "x", "new\nline": "x", "back\\slash \"quoted\"": "x", strings.Repeat("n", MaxName): "x",
		"a": "1", "a.b": "2", "a0": "3", "aB": "4", "ab": "5", "A": "6", "\x80": "7", "z": "8", "...": "9",
		"run": "#!/bin/sh\n", "large": strings.Repeat("0123456789", 100000),
		"exact":                        strings.Repeat("x", largeBuffer),
		strings.Repeat("d/", 40):       "",
		strings.Repeat("e/", 50):       "",
		"e/e/e/e/e/f":                  "in between",
		strings.Repeat("d/", 35) + "z": "behind",
	})
	must(t, os.Chmod(filepath.Join(root, "a"), 0o611)) // executable, but not by its owner
	must(t, os.Chmod(filepath.Join(root, "ab"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "sparse"), nil, 0o644))
	must(t, os.Truncate(filepath.Join(root, "sparse"), 3<<20+5))
	return root
}

func TestDumpIsThatOfNix(t *testing.T) {
	testenv.Need(t, "nix")
	root := oddTree(t)
	for _, name := range []string{"", "empty", "empty-dir", "run", "dangling", "large", "exact", "sparse", "latin1-\xe9"} {
		path := filepath.Join(root, name)
		got, l, warnings := dump(t, path)
		if want := testenv.Run(t, root, "nix-store", "--dump", path); string(got) != want {
			t.Errorf("%q: %d bytes, nix-store --dump has %d others", name, len(got), len(want))
		}
		for _, w := range warnings {
			if !strings.Contains(w, "in case only") {
				t.Errorf("%q: warning %q", name, w)
			}
		}
		checkListings(t, got, l)
	}
}

func TestDumpPathForms(t *testing.T) {
	root := oddTree(t)
	want, _, _ := dump(t, root)
	t.Chdir(root)
	for _, path := range []string{".", root + "/", "../odd", root + "/d/.."} {
		if got, _, _ := dump(t, path); !bytes.Equal(got, want) {
			t.Errorf("%q: other bytes than by its path", path)
		}
	}
}

// checkListings checks that the three ways to a listing agree.
func checkListings(t testing.TB, nar []byte, dumped *Listing) {
	t.Helper()
	nodes, r, err := parse(nar, ReaderOptions{Strict: true})
	must(t, err)
	if got := fmt.Sprint(depthFirst(dumped)); got != fmt.Sprint(headers(nodes)) {
		t.Errorf("the listing of the dump is not what the Reader reads: %d and %d entries", dumped.Len(), len(nodes))
	}
	if r.Offset() != int64(len(nar)) || dumped.NarSize() != int64(len(nar)) {
		t.Errorf("sizes: Reader %d, listing %d, want %d", r.Offset(), dumped.NarSize(), len(nar))
	}
	scanned, _ := tolerantListing(nar)
	must(t, scanned.err)
	jumped, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
	must(t, err)
	sameListing(t, "Reader.Listing", scanned.Listing, dumped)
	sameListing(t, "ReadListing", jumped, dumped)
	checkListing(t, dumped)
	if again := rewrite(t, nodes); !bytes.Equal(again, nar) {
		t.Error("written again, the NAR differs")
	}
}

func TestDumpDeep(t *testing.T) {
	root := t.TempDir()
	const levels = 1500 // more than file descriptors, its path still fits into PATH_MAX
	limitFiles(t, 64)
	deep := root
	for i := range levels {
		deep += "/d"
		must(t, os.Mkdir(deep, 0o755))
		if i%100 == 0 {
			must(t, os.WriteFile(deep+"/z", []byte("behind"), 0o644))
		}
	}
	got, l, warnings := dump(t, root)
	if want := levels + 1 + levels/100; l.Len() != want {
		t.Errorf("%d entries, want %d", l.Len(), want)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], root+strings.Repeat("/d", 64)+": nested 64 deep") {
		t.Errorf("warnings %q", warnings)
	}
	if open := openFiles(t); open > 20 {
		t.Errorf("%d files are open afterwards", open)
	}
	testenv.Need(t, "nix")
	if want := testenv.Run(t, root, "nix-store", "--dump", root); string(got) != want {
		t.Error("other bytes than nix-store --dump")
	}
}

// limitFiles limits the file descriptors of this process until the test ends.
func limitFiles(t *testing.T, n uint64) {
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}))
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestDumpTooDeep(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_DIRECTORY, 0)
	must(t, err)
	for range MaxDepth + 1 {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := openAt(fd, "d", unix.O_DIRECTORY)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	_, _, err = Dump(t.Context(), io.Discard, root)
	if err == nil || !strings.Contains(err.Error(), "nested 4097 deep") {
		t.Errorf("error %.200v", err)
	}
}

func TestDumpWarnings(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{}
	for i := range maxWarnings + 5 {
		files[fmt.Sprintf("sub/x%s%02d", caseHackSuffix, i)] = ""
	}
	writeTree(t, root, files)
	_, _, warnings := dump(t, root)
	if len(warnings) != maxWarnings+1 {
		t.Fatalf("%d warnings: %q", len(warnings), warnings)
	}
	if first := warnings[0]; !strings.HasPrefix(first, root+"/sub/x~nix~case~hack~00: the name contains") {
		t.Errorf("first warning %q", first)
	}
	if last := warnings[maxWarnings]; !strings.Contains(last, "5 more warnings") {
		t.Errorf("last warning %q", last)
	}
}

func TestDumpUnsupported(t *testing.T) {
	root := t.TempDir()
	pipe := filepath.Join(root, "sub", "pipe")
	writeTree(t, root, map[string]string{"sub/a": ""})
	must(t, unix.Mkfifo(pipe, 0o644))
	for _, path := range []string{root, pipe} {
		_, _, err := Dump(t.Context(), io.Discard, path)
		if !errors.Is(err, errUnsupported) || !strings.Contains(err.Error(), pipe) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	_, _, err := Dump(t.Context(), io.Discard, filepath.Join(root, "absent"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("absent: error %v", err)
	}
}

// A hook is a writer that calls its function once, when it is written to.
type hook struct {
	io.Writer
	call func()
}

func (h *hook) Write(p []byte) (int, error) {
	if h.call != nil {
		h.call()
		h.call = nil
	}
	return h.Writer.Write(p)
}

// TestDumpChanged changes the tree when the first bytes of large, which is
// dumped first, are written.
func TestDumpChanged(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	outside := t.TempDir()
	writeTree(t, outside, map[string]string{"secret": "not to be dumped"})
	tests := []struct {
		name, object string
		change       func(root string) error
	}{
		{"file shrinks", "large", func(root string) error { return os.Truncate(root+"/large", 500000) }},
		{"file grows", "large", func(root string) error { return os.Truncate(root+"/large", 1<<20+1) }},
		{"directory becomes a symlink", "sub", func(root string) error {
			return errors.Join(os.RemoveAll(root+"/sub"), os.Symlink(outside, root+"/sub"))
		}},
		{"file becomes a symlink", "z", func(root string) error {
			return errors.Join(os.Remove(root+"/z"), os.Symlink(outside+"/secret", root+"/z"))
		}},
		{"file becomes a pipe", "z", func(root string) error {
			return errors.Join(os.Remove(root+"/z"), unix.Mkfifo(root+"/z", 0o644))
		}},
		{"symlink becomes a file", "zz", func(root string) error {
			return errors.Join(os.Remove(root+"/zz"), os.WriteFile(root+"/zz", nil, 0o644))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			writeTree(t, root, map[string]string{"large": large, "sub/a": "", "z": "1", "zz": "->z"})
			var out bytes.Buffer
			_, _, err := Dump(t.Context(), &hook{&out, func() { must(t, tt.change(root)) }}, root)
			if want := root + "/" + tt.object + ": changed while it was read"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
			if strings.Contains(out.String(), "not to be dumped") {
				t.Error("a file outside was dumped")
			}
		})
	}
}

// TestDumpMovedDirectory moves a directory away while the dump is so deep in
// it that the directories around it are closed.
func TestDumpMovedDirectory(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	deep := strings.Repeat("d/", maxOpenDirs+10)
	writeTree(t, root, map[string]string{deep + "large": strings.Repeat("x", 1<<20), "d/d/z": "1"})
	_, _, err := Dump(t.Context(), &hook{io.Discard, func() {
		must(t, os.Rename(root+"/d/d/d", elsewhere+"/d"))
	}}, root)
	if !errors.Is(err, errChanged) {
		t.Errorf("error %v, want %v", err, errChanged)
	}
}

func TestDumpCancelled(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{"large": strings.Repeat("x", 4<<20)})
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	_, _, err := Dump(ctx, &hook{&out, cancel}, root)
	if !errors.Is(err, context.Canceled) || out.Len() > 1<<20 {
		t.Errorf("error %v after %d bytes", err, out.Len())
	}
}

func TestDumpWriteError(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{"large": strings.Repeat("x", 1<<20)})
	want := errors.New("disk full")
	for n := range 5 {
		if _, _, err := Dump(t.Context(), &limitedWriter{n, want}, root); !errors.Is(err, want) {
			t.Errorf("after %d writes: error %v", n, err)
		}
	}
}

// A limitedWriter fails after some writes.
type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}
