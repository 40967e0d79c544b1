package narinfo

import (
	"slices"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/narread/storepath"
)

// The fingerprint is what Nix 2.8 signed.
func TestFingerprint(t *testing.T) {
	hash, err := ParseHash("sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl")
	if err != nil {
		t.Fatal(err)
	}
	self := storepath.Path("m66ksk4w4pwkzicqn678l7hspz4q3hjs-ca")
	n := &NarInfo{
		StoreDir: "/nix/store", StorePath: self, NarHash: hash, NarSize: 224,
		References: []storepath.Path{self, "dlz82d9mvn0cnz661p8sjwnxhy9n2klc-ca-dev", self},
	}
	key, err := signature.ParsePublicKey("test-1:1RWDFsyt3sbJxWu4gN2oGUyr3XdAGHYmznPxjePuD2s=")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signature.ParseSignature("test-1:mt9smg+G2WYZ2LMlMY8iQXyHIaGtdRmEfQFMrByspDLf1y2etYoikV/2Cbuld/rvQFSEZeSL9suhTp3qN9rJBA==")
	if err != nil {
		t.Fatal(err)
	}
	if !key.Verify(n.Fingerprint(), sig) {
		t.Errorf("the signature is not of %q", n.Fingerprint())
	}
	n.References = nil
	if got := n.Fingerprint(); !strings.HasSuffix(got, ";224;") {
		t.Errorf("without references: %q", got)
	}
}

func TestAppendSig(t *testing.T) {
	const before = "StorePath: /nix/store/m66ksk4w4pwkzicqn678l7hspz4q3hjs-ca\nURL: x\nNarHash: sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl\n" +
		"NarSize: 224\nReferences: \nUnknown: field\nSig: a:b\n"
	text := AppendSig([]byte(before), "c:d")
	n, err := Parse(text)
	if err != nil || !slices.Equal(n.Sigs, []string{"a:b", "c:d"}) || !strings.HasPrefix(string(text), before) {
		t.Errorf("%q: %+v, %v", text, n, err)
	}
}
