package narinfo

import (
	"fmt"
	"slices"
	"strings"
)

// Fingerprint returns the text that signatures of a store path sign: what it is,
// not how it is packed (ValidPathInfo::fingerprint in Nix's
// src/libstore/path-info.cc).
//
//	1;<store path>;<NAR hash>;<NAR size>;<references, sorted, with commas>
func (n *NarInfo) Fingerprint() string {
	refs := make([]string, len(n.References))
	for i, ref := range n.References {
		refs[i] = ref.In(n.StoreDir)
	}
	slices.Sort(refs)
	return fmt.Sprintf("1;%s;%s;%d;%s", n.StorePath.In(n.StoreDir), n.NarHash, n.NarSize, strings.Join(slices.Compact(refs), ","))
}

// AppendSig returns the text of a narinfo with one more signature. Whatever else
// is in it, unknown fields included, stays as it is.
func AppendSig(text []byte, sig string) []byte {
	return fmt.Appendf(slices.Clone(text), "Sig: %s\n", sig)
}
