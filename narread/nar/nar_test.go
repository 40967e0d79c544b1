package nar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// raw is bytes of a NAR that archive does not frame as a string.
type raw string

// archive returns the strings and raw bytes in the encoding of a NAR.
func archive(parts ...any) []byte {
	var b []byte
	for _, part := range parts {
		switch p := part.(type) {
		case raw:
			b = append(b, p...)
		case string:
			b = binary.LittleEndian.AppendUint64(b, uint64(len(p)))
			b = append(b, p...)
			b = append(b, make([]byte, -len(p)&7)...)
		case []any:
			b = append(b, archive(p...)...)
		default:
			panic(fmt.Sprintf("part %T", part))
		}
	}
	return b
}

// Nodes and entries for archive.

func file(contents string) []any {
	return []any{"(", "type", "regular", "contents", contents, ")"}
}

func program(contents string) []any {
	return []any{"(", "type", "regular", "executable", "", "contents", contents, ")"}
}

func link(target string) []any { return []any{"(", "type", "symlink", "target", target, ")"} }

func directory(entries ...any) []any {
	return append(append([]any{"(", "type", "directory"}, entries...), ")")
}

func in(name string, node []any) []any {
	return []any{"entry", "(", "name", name, "node", node, ")"}
}

// nested returns a file in n directories.
func nested(n int) []any {
	node := file("deep")
	for range n {
		node = directory(in("d", node))
	}
	return node
}

func magic(node ...any) []byte { return archive(append([]any{"nix-archive-1"}, node...)...) }

// sample is a NAR with one of everything.
func sample() []byte {
	return magic(directory(
		in("bin", directory(in("run", program("#!/bin/sh\n")))),
		in("eight", file("12345678")),
		in("empty", file("")),
		in("empty-dir", directory()),
		in("latin1-\xe9", file("names are bytes")),
		in("link", link("bin/run")),
		in("share", directory(in("a", file("a")), in("a.b", file("ab")), in("a0", file("abc")))),
	))
}

// A parsed node and its contents.
type parsed struct {
	Header
	contents string
}

// parse reads a whole NAR, contents included.
func parse(nar []byte, o ReaderOptions) ([]parsed, *Reader, error) {
	r := NewReader(bytes.NewReader(nar), o)
	var all []parsed
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, r, nil
		}
		if err != nil {
			return all, r, err
		}
		contents, err := io.ReadAll(r)
		if err != nil {
			return all, r, err
		}
		all = append(all, parsed{h, string(contents)})
	}
}

// rewrite writes what parse returned.
func rewrite(t testing.TB, all []parsed) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, p := range all {
		if err := w.WriteHeader(p.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, p.contents); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// headers strips the contents, for comparison with a Listing.
func headers(all []parsed) []Header {
	var hs []Header
	for _, p := range all {
		hs = append(hs, p.Header)
	}
	return hs
}

// depthFirst returns the headers that l was made from, if they were sorted.
func depthFirst(l *Listing) []Header {
	var hs []Header
	var visit func(i, depth int)
	visit = func(i, depth int) {
		e := l.Entry(i)
		hs = append(hs, Header{depth, e.Name, e.Type, e.Executable, e.Size, e.Offset, e.Target})
		for j := e.First; j < e.First+e.N; j++ {
			visit(j, depth+1)
		}
	}
	visit(0, 0)
	return hs
}

// checkListing checks what holds for every Listing.
func checkListing(t testing.TB, l *Listing) {
	t.Helper()
	next := 1
	for i := range l.Len() {
		e := l.Entry(i)
		if got, ok := l.Find(l.Path(i)); !ok || got != i {
			t.Fatalf("Find(%q) = %d, %v, want %d", l.Path(i), got, ok, i)
		}
		if e.N == 0 {
			continue
		}
		if e.First != next {
			t.Fatalf("entry %d has First %d, want %d", i, e.First, next)
		}
		next += e.N
		for j := e.First; j < next; j++ {
			if c := l.Entry(j); c.Parent != i || j > e.First && c.Name <= l.Entry(j-1).Name {
				t.Fatalf("entry %d has child %d = %+v", i, j, c)
			}
		}
	}
	if next != l.Len() {
		t.Fatalf("%d entries are reachable, there are %d", next, l.Len())
	}
}

// sameListing compares everything but deviations.
func sameListing(t testing.TB, what string, got, want *Listing) {
	t.Helper()
	if !slices.Equal(got.entries, want.entries) || got.text != want.text || got.narSize != want.narSize {
		t.Errorf("%s: the listings differ: %d and %d entries, sizes %d and %d",
			what, got.Len(), want.Len(), got.narSize, want.narSize)
	}
}

// randomNode returns a node with up to 6 levels below it.
func randomNode(rnd *rand.Rand, levels int) []any {
	switch k := rnd.IntN(10); {
	case k < 4 && levels > 0:
		names := map[string]bool{}
		for range rnd.IntN(8) {
			names[randomName(rnd)] = true
		}
		var entries []any
		for _, name := range sortedKeys(names) {
			entries = append(entries, in(name, randomNode(rnd, levels-1)))
		}
		return directory(entries...)
	case k < 5:
		return link(randomText(rnd, 1+rnd.IntN(40)))
	case k < 6:
		return program(randomText(rnd, rnd.IntN(100)))
	}
	// Now and then more than a window, and more than a buffer.
	return file(randomText(rnd, []int{0, 7, 8, 9, 100, 5000, 20000, 70000}[rnd.IntN(8)]))
}

func sortedKeys(m map[string]bool) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func randomName(rnd *rand.Rand) string {
	for {
		name := strings.ReplaceAll(randomText(rnd, 1+rnd.IntN(20)), "/", "-")
		if rnd.IntN(20) == 0 {
			name = strings.Repeat("n", MaxName)
		}
		if nameProblem(name) == "" {
			return name
		}
	}
}

// randomText returns n bytes, none of them NUL.
func randomText(rnd *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + rnd.IntN(255))
	}
	return string(b)
}
