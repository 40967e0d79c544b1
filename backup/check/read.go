package check

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/narinfo"
)

// readNARs reads the selected NAR files whole.
func (c *checker) readNARs(ctx context.Context) error {
	if c.o.ReadData.none() {
		return nil
	}
	m := c.recall()
	chosen := c.o.ReadData.choose(c.table.nars, m.last)
	var size int64
	for _, n := range chosen {
		size += n.size
	}
	c.o.Progress.Planned(len(chosen), size)
	c.readData = new(ReadData)
	err := c.readAll(ctx, chosen, m)
	c.readData.Left = len(c.table.nars) - c.readData.NarFiles
	c.readData.Oldest = oldest(c.table.nars, m.last)
	if saveErr := m.save(c.table.nars); saveErr != nil && err == nil {
		c.add(Finding{Kind: Memory, Severity: Note, File: c.relative(m.name),
			Message: fmt.Sprintf("what was verified could not be noted, so the next check does not know: %v", saveErr)})
	}
	return err
}

// readAll reads NAR files, several at a time, until the time budget is used up.
func (c *checker) readAll(ctx context.Context, chosen []*narFile, m *memory) error {
	budget, end := ctx, context.CancelFunc(func() {})
	if c.o.ReadData.Budget > 0 {
		budget, end = context.WithDeadline(ctx, c.start.Add(c.o.ReadData.Budget))
	}
	defer end()
	var read atomic.Int64
	err := each(budget, c.o.Workers, len(chosen), func(i int) {
		n := chosen[i]
		narSize := c.readNAR(ctx, n)
		if ctx.Err() != nil {
			return
		}
		c.o.Progress.Checked()
		read.Add(1)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.readData.NarFiles++
		c.readData.FileSize += n.size
		c.readData.NarSize += narSize
		delete(m.last, n.url)
		if !n.damaged {
			m.last[n.url] = time.Now().UTC().Truncate(time.Second)
		}
	})
	if ctx.Err() == nil {
		err = nil // the budget
	}
	return err
}

// attempts is how often a NAR file is read that others replace meanwhile.
const attempts = 3

// readNAR reads a NAR file and reports what is wrong with it. It returns the
// bytes that were decoded.
func (c *checker) readNAR(ctx context.Context, n *narFile) (narSize int64) {
	for range attempts {
		f, st, err := c.cache.OpenFile(n.url)
		if errors.Is(err, fs.ErrNotExist) {
			n.damaged = true
			c.missing(n) // it went, perhaps with its narinfos
			return 0
		}
		if err != nil {
			n.damaged = true
			c.add(trouble(NarData, c.fileName(n.url), err, c.again("it")), n.users...)
			return 0
		}
		findings, narSize := c.examine(ctx, n, f, st.Size())
		if ctx.Err() != nil {
			return 0
		}
		bad := false
		for i := range findings {
			bad = bad || findings[i].Severity == Damage || findings[i].Severity == Unreadable
		}
		if bad && !c.confirm(n, st) {
			continue // it is another file now, or nobody names it
		}
		n.damaged = n.damaged || bad
		for i := range findings {
			c.add(findings[i].Finding, findings[i].hurts...)
		}
		return narSize
	}
	return 0
}

// examine reads a NAR file once for each claim about it, of which there is one
// unless narinfos disagree. It closes the file.
func (c *checker) examine(ctx context.Context, n *narFile, f *os.File, size int64) (out []found, narSize int64) {
	defer f.Close()
	for _, claim := range n.claims {
		e := &examination{c: c, n: n, claim: claim, file: c.fileName(n.url), users: c.claimants(n, claim)}
		if len(e.users) == 0 {
			continue // it was of a narinfo that has gone
		}
		if size > claim.maxFile() {
			continue // sparse files may have any size, and were reported
		}
		e.run(ctx, f, size)
		out = append(out, e.out...)
		narSize += e.narSize
	}
	return out, narSize
}

