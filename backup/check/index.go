package check

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

// openIndex opens the index if there is one: the backup's own, or that in the
// user's cache directory. It has what narinfos were when it was built.
func (c *checker) openIndex(context.Context) error {
	for _, dir := range c.b.IndexDirs() {
		ix, err := c.b.OpenIndex(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			c.add(c.indexTrouble(dir, err))
		default:
			c.index, c.indexDir = ix, dir
		}
		return nil
	}
	return nil
}

func (c *checker) closeIndex() {
	if c.index != nil {
		c.index.Close()
	}
}

func (c *checker) indexTrouble(dir string, err error) Finding {
	f := Finding{Kind: Index, Severity: severityOf(err), File: c.relative(dir), Message: err.Error(),
		Remedy: "\"narvault index\" builds it anew; it is derived, so nothing is lost"}
	var damage *index.DamageError
	if errors.As(err, &damage) {
		f.Severity, f.File, f.Message = Damage, c.relative(damage.File), damage.Err.Error()
		if errors.As(err, new(*index.VersionError)) { // before or after an upgrade
			f.Severity = Warning
		}
	} else if f.Severity == Unreadable {
		f.Remedy = remedyUnreadable
	}
	return f
}

// compareIndex compares a narinfo with what it was when it was indexed.
func (c *checker) compareIndex(i int32, info *narinfo.NarInfo, text []byte) {
	if c.index == nil {
		return
	}
	record, err := c.index.Record(info.StorePath)
	var narInfoDamage *bincache.DamageError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &narInfoDamage) {
		c.unindexed.Add(1)
		return
	}
	if err != nil {
		return // checkIndex reads all of it
	}
	if record.NarInfoSum == sha256.Sum256(text) {
		return
	}
	diffs := differences(record.Info, info)
	if len(diffs) == 0 {
		c.add(Finding{Kind: NarInfoIndex, Severity: Warning, File: c.narInfoFile(i), Remedy: remedyStale,
			Message: "says the same as when it was indexed, but in other bytes"}, i)
		return
	}
	message := "is not what was indexed: " + strings.Join(diffs, "; ")
	if rewritten(record.Info, info) {
		c.stale(i, message)
		return
	}
	f := Finding{Kind: NarInfoIndex, Severity: Damage, File: c.narInfoFile(i), Message: message, Remedy: c.whichDiffers(i, info)}
	if c.b.Foreign() {
		// Whoever keeps the cache may change it, and nobody keeps the index up to date.
		f.Severity = Warning
	}
	c.add(f, i)
}

const remedyStale = "\"narvault index\" brings it up to date"

func (c *checker) stale(i int32, message string) {
	c.add(Finding{Kind: IndexStale, Severity: Note, File: c.narInfoFile(i), Message: message, Remedy: remedyStale})
}

// whichDiffers says who of narinfo and index is more likely to be right. The
// index is covered by checksums, which checkIndex verifies; when a bit flips on
// a disk, no time changes.
func (c *checker) whichDiffers(i int32, info *narinfo.NarInfo) string {
	for _, text := range info.Sigs {
		sig, err := signature.ParseSignature(text)
		if err == nil && slices.ContainsFunc(c.o.TrustedKeys, func(k signature.PublicKey) bool { return k.Verify(info.Fingerprint(), sig) }) {
			return "a trusted key has signed what the narinfo says; if the rest is right, too, \"narvault index\" builds the index anew"
		}
	}
	st, err := c.cache.Lstat(c.table.hashes[i] + bincache.NarInfoExt)
	if err == nil && st.ModTime().After(c.index.Created()) {
		return "somebody changed it after it was indexed: if it is right, \"narvault index\" brings the index up to date; else " + c.again("it")
	}
	return "it changed without being written to, so the index is right unless that is damaged, too: " + c.again("it")
}

// differences lists the fields in which a narinfo is not what it was.
func differences(was, is *narinfo.NarInfo) []string {
	var diffs []string
	field := func(name string, was, is any) {
		if a, b := fmt.Sprint(was), fmt.Sprint(is); a != b {
			diffs = append(diffs, fmt.Sprintf("%s was %q, is %q", name, a, b))
		}
	}
	field("StorePath", was.StorePath.In(was.StoreDir), is.StorePath.In(is.StoreDir))
	field("URL", was.URL, is.URL)
	field("Compression", was.Compression, is.Compression)
	field("FileHash", was.FileHash, is.FileHash)
	field("FileSize", was.FileSize, is.FileSize)
	field("NarHash", was.NarHash, is.NarHash)
	field("NarSize", was.NarSize, is.NarSize)
	field("References", was.References, is.References)
	field("Deriver", was.Deriver, is.Deriver)
	field("System", was.System, is.System)
	field("Sig", was.Sigs, is.Sigs)
	field("CA", was.CA, is.CA)
	return diffs
}

// rewritten reports whether a narinfo may have been changed on purpose: it got
// signatures, or its NAR was packed anew, into another file.
func rewritten(was, is *narinfo.NarInfo) bool {
	same := *is
	same.Sigs, same.URL, same.Compression, same.FileHash, same.FileSize = was.Sigs, was.URL, was.Compression, was.FileHash, was.FileSize
	if len(differences(was, &same)) > 0 {
		return false
	}
	for _, sig := range was.Sigs {
		if !slices.Contains(is.Sigs, sig) {
			return false
		}
	}
	if was.URL == is.URL {
		same = *is
		same.Sigs = was.Sigs
		return len(differences(was, &same)) == 0
	}
	return was.FileHash != is.FileHash
}

// checkIndex reads all files of the index, and looks for store paths that it has
// and the cache has not.
func (c *checker) checkIndex(ctx context.Context) error {
	if c.index == nil {
		return nil
	}
	if err := c.index.Verify(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.add(c.indexTrouble(c.indexDir, err))
	}
	gone := 0
	for _, e := range c.index.Paths() {
		if i, found := c.table.number(e.Path.Hash()); !found || c.table.paths[i].gone {
			gone++
		}
	}
	if n := int(c.unindexed.Load()); n+gone > 0 {
		c.add(Finding{Kind: IndexStale, Severity: Note, File: c.relative(c.indexDir),
			Message: fmt.Sprintf("lacks %d store paths that the cache has, and has %d that it has no longer", n, gone), Remedy: remedyStale})
	}
	return nil
}
