package nar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

func TestListing(t *testing.T) {
	nar := sample()
	l, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
	must(t, err)
	checkListing(t, l)
	want := []string{"", "bin", "eight", "empty", "empty-dir", "latin1-\xe9", "link", "share", "bin/run", "share/a", "share/a.b", "share/a0"}
	var got []string
	for i := range l.Len() {
		got = append(got, l.Path(i))
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("entries %q\nwant    %q", got, want)
	}
	i, _ := l.Find("bin/run")
	if e := l.Entry(i); string(nar[e.Offset:e.Offset+e.Size]) != "#!/bin/sh\n" || !e.Executable {
		t.Errorf("bin/run is %+v", e)
	}
	for _, path := range []string{"/", "/bin", "bin/", "bin//run", ".", "bin/.", "link/", "link/a", "absent", "bin/run/x", "empty-dir/x", "share/b"} {
		if i, ok := l.Find(path); ok {
			t.Errorf("Find(%q) = %d", path, i)
		}
	}
	if max := int64(32*l.Len() + 200); l.MemSize() > max || l.MemSize() < int64(32*l.Len()) {
		t.Errorf("MemSize %d", l.MemSize())
	}
}

func TestUnsortedListing(t *testing.T) {
	nar := magic(directory(in("b", directory(in("z", file("bz")), in("y", file("by")))), in("a", file("a")), in("c", link("b"))))
	l, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
	must(t, err)
	checkListing(t, l)
	at := bytes.Index(nar, archive("name", "y")) + len(tagName)
	if want := fmt.Sprintf(`NAR at offset %d: directory is not sorted: "y" after "z"`, at); l.Deviation() == nil || l.Deviation().Error() != want {
		t.Errorf("deviation %v, want %s", l.Deviation(), want)
	}
	for path, want := range map[string]string{"a": "a", "b/y": "by", "b/z": "bz"} {
		i, _ := l.Find(path)
		if e := l.Entry(i); string(nar[e.Offset:e.Offset+e.Size]) != want {
			t.Errorf("%s: %+v", path, e)
		}
	}
}

func TestBuilderRefuses(t *testing.T) {
	root := Header{Type: Directory}
	huge := func(name string) Header { return Header{Depth: 1, Name: name, Type: Regular, Size: math.MaxInt64 / 2} }
	tests := map[string][]Header{
		"nothing":      nil,
		"no root":      {{Depth: 1, Name: "a", Type: Regular}},
		"two roots":    {root, root},
		"depth":        {root, {Depth: 2, Name: "a", Type: Regular}},
		"name":         {root, {Depth: 1, Name: "..", Type: Regular}},
		"then a good":  {root, {Depth: 1, Name: "..", Type: Regular}, {Depth: 1, Name: "a", Type: Regular}},
		"more than 8E": {root, huge("a"), huge("b"), huge("c"), huge("d")},
		"same name":    {root, {Depth: 1, Name: "a", Type: Regular}, {Depth: 1, Name: "a", Type: Regular}},
	}
	for name, hs := range tests {
		var b Builder
		var err error
		for _, h := range hs {
			err = b.Add(h)
		}
		if l, err2 := b.Listing(); err2 == nil || l != nil || err != nil && err2 != err {
			t.Errorf("%s: Listing returns %v after %v", name, err2, err)
		}
	}
}

// countingAt counts what is read of a NAR that mostly is not in memory.
type countingAt struct {
	head, tail []byte
	size       int64
	reads      int
	bytes      int64
}

func (c *countingAt) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	c.bytes += int64(len(p))
	clear(p)
	if off < int64(len(c.head)) {
		copy(p, c.head[off:])
	}
	if start := c.size - int64(len(c.tail)) - off; start < 0 {
		copy(p, c.tail[-start:])
	} else if start < int64(len(p)) {
		copy(p[start:], c.tail)
	}
	return len(p), nil
}

func TestReadListingJumps(t *testing.T) {
	const size = 100 << 20
	head := magic("(", "type", "regular", "contents")
	head = append(head, 0, 0, 0x40, 6, 0, 0, 0, 0)
	c := &countingAt{head: head, tail: archive(")"), size: int64(len(head) + size + 16)}
	l, err := ReadListing(c, c.size)
	must(t, err)
	if l.Entry(0).Size != size || c.reads > 2 || c.bytes > 2*smallWindow {
		t.Errorf("%d reads of %d bytes for %+v", c.reads, c.bytes, l.Entry(0))
	}
	for _, wrong := range []int64{c.size - 1, c.size + 1, c.size - size} {
		if _, err := ReadListing(c, wrong); err == nil {
			t.Errorf("size %d: no error", wrong)
		}
	}
}

func TestReadListingOfSmallFiles(t *testing.T) {
	var entries []any
	for i := range 1000 {
		entries = append(entries, in(fmt.Sprintf("%04d", i), file(strings.Repeat("x", 500))))
	}
	nar := magic(directory(entries...))
	c := &countingAt{head: nar, size: int64(len(nar))}
	_, err := ReadListing(c, c.size)
	must(t, err)
	if most := len(nar)/largeWindow + 5; c.reads > most {
		t.Errorf("%d reads, want at most %d", c.reads, most)
	}
}

func TestWriteLSIsThatOfNix(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	root := filepath.Join(dir, "tree")
	writeTree(t, root, map[string]string{
		"a/b/c": "x", "run": "#!", "empty": "", "dir/": "", "link": "->a\"b\\c",
		"\n\r\t\b\f\x01\x1f\x7f\"\\/é\u2028😀<&>'": "x",
	})
	path := strings.TrimSpace(testenv.Run(t, dir, "nix-store", "--store", dir+"/store", "--add", root))
	testenv.Run(t, dir, "nix", "copy", "--store", dir+"/store", "--to", "file://"+dir+"/cache?write-nar-listing=true&compression=none", path)
	hash, _, _ := strings.Cut(filepath.Base(path), "-")
	want, err := os.ReadFile(filepath.Join(dir, "cache", hash+".ls"))
	must(t, err)

	_, l, _ := dump(t, root)
	var got bytes.Buffer
	must(t, l.WriteLS(&got))
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got  %s\nwant %s", got.Bytes(), want)
	}
}

func TestWriteLS(t *testing.T) {
	for nar, want := range map[string]string{
		string(magic(file(""))):    `{"version":1,"root":{"type":"regular","size":0,"narOffset":96}}`,
		string(magic(link("x"))):   `{"version":1,"root":{"type":"symlink","target":"x"}}`,
		string(magic(program(""))): `{"version":1,"root":{"type":"regular","size":0,"executable":true,"narOffset":128}}`,
		string(magic(directory())): `{"version":1,"root":{"type":"directory","entries":{}}}`,
	} {
		l, _ := tolerantListing([]byte(nar))
		must(t, l.err)
		var got strings.Builder
		must(t, l.WriteLS(&got))
		if got.String() != want {
			t.Errorf("got %s, want %s", got.String(), want)
		}
	}
}

func TestWriteLSErrors(t *testing.T) {
	for _, nar := range [][]byte{sample(), magic(link("\xe9"))} {
		l, _ := tolerantListing(nar)
		must(t, l.err)
		var out bytes.Buffer
		if err := l.WriteLS(&out); !errors.Is(err, ErrNotUTF8) || out.Len() > 0 {
			t.Errorf("error %v after %d bytes, want %v", err, out.Len(), ErrNotUTF8)
		}
	}
	l, _ := tolerantListing(magic(file("")))
	must(t, l.err)
	if err := l.WriteLS(&limitedWriter{0, io.ErrClosedPipe}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v, want that of the writer", err)
	}
}