// maxFile bounds the bytes that are read of a NAR file.
func (cl *claim) maxFile() int64 {
	if cl.fileSize > 0 {
		return cl.fileSize
	}
	return 2*min(cl.narSize, 1<<60) + 1<<20 // no container adds as much
}

// An examination reads a NAR file and compares it with one claim.
type examination struct {
	c     *checker
	n     *narFile
	claim claim
	file  string  // as findings have it
	users []int32 // who claim it

	narSize int64
	warned  []error // by narread
	lost    *survey // what damage has spoiled, if not all
	out     []found
}

// find adds a finding.
func (e *examination) find(f Finding) {
	f.File = e.file
	if f.Severity == Damage {
		f.Remedy = e.c.again("it")
	}
	e.out = append(e.out, found{Finding: f, hurts: e.users})
}

func (e *examination) run(ctx context.Context, f *os.File, size int64) {
	fileHash, want := newFileHash(e.claim.fileHash)
	src := newSource(f, size, fileHash, e.c.o.Progress.Read)
	err := e.decode(ctx, src, size)
	if ctx.Err() != nil {
		return
	}
	if fault := src.finish(); fault != nil {
		e.find(trouble(NarData, e.file, fault, ""))
		return
	}
	var damage *narread.DamageError
	switch {
	case want != nil && !want.Is(fileHash):
		e.changed(fmt.Sprintf("FileHash is %s, its narinfo says %s", want.Of(fileHash), *want), err)
	case errors.As(err, &damage):
		e.changed("", err)
	case errors.Is(err, errors.ErrUnsupported):
		e.find(Finding{Kind: NarContainer, Severity: Warning, Message: fmt.Sprintf("narvault cannot decode it, so its NarHash is not verified: %v", err)})
	case err != nil:
		e.find(trouble(NarData, e.file, err, ""))
	}
	if len(e.out) > 0 && e.out[0].Severity == Damage {
		return // of which the warnings come
	}
	for _, w := range e.warned {
		e.find(Finding{Kind: NarContainer, Severity: Warning, Message: w.Error(),
			Remedy: "Nix from 2.34 on may not read it; a copy with \"nix copy\" is right"})
	}
}

// newFileHash returns a hash of the algorithm that FileHash has, and what it has
// to come to; nil if there is none that could be compared.
func newFileHash(fileHash string) (hash.Hash, *narinfo.Digest) {
	if d, err := narinfo.ParseDigest(fileHash); err == nil {
		return d.New(), &d
	}
	return sha256.New(), nil
}

// changed reports a NAR file that is not what it has to be: what is known of the
// file, and err, what came of decoding it.
func (e *examination) changed(message string, err error) {
	f := Finding{Kind: NarData, Severity: Damage, Message: message}
	var damage *narread.DamageError
	switch {
	case errors.As(err, &damage):
		if damage.Offset >= 0 {
			f.Offset = &damage.Offset
		}
		reason := damage.Err.Error()
		if damage.Block >= 0 {
			reason = fmt.Sprintf("block %d: %s", damage.Block, reason)
		}
		if message == "" {
			f.Message = reason
			if e.claim.fileHash != "" {
				f.Message += " (its FileHash is right: it was written so, or its narinfo is wrong)"
			}
		} else {
			f.Message += "; " + reason
		}
		e.addLost(&f)
	case err == nil:
		f.Message += "; its content is whole, NarHash is right"
		for _, w := range e.warned {
			f.Message += "; " + w.Error()
		}
	}
	e.find(f)
}

// addLost says how much is lost.
func (e *examination) addLost(f *Finding) {
	if e.lost == nil || e.lost.blocks == 0 {
		return
	}
	f.Files = e.lost.files
	f.Message += fmt.Sprintf("; %d of its blocks are damaged", e.lost.blocks)
	if e.lost.more > 0 {
		f.Message += fmt.Sprintf(", with more than %d files", maxHurtFiles)
	}
}
