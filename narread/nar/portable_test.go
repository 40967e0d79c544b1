package nar

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// listed returns the listing of a directory with the given names.
func listed(t *testing.T, names ...string) *Listing {
	t.Helper()
	var b Builder
	headers := []Header{{Type: Directory}}
	for _, name := range names {
		headers = append(headers, Header{Depth: 1, Name: name, Type: Regular})
	}
	for _, h := range headers {
		if err := b.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	l, err := b.Listing()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWarningsOfCase(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  []string // beginnings
	}{
		{[]string{"a", "b", "c"}, nil},
		{[]string{"A", "B", "c"}, nil},
		{[]string{"A", "a"}, []string{`/r/A: differs from "a"`}},
		{[]string{"AB", "Ab", "z"}, []string{`/r/Ab: differs from "AB"`}},
		{[]string{"AB", "Ab", "ab"}, []string{`/r/AB: differs from "ab"`, `/r/Ab: differs from "ab"`}},
		{[]string{"\xc3\x84", "\xc3\xa4"}, []string{"/r/\xc3\x84: differs from"}},
		{[]string{"\xff", "\xfe"}, nil},
		{[]string{"README", "ReadMe", "a", "readme.txt"}, []string{`/r/ReadMe: differs from "README" in case only: Nix on macOS`}},
		{[]string{"x~nix~case~hack~1"}, []string{`/r/x~nix~case~hack~1: the name contains`}},
	} {
		got := listed(t, c.names...).Warnings("/r/")
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%q: %q, want %q", c.names, got, c.want)
		}
	}
}

// Only names in one directory collide.
func TestWarningsOfDirectories(t *testing.T) {
	var b Builder
	for _, h := range []Header{
		{Type: Directory}, {Depth: 1, Name: "d", Type: Directory}, {Depth: 2, Name: "X", Type: Regular},
		{Depth: 1, Name: "e", Type: Directory}, {Depth: 2, Name: "x", Type: Regular}, {Depth: 1, Name: "x", Type: Symlink, Target: "y"},
	} {
		if err := b.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	l, err := b.Listing()
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Warnings("r"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestWarningsOfDeviations(t *testing.T) {
	var unsorted bytes.Buffer
	unsorted.WriteString(seqRoot + tagDirectory)
	for _, name := range []string{"b", "a"} {
		unsorted.WriteString(seqEntry + "\x01" + zero7 + name + zero7 + seqNode + tagRegular + tagContents + "\x00" + zero7 + seqEntryEnd)
	}
	unsorted.WriteString(tagClose)
	l, err := ReadListing(bytes.NewReader(unsorted.Bytes()), int64(unsorted.Len()))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/r: NAR at offset ", "not sorted", "Nix from 2.23.4"}
	got := l.Warnings("/r")
	if len(got) != 1 || slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(got[0], w) }) {
		t.Errorf("got %q", got)
	}
}
