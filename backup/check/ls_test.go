package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/nar"
)

// aListing is the listing of a directory with a file, a program and a link.
func aListing(t testing.TB) *nar.Listing {
	t.Helper()
	var b nar.Builder
	for _, h := range []nar.Header{
		{Type: nar.Directory}, {Depth: 1, Name: "dir", Type: nar.Directory}, {Depth: 2, Name: "program", Type: nar.Regular, Size: 5, Executable: true},
		{Depth: 1, Name: "file", Type: nar.Regular, Size: 3}, {Depth: 1, Name: "link", Type: nar.Symlink, Target: "file"},
	} {
		must(t, b.Add(h))
	}
	l, err := b.Listing()
	must(t, err)
	return l
}

func TestLSProblem(t *testing.T) {
	l := aListing(t)
	var b bytes.Buffer
	must(t, l.WriteLS(&b))
	good := b.String()
	for _, c := range []struct {
		old, new string
		severity Severity
		message  string
	}{
		{"", "", "", ""},
		{`"size":3`, `"size":3,"executable":false`, "", ""}, // as newer Nix writes it
		{`"narOffset":`, `"size":5,"x":`, Warning, `has a field "x"`},
		{`,"narOffset":`, `,"narOffset":1`, Damage, "is at offset"},
		{`"size":3`, `"size":4`, Damage, `"file" has 3 bytes, not 4`},
		{`"executable":true`, `"executable":false`, Damage, `"dir/program" is executable: true`},
		{`"executable":true`, `"Executable":true`, Damage, `"dir/program" is executable: true`},
		{`"target":"file"`, `"target":"dir"`, Damage, `"link" links to "file", not "dir"`},
		{`"link":`, `"lonk":`, Damage, `it lacks "link"`},
		{`"type":"symlink"`, `"type":"regular"`, Damage, `"link" is a symlink, not a regular`},
		{`"dir":`, `"more":{"type":"directory","entries":{}},"dir":`, Damage, "has 3 entries, not 4"},
		{`"version":1`, `"version":2`, Damage, "has version 2"},
		{`"version":1`, `"Version":1`, Damage, "has version 0"},
		{`{"type":"directory"`, `["type","directory"`, Damage, "is no listing"},
		{`"root":{`, `"root":3,"x":{`, Damage, "is no listing"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if c.old != "" && text == good {
			t.Fatalf("%s has no %s", good, c.old)
		}
		severity, message := lsProblem([]byte(text), l)
		if severity != c.severity || !strings.Contains(message, c.message) {
			t.Errorf("%s instead of %s: %s %q, want %s %q", c.new, c.old, severity, message, c.severity, c.message)
		}
	}
	deep := strings.Repeat(`{"type":"directory","entries":{"d":`, 5000) + "{}" + strings.Repeat("}}", 5000)
	if _, message := lsProblem([]byte(`{"version":1,"root":`+deep+`}`), l); !strings.Contains(message, "nested more than") {
		t.Errorf("nested too deep: %q", message)
	}
}

func FuzzParseLS(f *testing.F) {
	l := aListing(f)
	var b bytes.Buffer
	must(f, l.WriteLS(&b))
	f.Add(b.Bytes())
	f.Add([]byte(`{"version":1,"root":{"type":"directory","entries":{"a":null}},"root":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		severity, message := lsProblem(text, l)
		if (severity == "") != (message == "") {
			t.Errorf("%q: %q", severity, message)
		}
	})
}
