package storepath

import (
	"strings"
	"testing"
)

const hash = "sh8025fhmz1wq27663bakmq915a2pf79"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"plain", hash + "-disnix-0.3pre1234", true},
		{"every character", hash + "-aZ9+-._?=", true},
		{"longest name", hash + "-" + strings.Repeat("x", MaxNameLen), true},
		{"leading dot", hash + "-.hidden", true},
		{"name too long", hash + "-" + strings.Repeat("x", MaxNameLen+1), false},
		{"no name", hash + "-", false},
		{"no dash", hash, false},
		{"other separator", hash + "_x", false},
		{"short hash", hash[1:] + "-x", false},
		{"letter that nix32 lacks", "e" + hash[1:] + "-x", false},
		{"upper case hash", strings.ToUpper(hash) + "-x", false},
		{"slash", hash + "-a/b", false},
		{"space", hash + "-a b", false},
		{"newline", hash + "-a\n", false},
		{"NUL", hash + "-a\x00", false},
		{"not ASCII", hash + "-\u00e9", false},
		{"dot", hash + "-.", false},
		{"dot dot", hash + "-..", false},
		{"dot dot dash", hash + "-..-x", false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Parse(c.in)
			if (err == nil) != c.ok {
				t.Fatalf("Parse(%q) = %q, %v", c.in, p, err)
			}
			if c.ok && (p.Hash()+"-"+p.Name() != c.in || p.In("/s") != "/s/"+c.in) {
				t.Errorf("Parse(%q) falls apart into %q and %q", c.in, p.Hash(), p.Name())
			}
		})
	}
}

func TestParseIn(t *testing.T) {
	base := hash + "-a.drv"
	p, err := ParseIn("/nix/store", "/nix/store/"+base)
	if err != nil || p != Path(base) || !p.IsDerivation() {
		t.Fatalf("got %q, %v", p, err)
	}
	for _, s := range []string{base, "/nix/store/" + base + "/x", "/nix/store", "/nix/storeX/" + base, "/gnu/store/" + base, "/nix/store//" + base} {
		if p, err := ParseIn("/nix/store", s); err == nil {
			t.Errorf("ParseIn accepts %q as %q", s, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hash + "-x")
	f.Add("")
	f.Add(strings.Repeat("-", 40))
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(s, "/\x00\n ") || string(p) != s || len(s) > HashLen+1+MaxNameLen {
			t.Errorf("accepted %q", s)
		}
	})
}
