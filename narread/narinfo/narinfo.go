// Package narinfo reads and writes the .narinfo files of Nix binary caches.
//
// A narinfo is a text of "Key: value" lines, one file for each store path,
// named by the path's hash part. What is accepted follows the loop in Nix's
// src/libstore/nar-info.cc, because a backup must not take for good what Nix
// will refuse, nor the reverse: the value begins two bytes after the colon, the
// last line ends in a newline, blank lines are errors, unknown keys are
// ignored. go-nix's parser is not used: it refuses unknown keys (the
// "Signature:" of nix-push 1.x among them) and every store directory but
// /nix/store, and accepts blank lines.
package narinfo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// A NarInfo is the metadata of one store path in a binary cache.
type NarInfo struct {
	StoreDir    string         // store directory, the directory part of "StorePath"
	StorePath   storepath.Path // base name
	URL         string         // NAR file, relative to the cache; not checked here
	Compression string         // as written; "" means bzip2, by Nix's rule
	FileHash    string         // hash of the NAR file as written, "" if absent; Nix never verifies it
	FileSize    int64          // size of the NAR file in bytes, 0 if absent
	NarHash     Hash           // SHA-256 of the NAR
	NarSize     int64          // size of the NAR in bytes, > 0
	References  []storepath.Path
	Deriver     storepath.Path // "" if unknown
	System      string         // written by Nix up to 2.8 only
	Sigs        []string       // "<key name>:<base64>"
	CA          string         // content address, "" if none
}

// A FieldError says which field of a narinfo is at fault.
type FieldError struct {
	Field string // key, or "" when the text itself is malformed
	Line  int    // 1-based, 0 when a field is missing
	Err   error
}

func (e *FieldError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("field %s: %v", e.Field, e.Err)
	case e.Field == "":
		return fmt.Sprintf("line %d: %v", e.Line, e.Err)
	}
	return fmt.Sprintf("line %d: field %s: %v", e.Line, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

var (
	errMissing  = errors.New("is missing")
	errRepeated = errors.New("is there twice")
	errNoColon  = errors.New("has no colon")
	errBlank    = errors.New("is blank")
	errCR       = errors.New("ends in a carriage return")
	errNoEnd    = errors.New("has no newline at its end: the file is truncated")
)

// Parse reads a narinfo. Errors are *FieldError; the caller adds the file name.
func Parse(text []byte) (*NarInfo, error) {
	n := &NarInfo{}
	for line := 1; len(text) > 0; line++ {
		key, value, rest, err := cutLine(text)
		if err != nil {
			return nil, &FieldError{Line: line, Err: err}
		}
		if err := n.set(key, value); err != nil {
			return nil, &FieldError{Field: key, Line: line, Err: err}
		}
		text = rest
	}
	return n, n.complete()
}

// FindNarHash returns the NarHash in text, which Parse is known to accept, at a
// fraction of the cost.
func FindNarHash(text []byte) (Hash, bool) {
	const key = "NarHash: "
	at := 0
	if !bytes.HasPrefix(text, []byte(key)) {
		if at = bytes.Index(text, []byte("\n"+key)) + 1; at == 0 {
			return Hash{}, false
		}
	}
	value, _, _ := bytes.Cut(text[at+len(key):], []byte("\n"))
	h, err := ParseHash(string(value))
	return h, err == nil
}

// cutLine splits the first line off text, the way Nix does.
func cutLine(text []byte) (key, value string, rest []byte, err error) {
	if text[0] == '\n' {
		return "", "", nil, errBlank
	}
	colon := bytes.IndexByte(text, ':')
	if colon < 0 || bytes.IndexByte(text[:colon], '\n') >= 0 {
		return "", "", nil, errNoColon
	}
	if len(text) < colon+2 {
		return "", "", nil, errNoEnd
	}
	if text[colon+1] != ' ' {
		// Nix would skip this byte unseen, and swallow the next line when it is
		// a newline.
		return "", "", nil, fmt.Errorf("has %q instead of a space after the colon", text[colon+1])
	}
	raw, rest, found := bytes.Cut(text[colon+2:], []byte("\n"))
	switch {
	case !found:
		return "", "", nil, errNoEnd
	case bytes.HasSuffix(raw, []byte("\r")):
		return "", "", nil, errCR
	}
	return string(text[:colon]), string(raw), rest, nil
}

func (n *NarInfo) set(key, value string) (err error) {
	switch key {
	case "StorePath":
		n.StoreDir, n.StorePath, err = parseAbsolute(value)
	case "URL":
		n.URL = value
	case "Compression":
		n.Compression = value
	case "FileHash":
		n.FileHash = value
	case "FileSize":
		n.FileSize, err = parseSize(value)
	case "NarHash":
		n.NarHash, err = ParseHash(value)
	case "NarSize":
		n.NarSize, err = parseSize(value)
	case "References":
		err = n.setReferences(value)
	case "Deriver":
		if value != "unknown-deriver" {
			n.Deriver, err = storepath.Parse(value)
		}
	case "System":
		n.System = value
	case "Sig":
		n.Sigs = append(n.Sigs, value)
	case "CA":
		if n.CA != "" && value != "" {
			return errRepeated
		}
		n.CA = value
	}
	return err
}

func parseAbsolute(value string) (dir string, p storepath.Path, err error) {
	slash := strings.LastIndexByte(value, '/')
	if slash <= 0 || value[0] != '/' {
		return "", "", fmt.Errorf("%q is not an absolute store path", value)
	}
	p, err = storepath.ParseIn(value[:slash], value)
	return value[:slash], p, err
}

func parseSize(value string) (int64, error) {
	size, err := strconv.ParseInt(value, 10, 64)
	if err != nil || size < 0 || value[0] == '+' {
		return 0, fmt.Errorf("%q is not a size in bytes", value)
	}
	return size, nil
}

func (n *NarInfo) setReferences(value string) error {
	if len(n.References) > 0 {
		return errRepeated
	}
	for _, base := range strings.Fields(value) {
		ref, err := storepath.Parse(base)
		if err != nil {
			return err
		}
		n.References = append(n.References, ref)
	}
	// References are a set; caches exist that write them out of order.
	slices.Sort(n.References)
	n.References = slices.Compact(n.References)
	return nil
}

// complete reports the first field that Nix requires and n lacks.
func (n *NarInfo) complete() error {
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"StorePath", n.StorePath != ""},
		{"URL", n.URL != ""},
		{"NarHash", !n.NarHash.IsZero()},
		{"NarSize", n.NarSize > 0},
	} {
		if !f.has {
			return &FieldError{Field: f.name, Err: errMissing}
		}
	}
	return nil
}

// Bytes returns the text, in the order in which Nix writes the fields. Empty
// optional fields are left out, but for References, which Nix wants.
func (n *NarInfo) Bytes() []byte {
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	optional := func(key, value string) {
		if value != "" {
			line(key, value)
		}
	}
	line("StorePath", n.StorePath.In(n.StoreDir))
	b.Write(fileFields(n))
	line("NarHash", n.NarHash.String())
	line("NarSize", strconv.FormatInt(n.NarSize, 10))
	line("References", JoinPaths(n.References))
	optional("Deriver", string(n.Deriver))
	optional("System", n.System)
	for _, sig := range n.Sigs {
		line("Sig", sig)
	}
	optional("CA", n.CA)
	return b.Bytes()
}

// JoinPaths returns paths as the field References has them: separated by single
// spaces.
func JoinPaths(paths []storepath.Path) string {
	words := make([]string, len(paths))
	for i, p := range paths {
		words[i] = string(p)
	}
	return strings.Join(words, " ")
}
