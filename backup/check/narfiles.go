package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// checkNARFiles looks whether the NAR files are there, in the sizes that their
// narinfos say, and whether narinfos agree about them. Nothing is read.
func (c *checker) checkNARFiles(ctx context.Context) error {
	return each(ctx, scanners, len(c.table.nars), func(i int) {
		n := c.table.nars[i]
		c.checkNARFile(n)
		if len(n.claims) > 1 {
			c.conflict(n)
		}
	})
}

func (c *checker) checkNARFile(n *narFile) {
	n.size = -1
	f, st, err := c.cache.OpenFile(n.url)
	if errors.Is(err, fs.ErrNotExist) {
		n.damaged = true
		c.missing(n)
		return
	}
	if err != nil {
		n.damaged = true
		c.add(trouble(NarData, c.fileName(n.url), err, c.again("it")), n.users...)
		return
	}
	defer f.Close()
	n.size = st.Size()
	for _, claim := range n.claims {
		if claim.fileSize == n.size || claim.fileSize == 0 && n.size <= claim.maxFile() || !c.confirm(n, st) {
			continue
		}
		n.damaged = true
		c.add(Finding{Kind: NarSize, Severity: Damage, File: c.fileName(n.url), Remedy: c.again("it"),
			Message: fmt.Sprintf("has %d bytes, its narinfo says %d", n.size, cmp.Or(claim.fileSize, claim.narSize))}, c.claimants(n, claim)...)
	}
}

// missing reports a NAR file that is not there, if any narinfo still names it.
func (c *checker) missing(n *narFile) {
	users := slices.DeleteFunc(slices.Clone(n.users), func(i int32) bool { return !c.stillNames(i, n.url) })
	if len(users) == 0 {
		return
	}
	remedy := c.again("it")
	if !c.b.Foreign() {
		remedy = remedyRepair
	}
	c.add(Finding{Kind: NarMissing, Severity: Damage, File: c.fileName(n.url), Message: "is missing", Remedy: remedy}, users...)
}

// confirm reports whether a NAR file that seems to be damaged is still the one
// that st describes, and somebody still names it.
func (c *checker) confirm(n *narFile, st fs.FileInfo) bool {
	now, err := c.cache.Lstat(n.url)
	if err != nil || now.Mode().IsRegular() && (now.Size() != st.Size() || !now.ModTime().Equal(st.ModTime())) {
		return false
	}
	return slices.ContainsFunc(n.users, func(i int32) bool { return c.stillNames(i, n.url) })
}

// conflict reports narinfos that disagree about a file.
func (c *checker) conflict(n *narFile) {
	first, other := n.claims[0], n.claims[1]
	message := fmt.Sprintf("its narinfos contradict each other in Compression, FileHash or FileSize: one says %s, %s, %d, another %s, %s, %d",
		first.compression, first.fileHash, first.fileSize, other.compression, other.fileHash, other.fileSize)
	severity := Warning
	if first.narHash != other.narHash || first.narSize != other.narSize {
		severity = Damage
		message = fmt.Sprintf("its narinfos contradict each other: one says NarHash %s, NarSize %d, another %s, %d",
			first.narHash, first.narSize, other.narHash, other.narSize)
	}
	c.add(Finding{Kind: NarConflict, Severity: severity, File: c.fileName(n.url), Message: message,
		Remedy: "--read-data shows which of them is right"}, n.users...)
}

// claimants returns the store paths whose narinfos claim something, all users
// where there is only one claim.
func (c *checker) claimants(n *narFile, cl claim) []int32 {
	if len(n.claims) == 1 {
		return n.users
	}
	var users []int32
	for _, i := range n.users {
		info, err := c.cache.NarInfo(c.table.hashes[i])
		if err == nil && info.NarHash == cl.narHash && info.NarSize == cl.narSize && info.FileHash == cl.fileHash && info.FileSize == cl.fileSize {
			users = append(users, i)
		}
	}
	return users
}
