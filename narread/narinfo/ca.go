package narinfo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/narvault/narvault/narread/storepath"
)

// A ContentAddress is the CA field of a narinfo, taken apart. The forms are
// those of Nix's src/libstore/content-address.cc:
//
//	text:sha256:<hash>         of the content of a file, which may refer to others
//	fixed:<algorithm>:<hash>   of the content of a file
//	fixed:r:<algorithm>:<hash> of the NAR
//	fixed:git:sha1:<hash>      of the git tree (experimental)
type ContentAddress struct {
	Method CAMethod
	Digest Digest
}

// A CAMethod says what a content address is the hash of.
type CAMethod string

// The methods, as they are written.
const (
	CAText CAMethod = "text:"
	CAFlat CAMethod = "fixed:"
	CANar  CAMethod = "fixed:r:"
	CAGit  CAMethod = "fixed:git:"
)

// ParseCA parses the CA field of a narinfo.
func ParseCA(s string) (ContentAddress, error) {
	for _, m := range []CAMethod{CAGit, CANar, CAFlat, CAText} {
		digest, ok := strings.CutPrefix(s, string(m))
		if !ok {
			continue
		}
		d, err := ParseDigest(digest)
		if err == nil && m == CAText && d.Algorithm != "sha256" {
			err = fmt.Errorf("hash %q: not a SHA-256", digest)
		}
		return ContentAddress{m, d}, err
	}
	return ContentAddress{}, fmt.Errorf("content address %q: begins with neither text nor fixed", s)
}

// StorePath returns the store path that what c is the address of has, if it is
// called and refers to what n says. Nix takes n for content-addressed, and
// needs no signature, only if that is n's own. The second value is false where
// it is not known how the path is made. Source: makeFixedOutputPathFromCA in
// Nix's src/libstore/store-api.cc.
func (c ContentAddress) StorePath(n *NarInfo) (storepath.Path, bool) {
	switch {
	case c.Method == CAText:
		return makePath(n, withReferences("text", n, false), c.Digest.hex()), true
	case c.Method == CANar && c.Digest.Algorithm == "sha256":
		return makePath(n, withReferences("source", n, true), c.Digest.hex()), true
	case c.Method == CAFlat || c.Method == CANar:
		method, _ := strings.CutPrefix(string(c.Method), "fixed:")
		sum := sha256.Sum256([]byte("fixed:out:" + method + c.Digest.hex() + ":"))
		return makePath(n, "output:out", fmt.Sprintf("sha256:%x", sum)), true
	}
	return "", false
}

// withReferences returns the type of a store path that may have references; the
// one to itself stands for it.
func withReferences(kind string, n *NarInfo, self bool) string {
	for _, ref := range n.References {
		if ref != n.StorePath || !self {
			kind += ":" + ref.In(n.StoreDir)
		}
	}
	if self && n.RefersToItself() {
		kind += ":self"
	}
	return kind
}

// makePath is makeStorePath of Nix's src/libstore/store-api.cc.
func makePath(n *NarInfo, kind, digest string) storepath.Path {
	name := n.StorePath.Name()
	sum := sha256.Sum256([]byte(kind + ":" + digest + ":" + n.StoreDir + ":" + name))
	var short [20]byte
	for i, b := range sum {
		short[i%len(short)] ^= b
	}
	return storepath.Path(nixbase32.EncodeToString(short[:]) + "-" + name)
}

// RefersToItself reports whether the store path is among its references.
func (n *NarInfo) RefersToItself() bool {
	_, found := slices.BinarySearch(n.References, n.StorePath)
	return found
}

// A ModuloHash hashes a NAR that has its own hash part in it, without that: each
// occurrence counts as zeros, and its offset is hashed at the end. Nix 2.17 to
// 2.34 left the offsets out, so there are two results. Source: HashModuloSink
// in Nix's src/libstore/references.cc.
type ModuloHash struct {
	self    []byte
	plain   hash.Hash // without offsets
	full    hash.Hash // with them
	offsets []int64
	tail    []byte // not yet hashed: it may hold the beginning of an occurrence
	off     int64  // of tail
}

// NewModuloHash returns a hash of the algorithm of d that leaves out self, a
// hash part.
func NewModuloHash(d Digest, self string) *ModuloHash {
	return &ModuloHash{self: []byte(self), plain: d.New(), full: d.New()}
}

// maxOffsets bounds the memory for occurrences, of which honest NARs have few.
const maxOffsets = 1 << 22

// Write hashes bytes of the NAR. Its error is that there are too many
// occurrences.
func (m *ModuloHash) Write(p []byte) (int, error) {
	b := append(m.tail, p...)
	for at := 0; ; {
		i := bytes.Index(b[at:], m.self)
		if i < 0 {
			break
		}
		at += i
		if len(m.offsets) == maxOffsets {
			return 0, fmt.Errorf("%s occurs more than %d times", m.self, maxOffsets)
		}
		m.offsets = append(m.offsets, m.off+int64(at))
		clear(b[at : at+len(m.self)])
		at += len(m.self)
	}
	m.hash(b, max(len(b)-len(m.self)+1, 0))
	return len(p), nil
}

// hash hashes the first n bytes of b and keeps the others.
func (m *ModuloHash) hash(b []byte, n int) {
	m.plain.Write(b[:n])
	m.full.Write(b[:n])
	m.off += int64(n)
	m.tail = append(m.tail[:0], b[n:]...)
}

// Is reports whether the NAR, all of which was written, has the digest d.
func (m *ModuloHash) Is(d Digest) bool {
	m.hash(m.tail, len(m.tail))
	for _, off := range m.offsets {
		fmt.Fprintf(m.full, "|%d", off)
	}
	m.offsets = nil
	return d.Is(m.full) || d.Is(m.plain)
}
