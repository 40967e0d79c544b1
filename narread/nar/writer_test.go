package nar

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestWriterRefuses(t *testing.T) {
	root := Header{Type: Directory}
	long := Header{Depth: 1, Name: "m", Type: Regular, Size: 10}
	tests := []struct {
		name string
		hs   []Header
	}{
		{"no root", []Header{{Depth: 1, Name: "a", Type: Directory}}},
		{"two roots", []Header{root, root}},
		{"root after file", []Header{{Type: Regular}, {Depth: 1, Name: "a", Type: Regular}}},
		{"named root", []Header{{Name: "a", Type: Directory}}},
		{"negative depth", []Header{{Depth: -1, Type: Directory}}},
		{"no type", []Header{{}}},
		{"unknown type", []Header{{Type: 4}}},
		{"depth is left out", []Header{root, {Depth: 2, Name: "a", Type: Regular}}},
		{"in a file", []Header{root, {Depth: 1, Name: "a", Type: Regular}, {Depth: 2, Name: "a", Type: Regular}}},
		{"same name", []Header{root, {Depth: 1, Name: "a", Type: Regular}, {Depth: 1, Name: "a", Type: Regular}}},
		{"not sorted", []Header{root, {Depth: 1, Name: "b", Type: Directory}, {Depth: 1, Name: "a", Type: Regular}}},
		{"no name", []Header{root, {Depth: 1, Type: Regular}}},
		{"name ..", []Header{root, {Depth: 1, Name: "..", Type: Regular}}},
		{"name with slash", []Header{root, {Depth: 1, Name: "a/b", Type: Regular}}},
		{"long name", []Header{root, {Depth: 1, Name: strings.Repeat("n", 256), Type: Regular}}},
		{"no target", []Header{{Type: Symlink}}},
		{"long target", []Header{{Type: Symlink, Target: strings.Repeat("n", 4096)}}},
		{"file with target", []Header{{Type: Regular, Target: "a"}}},
		{"executable directory", []Header{{Type: Directory, Executable: true}}},
		{"negative size", []Header{{Type: Regular, Size: -1}}},
		{"huge size", []Header{{Type: Regular, Size: math.MaxInt64}}},
		{"contents are missing", []Header{root, long, {Depth: 1, Name: "n", Type: Regular}}},
	}
	for _, tt := range tests {
		w := NewWriter(io.Discard)
		var err error
		for i, h := range tt.hs {
			err = w.WriteHeader(h)
			if err != nil && i < len(tt.hs)-1 {
				t.Errorf("%s: header %d: %v", tt.name, i, err)
			}
		}
		if err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		if again := w.Close(); again != err {
			t.Errorf("%s: Close returns %v", tt.name, again)
		}
	}
}

func TestWriterDepth(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	must(t, w.WriteHeader(Header{Type: Directory}))
	for depth := 1; depth < StrictDepth; depth++ {
		must(t, w.WriteHeader(Header{Depth: depth, Name: "d", Type: Directory}))
	}
	if err := w.WriteHeader(Header{Depth: StrictDepth, Name: "d", Type: Directory}); err == nil {
		t.Error("no error at StrictDepth")
	}
}

func TestWriterContents(t *testing.T) {
	w := NewWriter(io.Discard)
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrTooLong) {
		t.Errorf("before a header: %v", err)
	}
	w = NewWriter(io.Discard)
	must(t, w.WriteHeader(Header{Type: Regular, Size: 3}))
	if _, err := w.Write([]byte("1234")); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	w = NewWriter(io.Discard)
	must(t, w.WriteHeader(Header{Type: Regular, Size: 3}))
	if err := w.Close(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too short: %v", err)
	}
	if err := NewWriter(io.Discard).Close(); err == nil {
		t.Error("nothing written: no error")
	}
}

// TestWriterChunks writes contents in pieces of all sizes round the buffers.
func TestWriterChunks(t *testing.T) {
	contents := strings.Repeat("0123456789abcdef!", 60000)
	want := magic(directory(in("a", file(contents)), in("b", program(contents)), in("c", link("a"))))
	for _, step := range []int{1000, firstBuffer - 1, firstBuffer, largeBuffer - 8, largeBuffer, largeBuffer + 1, len(contents)} {
		var b bytes.Buffer
		w := NewWriter(&b)
		must(t, w.WriteHeader(Header{Type: Directory}))
		for _, name := range []string{"a", "b"} {
			must(t, w.WriteHeader(Header{Depth: 1, Name: name, Type: Regular, Executable: name == "b", Size: int64(len(contents))}))
			for rest := contents; rest != ""; {
				n := min(step, len(rest))
				_, err := io.WriteString(w, rest[:n])
				must(t, err)
				rest = rest[n:]
			}
		}
		must(t, w.WriteHeader(Header{Depth: 1, Name: "c", Type: Symlink, Target: "a"}))
		must(t, w.Close())
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("in steps of %d: other bytes", step)
		}
		if err := w.Close(); err == nil {
			t.Error("second Close: no error")
		}
	}
}
