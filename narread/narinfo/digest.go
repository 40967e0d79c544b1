package narinfo

import (
	"crypto"
	_ "crypto/md5"    // for Digest.New
	_ "crypto/sha1"   // for Digest.New
	_ "crypto/sha256" // for Digest.New
	_ "crypto/sha512" // for Digest.New
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// A Digest is a hash of any algorithm that Nix knows: md5, sha1, sha256 and
// sha512. FileHash and content addresses may have any.
type Digest struct {
	Algorithm string
	Sum       string // the bytes
	function  crypto.Hash
}

// ParseDigest accepts the forms that ParseHash does.
func ParseDigest(s string) (Digest, error) {
	parsed, err := nixhash.ParseAny(s, nil)
	if err != nil {
		return Digest{}, fmt.Errorf("hash %q: %v", s, err)
	}
	f := parsed.Algo().Func()
	if len(parsed.Digest()) != f.Size() {
		return Digest{}, fmt.Errorf("hash %q: has %d bytes", s, len(parsed.Digest()))
	}
	return Digest{Algorithm: parsed.Algo().String(), Sum: string(parsed.Digest()), function: f}, nil
}

// New returns a hash of the digest's algorithm.
func (d Digest) New() hash.Hash { return d.function.New() }

// Is reports whether h, which New made, has come to the digest.
func (d Digest) Is(h hash.Hash) bool { return string(h.Sum(nil)) == d.Sum }

// Of returns the digest that h, which New made, has come to.
func (d Digest) Of(h hash.Hash) Digest {
	return Digest{Algorithm: d.Algorithm, Sum: string(h.Sum(nil)), function: d.function}
}

// String returns the algorithm, a colon and the nix32 digits.
func (d Digest) String() string { return d.Algorithm + ":" + nixbase32.EncodeToString([]byte(d.Sum)) }

func (d Digest) hex() string { return d.Algorithm + ":" + hex.EncodeToString([]byte(d.Sum)) }
