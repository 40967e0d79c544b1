package hydra

import (
	"strings"
	"testing"
)

// TestSQLScanner tells where statements end, whatever is quoted, and in pieces
// of every length.
func TestSQLScanner(t *testing.T) {
	tests := []struct {
		text   string
		within bool
	}{
		{"", false},
		{" \n\t", false},
		{"-- a comment; with 'quotes\n", false},
		{"-- a comment without an end", true},
		{"SELECT 1", true},
		{"SELECT 1;\n", false},
		{"SELECT 1; -- and more\n", false},
		{"SELECT 1 - -1;", false},
		{"SELECT 1 --;\n", true},
		{"/* a; /* comment */ ; */", false},
		{"/* a /* comment */", true},
		{"SELECT 'a;", true},
		{"SELECT 'it''s;", true},
		{"SELECT 'it''s';", false},
		{"SELECT 'a backslash\\';", false},
		{"SELECT E'a quote\\';", true},
		{"SELECT E'a quote\\'';", false},
		{"SELECT e'it''s\\';", true},
		{"SELECT e'it''s\\\\';", false},
		{"SELECT nameE'a\\';", false},
		{`SELECT "a;`, true},
		{`SELECT "a'";`, false},
		{`SELECT "a"";`, true},
		{"DO $$BEGIN\nUPDATE x;\n", true},
		{"DO $$BEGIN\nUPDATE x;\nEND$$;", false},
		{"DO $body$ x; $$ ; $other$ ; $bod", true},
		{"DO $body$ x; $$ ; $body $body$;", false},
		{"DO $body$ x; $body$body$;", false},
		{"DO $a$ $a $$a$;", false},
		{"DO $_$ it's $_$;", false},
		{"SELECT $1;", false},
		{"SELECT a$b$ ; ", false},
		{"DO $\u00fc$ ; ", true},
		{"DO $\u00fc$ ; $\u00fc$;", false},
		{"CREATE RULE r AS ON INSERT TO t DO ( SELECT 1; SELECT 2; ", true},
		{"CREATE RULE r AS ON INSERT TO t DO ( SELECT 1; SELECT 2; );", false},
		{"SELECT ');", true},
	}
	for _, tt := range tests {
		for size := range len(tt.text) + 1 {
			var s sqlScanner
			s.scan([]byte(tt.text[:size]))
			s.scan([]byte(tt.text[size:]))
			if s.within() != tt.within {
				t.Errorf("%q, cut at %d: a statement goes on is %v, want %v", tt.text, size, s.within(), tt.within)
				break
			}
		}
	}
}

// TestSQLFilter leaves out what the server does not know, and who owns what, but
// not what only looks like it.
func TestSQLFilter(t *testing.T) {
	const body = "SET transaction_timeout = 0;\nGRANT ALL ON x TO y;\nCOPY x FROM stdin;\n\\restrict abc\n"
	const kept = "CREATE FUNCTION f() AS $$\nBEGIN;\n" + body + "$$;\n" +
		"COMMENT ON TABLE x IS 'first;\n" + body + "';\n" +
		"CREATE TABLE a (\nb text);\n\nCOPY x (a) FROM stdin;\n$$\nSET transaction_timeout = 0;\n'\n\\.\n"
	for _, noise := range []string{"", "SET transaction_timeout = 0;\n", "GRANT ALL ON x TO y;\n", "\\restrict abc\n"} {
		f := sqlFilter{noOwner: true, settings: map[string]bool{"client_encoding": true}}
		var out strings.Builder
		text := noise + kept + noise + "SET client_encoding = 'UTF8';\n" + noise
		if err := f.copy(&out, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if want := kept + "SET client_encoding = 'UTF8';\n"; out.String() != want {
			t.Errorf("of %s\nis left\n%s\nwant\n%s", text, out.String(), want)
		}
	}
}
