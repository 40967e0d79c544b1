package narinfo

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
)

const (
	ca  = "m66ksk4w4pwkzicqn678l7hspz4q3hjs-ca"
	dev = "dlz82d9mvn0cnz661p8sjwnxhy9n2klc-ca-dev"
	h32 = "sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl"
)

// full has every field, in Nix's order.
const full = "StorePath: /nix/store/" + ca + "\n" +
	"URL: nar/02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl.nar.zst\n" +
	"Compression: zstd\n" +
	"FileHash: " + h32 + "\n" +
	"FileSize: 100\n" +
	"NarHash: " + h32 + "\n" +
	"NarSize: 224\n" +
	"References: " + dev + " " + ca + "\n" +
	"Deriver: " + dev + ".drv\n" +
	"System: x86_64-linux\n" +
	"Sig: a:MDA=\n" +
	"Sig: b:MDE=\n" +
	"CA: fixed:r:" + h32 + "\n"

func TestRoundTrip(t *testing.T) {
	n, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(n.Bytes()); got != full {
		t.Errorf("got\n%swant\n%s", got, full)
	}
	if n.StoreDir != "/nix/store" || n.StorePath != ca || n.NarSize != 224 || len(n.Sigs) != 2 || n.Deriver != dev+".drv" {
		t.Errorf("parsed as %+v", n)
	}
}

// minimal returns a narinfo with only what Nix requires, and extra lines.
func minimal(extra string) string {
	return "StorePath: /nix/store/" + ca + "\nURL: x.nar\nNarHash: " + h32 + "\nNarSize: 1\n" + extra
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, text, field string // field "" means: accepted
		check             func(*NarInfo) bool
	}{
		{name: "minimal", text: minimal("")},
		{name: "references empty with trailing space", text: minimal("References: \n"), check: func(n *NarInfo) bool { return n.References == nil }},
		{name: "references sorted and unique", text: minimal("References: " + ca + " " + dev + " " + ca + "\n"),
			check: func(n *NarInfo) bool { return reflect.DeepEqual(n.References, []storepath.Path{dev, ca}) }},
		{name: "unknown key of nix-push", text: minimal("Signature: 1;key;sig\n")},
		{name: "value with colon and space", text: minimal("X: a: b\n")},
		{name: "unknown deriver", text: minimal("Deriver: unknown-deriver\n"), check: func(n *NarInfo) bool { return n.Deriver == "" }},
		{name: "last URL wins", text: minimal("URL: y\n"), check: func(n *NarInfo) bool { return n.URL == "y" }},
		{name: "hash in hex", text: minimal("NarHash: sha256:" + strings.Repeat("ab", 32) + "\n"), check: func(n *NarInfo) bool { return n.NarHash[0] == 0xab }},
		{name: "hash in SRI form", text: minimal("NarHash: sha256-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"), check: func(n *NarInfo) bool { return n.NarHash[31] == 0xab }},
		{name: "file hash of any algorithm", text: minimal("FileHash: md5:d41d8cd98f00b204e9800998ecf8427e\n")},
		{name: "other store directory", text: strings.Replace(minimal(""), "/nix/store", "/gnu/store", 1), check: func(n *NarInfo) bool { return n.StoreDir == "/gnu/store" }},
		{name: "empty CA", text: minimal("CA: \nCA: text:sha256:x\n"), check: func(n *NarInfo) bool { return n.CA == "text:sha256:x" }},

		{name: "empty file", text: "", field: "StorePath"},
		{name: "no final newline", text: strings.TrimSuffix(minimal(""), "\n"), field: "line"},
		{name: "cut in a key", text: full[:len(full)-90], field: "line"},
		{name: "blank line", text: minimal("\n"), field: "line"},
		{name: "no colon", text: minimal("nonsense\n"), field: "line"},
		{name: "no space after colon", text: minimal("References:\n"), field: "line"},
		{name: "carriage returns", text: strings.ReplaceAll(minimal(""), "\n", "\r\n"), field: "line"},
		{name: "no URL", text: strings.Replace(minimal(""), "URL", "Url", 1), field: "URL"},
		{name: "NarSize 0", text: minimal("NarSize: 0\n"), field: "NarSize"},
		{name: "negative NarSize", text: minimal("NarSize: -1\n"), field: "NarSize"},
		{name: "signed NarSize", text: minimal("NarSize: +1\n"), field: "NarSize"},
		{name: "NarSize beyond 63 bits", text: minimal("NarSize: 9223372036854775808\n"), field: "NarSize"},
		{name: "NarSize with space", text: minimal("NarSize: 1 \n"), field: "NarSize"},
		{name: "empty FileSize", text: minimal("FileSize: \n"), field: "FileSize"},
		{name: "hash of another algorithm", text: minimal("NarHash: md5:d41d8cd98f00b204e9800998ecf8427e\n"), field: "NarHash"},
		{name: "hash that overflows", text: minimal("NarHash: sha256:z" + h32[8:] + "\n"), field: "NarHash"},
		{name: "relative store path", text: minimal("StorePath: " + ca + "\n"), field: "StorePath"},
		{name: "below a store path", text: minimal("StorePath: /nix/store/" + ca + "/x\n"), field: "StorePath"},
		{name: "absolute reference", text: minimal("References: /nix/store/" + ca + "\n"), field: "References"},
		{name: "references twice", text: minimal("References: " + ca + "\nReferences: " + dev + "\n"), field: "References"},
		{name: "empty deriver", text: minimal("Deriver: \n"), field: "Deriver"},
		{name: "CA twice", text: minimal("CA: a\nCA: b\n"), field: "CA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Parse([]byte(c.text))
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				if c.check != nil && !c.check(n) {
					t.Errorf("parsed as %+v", n)
				}
				return
			}
			var fe *FieldError
			if !errors.As(err, &fe) || (fe.Field != c.field && c.field != "line") || (c.field == "line" && fe.Field != "") {
				t.Errorf("got %v, want an error in %s", err, c.field)
			}
		})
	}
}

// Every prefix of a narinfo lacks a field or its last newline, or is whole.
func TestTruncated(t *testing.T) {
	for i := range full {
		n, err := Parse([]byte(full[:i]))
		if err == nil && !strings.HasSuffix(full[:i], "\n") {
			t.Errorf("cut at %d: accepted as %+v", i, n)
		}
	}
}

func FuzzNarInfo(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(minimal("Sig: \nCA: \n")))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(n.Bytes())
		if err != nil {
			t.Fatalf("%v in\n%s", err, n.Bytes())
		}
		if !bytes.Equal(again.Bytes(), n.Bytes()) || !reflect.DeepEqual(again, n) {
			t.Errorf("%+v became %+v", n, again)
		}
	})
}
