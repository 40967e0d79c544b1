package backup

import (
	"slices"
	"strings"
	"unicode"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/narinfo"
)

// maxSigs is how many signatures a narinfo may have before those of others are no
// longer added: a cache that offers new ones for ever shall not make it too large
// to be read.
const maxSigs = 100

// wellFormed returns those of sigs that are signatures, each once. Nix 2.8 takes
// any text for one; newer ones refuse the whole narinfo for its sake
// (Signature::parse in src/libutil/signature/local-keys.cc).
func wellFormed(sigs []string) []string {
	var good []string
	for _, text := range sigs {
		sig, err := signature.ParseSignature(text)
		if err != nil || sig.String() != text || strings.ContainsFunc(text, oddInSig) || slices.Contains(good, text) {
			continue
		}
		good = append(good, text)
	}
	return good
}

// oddInSig reports what ParseSignature lets pass, and a narinfo or Nix's database
// does not.
func oddInSig(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// missingSigs returns the signatures that another has of just what info says, and
// info lacks. Whether they are right only their public keys could tell.
func missingSigs(info, other *narinfo.NarInfo) []string {
	missing := subtractStrings(wellFormed(other.Sigs), info.Sigs)
	if len(missing) == 0 || info.Fingerprint() != other.Fingerprint() {
		return nil
	}
	return missing[:min(len(missing), max(0, maxSigs-len(info.Sigs)))]
}

// narInfoOf returns the narinfo of what a store says of a path, without a NAR
// file.
func narInfoOf(storeDir string, i *nixstore.PathInfo) *narinfo.NarInfo {
	return &narinfo.NarInfo{
		StoreDir: storeDir, StorePath: i.Path, NarHash: i.NarHash, NarSize: i.NarSize,
		References: i.References, Deriver: i.Deriver, Sigs: wellFormed(i.Sigs), CA: i.CA,
	}
}
