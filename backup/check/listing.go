package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
)

const (
	// maxListing bounds what is read of a .ls file, in bytes. One of 100,000
	// entries has 10 MB.
	maxListing = 64 << 20
	// maxEntries bounds the listing that is made of a NAR to compare with: those
	// of packages have 100,000.
	maxEntries = 4 << 20
)

const remedyListing = "remove it: only \"nix store ls\" uses it"

// checkListing looks whether a .ls file can be read, without its NAR.
func (c *checker) checkListing(i int32) {
	name := c.table.hashes[i] + bincache.ListingExt
	text, err := c.cache.ReadFile(name, maxListing)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil && !json.Valid(text) {
		err = errors.New("is no JSON")
	}
	if err != nil {
		c.add(trouble(Listing, c.fileName(name), err, remedyListing), i)
	}
}

// compareListing compares a .ls file with what is in the NAR.
func (c *checker) compareListing(i int32, l *nar.Listing) {
	name := c.table.hashes[i] + bincache.ListingExt
	text, err := c.cache.ReadFile(name, maxListing)
	if err != nil {
		return // checkListing said it
	}
	var want bytes.Buffer
	err = l.WriteLS(&want)
	if err == nil && bytes.Equal(text, want.Bytes()) {
		return
	}
	if errors.Is(err, nar.ErrNotUTF8) {
		c.add(Finding{Kind: Listing, Severity: Warning, File: c.fileName(name), Remedy: remedyListing,
			Message: "cannot be right: names in the archive are not UTF-8, which JSON cannot hold"}, i)
		return
	}
	if severity, message := lsProblem(text, l); message != "" && json.Valid(text) {
		c.add(Finding{Kind: Listing, Severity: severity, File: c.fileName(name), Message: message, Remedy: remedyListing}, i)
	}
}

// lsProblem says where a .ls file contradicts a listing, or "". Offsets may be
// missing: not all who write .ls files know them.
func lsProblem(text []byte, l *nar.Listing) (Severity, string) {
	ls, err := parseLS(text)
	if err != nil {
		return Damage, err.Error()
	}
	nodes := make([]*lsNode, l.Len()) // by entry, in which parents come first
	nodes[0] = ls.root
	for i := range nodes {
		e := l.Entry(i)
		if problem := nodes[i].problem(&e); problem != "" {
			return Damage, fmt.Sprintf("contradicts the archive: %q %s", l.Path(i), problem)
		}
		for j := e.First; j < e.First+e.N; j++ {
			if nodes[j] = nodes[i].entries[l.Entry(j).Name]; nodes[j] == nil {
				return Damage, fmt.Sprintf("contradicts the archive: it lacks %q", l.Path(j))
			}
		}
	}
	if ls.unknown != "" {
		return Warning, fmt.Sprintf("has a field %q, which Nix does not write", ls.unknown)
	}
	return "", ""
}

func (n *lsNode) problem(e *nar.Entry) string {
	switch {
	case n.kind != e.Type.String():
		return fmt.Sprintf("is a %s, not a %s", e.Type, n.kind)
	case e.Type == nar.Directory && len(n.entries) != e.N:
		return fmt.Sprintf("has %d entries, not %d", e.N, len(n.entries))
	case e.Type == nar.Regular && n.size != e.Size:
		return fmt.Sprintf("has %d bytes, not %d", e.Size, n.size)
	case e.Type == nar.Regular && n.executable != e.Executable:
		return fmt.Sprintf("is executable: %v", e.Executable)
	case e.Type == nar.Regular && n.offset != 0 && n.offset != e.Offset:
		return fmt.Sprintf("is at offset %d, not %d", e.Offset, n.offset)
	case e.Type == nar.Symlink && n.target != e.Target:
		return fmt.Sprintf("links to %q, not %q", e.Target, n.target)
	}
	return ""
}
