package unpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/zseek"
)

// noise returns n bytes that do not compress.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// source makes a tree with all that a store path can have.
func source(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	sparse := append(append(noise(5000, 1), make([]byte, 1<<20)...), noise(5000, 2)...)
	for name, content := range map[string][]byte{
		"empty": nil, "large": noise(700_000, 3), "sparse": sparse, "zeros": make([]byte, 300_000),
		"dir/small": []byte("small"), "dir/deep/er/file": []byte("deep"), "line\nbreak\\": []byte("name"), "\xff\xfe": []byte("bytes"),
		"UPPER": []byte("1"), "upper": []byte("2"), "a:b": []byte("3"),
	} {
		file := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, content, 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\n"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "emptydir"), 0o755))
	must(t, os.Symlink("/nix/store/x/y", filepath.Join(dir, "dir/absolute")))
	must(t, os.Symlink("../../..", filepath.Join(dir, "dir/up")))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dump returns the NAR of a tree.
func dump(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	_, _, err := nar.Dump(t.Context(), &b, dir)
	must(t, err)
	return b.Bytes()
}

// pack compresses a NAR as a backup has it.
func pack(t testing.TB, n []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zseek.NewWriter(&b, zseek.NewPool(1, 1), zseek.WriterOptions{})
	_, err := w.Write(n)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// item opens a NAR in a container; what the narinfo says is right whatever the
// container has.
func item(t testing.TB, name string, n, container []byte) Item {
	t.Helper()
	compression := "zstd"
	if container == nil {
		compression, container = "none", n
	}
	o := narread.Options{Name: "x.nar", Compression: compression, NarSize: int64(len(n)), NarHash: sha256.Sum256(n)}
	a, err := narread.Open(bytes.NewReader(container), int64(len(container)), o)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return Item{Name: name, Archive: a, NarHash: o.NarHash}
}

// target opens a new directory to restore into.
func target(t testing.TB) (d *Dir, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "to")
	return open(t, path), path
}

func open(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	must(t, err)
	d.hasty = !strings.HasPrefix(t.Name(), "TestRestore") && t.Name() != "TestExFAT"
	t.Cleanup(func() {
		makeWritable(d.root, ".") // for TempDir
		d.Close()
	})
	return d
}

// restore unpacks and commits.
func restore(t testing.TB, d *Dir, it Item) *Tree {
	t.Helper()
	tree, err := d.Unpack(t.Context(), it)
	must(t, err)
	must(t, d.Commit([]*Tree{tree}))
	return tree
}

// is fails the test unless a tree is the NAR n.
func is(t testing.TB, path string, n []byte) {
	t.Helper()
	if !bytes.Equal(dump(t, path), n) {
		t.Errorf("%s is not what was archived", path)
	}
}

// names returns what is in a directory.
func names(t testing.TB, dir string) []string {
	t.Helper()
	found := make(map[string]bool)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		found[e.Name()] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// str is a string of a NAR.
func str(s string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(s)))) + s + strings.Repeat("\x00", -len(s)&7)
}

func words(s ...string) (b string) {
	for _, w := range s {
		b += str(w)
	}
	return b
}

func entry(name, node string) string {
	return words("entry", "(", "name", name, "node") + node + str(")")
}

func fileNode(content string) string { return words("(", "type", "regular", "contents", content, ")") }

func linkNode(target string) string { return words("(", "type", "symlink", "target", target, ")") }

func dirNode(entries ...string) string {
	return words("(", "type", "directory") + strings.Join(entries, "") + str(")")
}

func narOf(node string) []byte { return []byte(str("nix-archive-1") + node) }

// tree describes all that is below a directory, links included.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size())
		return err
	}))
	return b.String()
}
