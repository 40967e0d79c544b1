package narread

import (
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/narvault/narvault/narread/nar"
)

// listInOrder makes the listing by a pass that keeps nothing but the hashes of
// the blocks.
func (a *Archive) listInOrder() (*nar.Listing, error) {
	pr, pw := io.Pipe()
	listed := make(chan struct{})
	var l *nar.Listing
	var listErr error
	go func() {
		defer close(listed)
		l, listErr = listStream(pr, a.o.NarSize)
		io.Copy(io.Discard, pr) // the pass goes on to the NarHash
	}()
	var sums blockSums
	err := a.boundedPass(func(p []byte) error {
		sums = append(sums, xxhash.Sum64(p))
		_, err := pw.Write(p)
		return err
	})
	pw.Close()
	<-listed
	switch {
	case err != nil:
		return nil, err
	case listErr != nil: // verified, and yet no NAR
		return nil, a.file.damage(-1, -1, listErr)
	}
	a.sums.val.Store(&sums)
	return l, nil
}

// listStream is nar.ReadListing of a stream.
func listStream(r io.Reader, size int64) (*nar.Listing, error) {
	nr := nar.NewReader(r, nar.ReaderOptions{})
	l, err := nr.Listing()
	if err == nil && nr.Offset() != size {
		err = &nar.FormatError{Offset: nr.Offset(), Msg: fmt.Sprintf("%d more bytes after its end", size-nr.Offset())}
	}
	return l, err
}
