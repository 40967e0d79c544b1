// Package storepath names Nix store paths.
//
// A store path is a file, directory or symlink directly below a store
// directory (usually /nix/store). Its base name is the nix32 form of a 160-bit
// hash, a dash and a name:
//
//	sh8025fhmz1wq27663bakmq915a2pf79-disnix-0.3pre1234
//	<------ 32 characters --------> <---- 1..211 ---->
//
// The rules are those of Nix's src/libstore/path.cc. go-nix's storepath is not
// used because it knows one store directory only and refuses or accepts other
// names than Nix does.
package storepath

import (
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

const (
	// HashLen is the length of the hash part, in characters.
	HashLen = 32
	// MaxNameLen is the longest name that Nix accepts, in bytes.
	MaxNameLen = 211
)

// A Path is the base name of a store path, without the store directory.
// Values come from Parse or ParseIn and are then known to be well-formed; the
// zero value means "none". Paths compare and sort as their strings do.
type Path string

// A ParseError says why a string is no store path.
type ParseError struct {
	Text   string // what was to be parsed
	Reason string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("store path %q: %s", e.Text, e.Reason)
}

// Parse accepts the base name of a store path. Errors are *ParseError.
func Parse(base string) (Path, error) {
	if reason := fault(base); reason != "" {
		return "", &ParseError{Text: base, Reason: reason}
	}
	return Path(base), nil
}

// ParseIn accepts the absolute form: storeDir, a slash and a base name, nothing
// below it. Errors are *ParseError.
func ParseIn(storeDir, abs string) (Path, error) {
	base, ok := strings.CutPrefix(abs, storeDir+"/")
	if !ok {
		return "", &ParseError{Text: abs, Reason: "is not in the store directory " + storeDir}
	}
	if reason := fault(base); reason != "" {
		return "", &ParseError{Text: abs, Reason: reason}
	}
	return Path(base), nil
}

// Hash returns the hash part, by which a binary cache files the path.
func (p Path) Hash() string {
	if len(p) < HashLen {
		return ""
	}
	return string(p[:HashLen])
}

// Name returns what follows the hash part and the dash.
func (p Path) Name() string {
	if len(p) <= HashLen {
		return ""
	}
	return string(p[HashLen+1:])
}

// In returns the absolute path in storeDir.
func (p Path) In(storeDir string) string { return storeDir + "/" + string(p) }

// IsDerivation reports whether p is a store derivation (its name ends in .drv).
func (p Path) IsDerivation() bool { return strings.HasSuffix(string(p), ".drv") }

func (p Path) String() string { return string(p) }

// ValidHash reports whether s is the hash part of a store path.
func ValidHash(s string) bool {
	if len(s) != HashLen {
		return false
	}
	for i := range len(s) { // for very many, so not by nixbase32.ValidateString
		if !hashByte[s[i]] {
			return false
		}
	}
	return true
}

// hashByte says which bytes are digits of nix32.
var hashByte = func() (is [256]bool) {
	for _, c := range []byte(nixbase32.Alphabet) {
		is[c] = true
	}
	return is
}()

// fault returns why base is no store path, or "".
func fault(base string) string {
	if len(base) < HashLen+1 || base[HashLen] != '-' || !ValidHash(base[:HashLen]) {
		return "does not begin with a 32-character hash and a dash"
	}
	name := base[HashLen+1:]
	switch {
	case name == "":
		return "has an empty name"
	case len(name) > MaxNameLen:
		return fmt.Sprintf("has a name of %d bytes, more than %d", len(name), MaxNameLen)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !validNameRune(r) }); i >= 0 {
		return fmt.Sprintf("has the character %q in its name", name[i])
	}
	// Nix refuses these so that no tool takes a name for a directory entry.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return fmt.Sprintf("has a name that begins with %q", first)
	}
	return ""
}

func validNameRune(r rune) bool {
	switch {
	case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return true
	}
	return strings.ContainsRune("+-._?=", r)
}
