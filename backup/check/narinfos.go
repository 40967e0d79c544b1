package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// readNarInfos reads all narinfos into the table, and checks what each of them
// says by itself.
func (c *checker) readNarInfos(ctx context.Context) error {
	for _, hash := range c.files.listings {
		if i, found := c.table.number(hash); found {
			c.table.paths[i].listing = true
		}
	}
	return each(ctx, scanners, len(c.table.hashes), func(i int) { c.readNarInfo(int32(i)) })
}

func (c *checker) readNarInfo(i int32) {
	hash := c.table.hashes[i]
	info, text, err := c.cache.NarInfoText(hash)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := c.cache.Lstat(hash + bincache.NarInfoExt); errors.Is(err, fs.ErrNotExist) {
			c.table.paths[i].gone = true // it went since it was listed
			return
		}
	}
	if err != nil {
		c.damagedNarInfo(i, err)
		return
	}
	c.lint(i, info, text)
	c.compareIndex(i, info, text)
	if c.table.paths[i].listing {
		c.checkListing(i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table.add(i, info)
}

func (c *checker) narInfoFile(i int32) string {
	return c.fileName(c.table.hashes[i] + bincache.NarInfoExt)
}

// damagedNarInfo reports a narinfo that cannot be used. The name of its store
// path may be known to the index, or to those who refer to it.
func (c *checker) damagedNarInfo(i int32, err error) {
	f := trouble(NarInfo, c.narInfoFile(i), err, c.again("it"))
	if f.Severity == Damage && !c.b.Foreign() {
		f.Remedy = remedyRepair
	}
	c.add(f, i)
	if c.index == nil {
		return
	}
	if e, found := c.index.ByHash(c.table.hashes[i]); found {
		c.table.paths[i].path = e.Path
	}
}

// single are the fields of a narinfo that Nix takes the last of, where there are
// several.
var single = []string{"StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "Deriver", "System"}

// compressions are what Nix from 2.34 on knows; it refuses a narinfo with
// another word.
var compressions = []string{"", "none", "br", "bzip2", "compress", "grzip", "gzip", "lrzip", "lz4", "lzip", "lzma", "lzop", "xz", "zstd"}

// lint reports what is wrong with the fields of a narinfo that can be parsed.
func (c *checker) lint(i int32, info *narinfo.NarInfo, text []byte) {
	damage := func(kind Kind, format string, args ...any) {
		c.add(Finding{Kind: kind, Severity: Damage, File: c.narInfoFile(i), Message: fmt.Sprintf(format, args...), Remedy: c.again("it")}, i)
	}
	odd := func(format string, args ...any) {
		c.add(Finding{Kind: NarInfoOdd, Severity: Warning, File: c.narInfoFile(i), Message: fmt.Sprintf(format, args...)}, i)
	}
	lines := append([]byte("\n"), text...)
	for _, field := range single {
		if n := bytes.Count(lines, []byte("\n"+field+": ")); n > 1 {
			odd("field %s is there %d times: Nix takes the last", field, n)
		}
	}
	if info.FileHash != "" {
		if _, err := narinfo.ParseDigest(info.FileHash); err != nil {
			damage(NarInfo, "field FileHash: %v", err)
		}
	}
	if !slices.Contains(compressions, info.Compression) {
		odd("field Compression: %q is none that Nix from 2.34 on knows", info.Compression)
	}
	if info.CA != "" {
		if err := checkAddress(info); err != nil {
			damage(ContentAddr, "field CA: %v", err)
		}
	}
	c.checkSignatures(i, info)
}

// checkAddress compares the CA field with the store path, as Nix does before it
// believes it.
func checkAddress(info *narinfo.NarInfo) error {
	ca, err := narinfo.ParseCA(info.CA)
	if err != nil {
		return err
	}
	if p, known := ca.StorePath(info); known && p != info.StorePath {
		return fmt.Errorf("%s is the address of %s, with these references", info.CA, p)
	}
	return nil
}

// checkSignatures looks at the form of signatures, and verifies those of the
// trusted keys. Content-addressed paths need none.
func (c *checker) checkSignatures(i int32, info *narinfo.NarInfo) {
	signed := info.CA != "" && checkAddress(info) == nil
	for _, text := range info.Sigs {
		sig, err := signature.ParseSignature(text)
		if err != nil {
			c.add(Finding{Kind: NarInfoOdd, Severity: Warning, File: c.narInfoFile(i),
				Message: fmt.Sprintf("field Sig: %v: the newest Nix refuses the narinfo", err)}, i)
			continue
		}
		known := false
		good := slices.ContainsFunc(c.o.TrustedKeys, func(k signature.PublicKey) bool {
			known = known || k.Name == sig.Name
			return k.Verify(info.Fingerprint(), sig)
		})
		signed = signed || good
		if known && !good {
			c.add(Finding{Kind: Signature, Severity: Damage, File: c.narInfoFile(i), Remedy: c.again("it"),
				Message: fmt.Sprintf("the signature of %s is wrong: one of it, StorePath, NarHash, NarSize and References has changed", sig.Name)}, i)
			signed = true // somebody did
		}
	}
	if len(c.o.TrustedKeys) > 0 && !signed {
		c.add(Finding{Kind: Unsigned, Severity: Warning, File: c.narInfoFile(i), Message: "no trusted key has signed it",
			Remedy: "nix store sign, with a key of yours"}, i)
	}
}

// checkReferences reports references to store paths that are not there. It looks
// again first: a backup writes those that are referred to before, and whoever
// removes them removes those that refer before.
func (c *checker) checkReferences(context.Context) error {
	for ref, users := range c.table.absent {
		if has, err := c.cache.Has(ref.Hash()); has || err != nil {
			continue
		}
		c.missingReference(ref, users)
	}
	for i := range c.table.paths {
		e := &c.table.paths[i]
		if e.asked != "" && e.good && e.asked != e.path {
			c.table.others = append(c.table.others, otherName{e.askedBy, int32(i), e.asked})
		}
	}
	for _, o := range c.table.others {
		if to := &c.table.paths[o.to]; to.good && to.path != o.ref {
			c.wrongReference(o.by, fmt.Sprintf("refers to %s, but the store path with this hash is %s", o.ref, to.path))
		}
	}
	return nil
}

func (c *checker) missingReference(ref storepath.Path, users []int32) {
	users = slices.DeleteFunc(slices.Clone(users), func(i int32) bool { return !c.stillRefers(i, ref) })
	if len(users) == 0 {
		return
	}
	f := Finding{Kind: Reference, Severity: Damage, File: c.narInfoFile(users[0]),
		Message: fmt.Sprintf("refers to %s, which has no narinfo", ref), Remedy: c.again(string(ref))}
	if !c.b.Foreign() {
		f.Remedy = remedyRepair
	}
	if len(users) > 1 {
		f.Message += fmt.Sprintf(" (as do %d more)", len(users)-1)
	}
	f.StorePaths = []storepath.Path{ref}
	c.add(f, users...)
}

func (c *checker) wrongReference(by int32, message string) {
	c.add(Finding{Kind: Reference, Severity: Damage, File: c.narInfoFile(by), Message: message, Remedy: c.again("it")}, by)
}

// stillRefers reports whether a narinfo is there and refers to a store path.
func (c *checker) stillRefers(i int32, ref storepath.Path) bool {
	info, err := c.cache.NarInfo(c.table.hashes[i])
	if err != nil {
		return false
	}
	_, found := slices.BinarySearch(info.References, ref)
	return found
}
