package narinfo

import (
	"bytes"
	"crypto"
	"fmt"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// A Hash is the SHA-256 of a NAR or of a file. The zero value means "not known".
type Hash [32]byte

// ParseHash accepts every form that Nix writes: "sha256:" followed by
// hexadecimal, nix32 or base64 digits, and the SRI form "sha256-...".
func ParseHash(s string) (Hash, error) {
	var h Hash
	parsed, err := nixhash.ParseAny(s, nil)
	if err != nil {
		return h, fmt.Errorf("hash %q: %v", s, err)
	}
	if parsed.Algo().Func() != crypto.SHA256 || len(parsed.Digest()) != len(h) {
		return h, fmt.Errorf("hash %q: not a SHA-256", s)
	}
	copy(h[:], parsed.Digest())
	return h, nil
}

// Nix32 returns the 52 digits under which a binary cache names a file.
func (h Hash) Nix32() string { return nixbase32.EncodeToString(h[:]) }

// String returns "sha256:" and the nix32 digits, as a narinfo has it.
func (h Hash) String() string { return "sha256:" + h.Nix32() }

// IsZero reports whether the hash is not known.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText returns String, so that JSON shows hashes as Nix does.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is ParseHash.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(bytes.TrimSpace(text)))
	if err == nil {
		*h = parsed
	}
	return err
}
