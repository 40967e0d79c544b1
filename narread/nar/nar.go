// Package nar reads and writes NARs, the archives in which Nix keeps store
// paths, and makes them from files. It knows nothing of compression, hashes or
// where a NAR lies; restoring files is left to others.
//
// # The format
//
// Everything is a string: its length as a 64-bit little-endian number, its
// bytes, and zeros up to a multiple of eight.
//
//	nar    = "nix-archive-1" node
//	node   = "(" "type" "regular" [ "executable" "" ] "contents" CONTENT ")"
//	       | "(" "type" "symlink" "target" TARGET ")"
//	       | "(" "type" "directory" { "entry" "(" "name" NAME "node" node ")" } ")"
//
// Nix's manual has it under "Nix Archive (NAR) format"; what Nix accepts is
// decided by parse in src/libutil/archive.cc. As each node has one encoding,
// the offsets of all contents follow from names, types, sizes and targets.
//
// # Strict and tolerant
//
// Strict is what the newest Nix accepts: entries strictly ascending by bytes,
// and the root and everything below it at most 63 directories deep. Tolerant
// is what Nix 2.8 would restore and what is safe to show: entries in any order
// (but no name twice) and down to [MaxDepth]. Both refuse names that are empty,
// ".", "..", too long or contain "/" or NUL, targets that are empty, too long
// or contain NUL, padding that is not zero, and any other order of the fields:
// no Nix ever wrote those, and no file system could hold most of them.
//
// Names and targets are bytes, not text: they need not be UTF-8.
package nar

import (
	"fmt"
	"math"
	"strings"
)

// Limits of what is read and written. Names and targets are as long as Linux
// allows, which is also what the newest Nix accepts.
const (
	// MaxName is the longest name of a directory entry, in bytes.
	MaxName = 255
	// MaxTarget is the longest target of a symlink, in bytes.
	MaxTarget = 4095
	// StrictDepth is the depth that the newest Nix refuses (its narMaxDepth):
	// nodes at depth 0, the root, to 63 can be restored by it.
	StrictDepth = 64
	// MaxDepth is the depth of the deepest node that is read in tolerant mode
	// or dumped. Nix 2.8 handles files by their path name, and so can neither
	// dump nor restore what is deeper than PATH_MAX/2.
	MaxDepth = 4096

	maxTag = 32 // bytes of a tag that are looked at for an error message
)

// The strings of the format, padded.
const (
	zero1 = "\x00"
	zero2 = zero1 + zero1
	zero4 = zero2 + zero2
	zero6 = zero4 + zero2
	zero7 = zero4 + zero2 + zero1

	tagMagic      = "\x0d" + zero7 + "nix-archive-1" + zero2 + zero1
	tagOpen       = "\x01" + zero7 + "(" + zero7
	tagClose      = "\x01" + zero7 + ")" + zero7
	tagType       = "\x04" + zero7 + "type" + zero4
	tagRegular    = "\x07" + zero7 + "regular" + zero1
	tagSymlink    = "\x07" + zero7 + "symlink" + zero1
	tagDirectory  = "\x09" + zero7 + "directory" + zero7
	tagExecutable = "\x0a" + zero7 + "executable" + zero6
	tagEmpty      = "\x00" + zero7
	tagContents   = "\x08" + zero7 + "contents"
	tagTarget     = "\x06" + zero7 + "target" + zero2
	tagEntry      = "\x05" + zero7 + "entry" + zero2 + zero1
	tagName       = "\x04" + zero7 + "name" + zero4
	tagNode       = "\x04" + zero7 + "node" + zero4

	seqRoot       = tagMagic + tagOpen + tagType
	seqEntry      = tagEntry + tagOpen + tagName
	seqNode       = tagNode + tagOpen + tagType
	seqExecutable = tagExecutable + tagEmpty
	seqEntryEnd   = tagClose + tagClose // of a node and of the entry it is in
)

// Type is what a node of a NAR is.
type Type uint8

// The types of nodes. The zero value is none of them.
const (
	Regular Type = iota + 1
	Directory
	Symlink
)

// String returns the type as the format spells it: "regular", "directory" or
// "symlink".
func (t Type) String() string {
	switch t {
	case Regular:
		return "regular"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Header describes one node of a NAR.
type Header struct {
	Depth      int    // 0 for the root
	Name       string // "" for the root; bytes, need not be UTF-8
	Type       Type
	Executable bool   // Regular only
	Size       int64  // bytes of content, Regular only
	Offset     int64  // of the first byte of content in the NAR, Regular only
	Target     string // Symlink only
}

// problem says what no NAR can hold about h, or "".
func (h *Header) problem() string {
	switch {
	case h.Depth < 0 || h.Depth > MaxDepth:
		return fmt.Sprintf("depth %d", h.Depth)
	case h.Depth == 0 && h.Name != "":
		return "the root has a name"
	case h.Type < Regular || h.Type > Symlink:
		return "unknown " + h.Type.String()
	case h.Type != Regular && (h.Executable || h.Size != 0):
		return fmt.Sprintf("a %v has contents", h.Type)
	case h.Size < 0 || h.Size > math.MaxInt64/2:
		return fmt.Sprintf("size %d", h.Size)
	case h.Type != Symlink && h.Target != "":
		return fmt.Sprintf("a %v has a target", h.Type)
	}
	if h.Depth > 0 {
		if p := nameProblem(h.Name); p != "" {
			return p
		}
	}
	if h.Type == Symlink {
		return targetProblem(h.Target)
	}
	return ""
}

// nameProblem says why name cannot be that of a directory entry, or "".
func nameProblem[S string | []byte](name S) string {
	if len(name) == 0 {
		return "an empty name"
	}
	if len(name) > MaxName {
		return fmt.Sprintf("a name of %d bytes, allowed are %d", len(name), MaxName)
	}
	if name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.') {
		return fmt.Sprintf("the name %q", string(name))
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Sprintf("the name %q contains %q", string(name), name[i])
		}
	}
	return ""
}

// targetProblem says why target cannot be that of a symlink, or "".
func targetProblem(target string) string {
	switch {
	case target == "":
		return "an empty target"
	case len(target) > MaxTarget:
		return fmt.Sprintf("a target of %d bytes, allowed are %d", len(target), MaxTarget)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Sprintf("the target %q contains NUL", target)
	}
	return ""
}

// A FormatError says what is wrong with a NAR, and where. When the NAR is cut
// short it wraps [io.ErrUnexpectedEOF].
type FormatError struct {
	Offset int64 // in the NAR, of what is wrong; negative if that is not known
	Msg    string
	Err    error // or nil
}

// Error returns "NAR at offset N: what is wrong".
func (e *FormatError) Error() string {
	if e.Offset < 0 {
		return "NAR: " + e.Msg
	}
	return fmt.Sprintf("NAR at offset %d: %s", e.Offset, e.Msg)
}

// Unwrap returns e.Err.
func (e *FormatError) Unwrap() error { return e.Err }

// padding returns how many zeros follow n bytes.
func padding(n int64) int { return int(-n & 7) }

// padded returns how many bytes n bytes take with their padding.
func padded(n int64) int64 { return (n + 7) &^ 7 }
