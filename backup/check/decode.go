package check

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
)

// decode decodes the NAR once: its size and NarHash are verified, and all else
// that its content tells. The error is that of narread.
func (e *examination) decode(ctx context.Context, src *source, size int64) error {
	a, err := narread.Open(ioSource{src}, size, narread.Options{
		Name: e.file, Compression: e.claim.compression, NarSize: e.claim.narSize, NarHash: e.claim.narHash,
		Cache: e.c.o.Cache.Blocks, SpoolDir: e.c.o.Cache.SpoolDir,
		Warn: func(err error) { e.warned = append(e.warned, err) },
	})
	if err != nil {
		return err
	}
	defer a.Close()
	stop := context.AfterFunc(ctx, func() { a.Close() })
	defer stop()
	pr, pw := io.Pipe()
	c := &content{addresses: e.addresses()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read(pr)
		io.Copy(io.Discard, pr) // whatever follows, the NarHash is of it as well
	}()
	writers := []io.Writer{pw}
	for _, ad := range c.addresses {
		if ad.sum != nil {
			writers = append(writers, ad.sum)
		}
	}
	e.narSize, err = a.WriteTo(io.MultiWriter(writers...))
	pw.CloseWithError(err)
	<-done
	var damage *narread.DamageError
	switch {
	case err == nil:
		e.compare(c)
	case errors.As(err, &damage):
		e.lost = e.survey(ctx, a)
	}
	return err
}

// ioSource hides Close: the file is read on after the archive is closed.
type ioSource struct{ io.ReaderAt }

// A content is what is in a NAR.
type content struct {
	addresses []*address
	listing   *nar.Listing // nil if it would be too large
	size      int64        // of the NAR, without what follows it
	err       error        // what no Nix reads
}

// read reads a NAR from its beginning to its end.
func (c *content) read(r io.Reader) {
	nr := nar.NewReader(r, nar.ReaderOptions{})
	c.listing, c.err = nr.ListingWithin(maxEntries)
	c.size = nr.Offset()
}

// compare reports what the content of a NAR with the right NarHash tells.
func (e *examination) compare(c *content) {
	var format *nar.FormatError
	switch {
	case errors.As(c.err, &format):
		e.find(Finding{Kind: NarFormat, Severity: Damage, Message: fmt.Sprintf("no Nix reads it, though its NarHash is right: %v", c.err)})
		return
	case c.err != nil:
		e.find(Finding{Kind: NarFormat, Severity: Damage, Message: c.err.Error()})
		return
	case c.listing == nil:
		e.find(Finding{Kind: NarPortable, Severity: Note, Message: fmt.Sprintf("has more than %d entries, and was not compared with its listing", maxEntries)})
		return
	case c.size != e.claim.narSize:
		e.find(Finding{Kind: NarFormat, Severity: Damage, Message: fmt.Sprintf("%d more bytes follow the end of the NAR", e.claim.narSize-c.size)})
	}
	for _, i := range e.users {
		if e.c.table.paths[i].listing {
			e.c.compareListing(i, c.listing)
		}
	}
	for _, w := range c.listing.Warnings(string(e.c.table.name(e.users[0]))) {
		e.find(Finding{Kind: NarPortable, Severity: Warning, Message: w})
	}
	for _, ad := range c.addresses {
		if !ad.right(e.claim.narHash) {
			e.c.add(Finding{Kind: ContentAddr, Severity: Damage, File: e.c.narInfoFile(ad.path), Remedy: e.c.again("it"),
				Message: fmt.Sprintf("field CA: %s is not the address of what is in the NAR", e.c.table.cas[ad.path])}, ad.path)
		}
	}
}
