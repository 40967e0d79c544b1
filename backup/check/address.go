package check

import (
	"bytes"
	"hash"
	"io"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
)

// An address is the content address of one store path, being verified.
type address struct {
	path int32
	ca   narinfo.ContentAddress
	sum  sum // nil: it is NarHash
}

// A sum comes of the bytes of a NAR.
type sum interface {
	io.Writer
	Is(narinfo.Digest) bool // all was written, and this came of it
}

// addresses returns what can be verified of those who share the NAR. That the
// store path fits was looked at before.
func (e *examination) addresses() (all []*address) {
	for _, i := range e.users {
		text, has := e.c.table.cas[i]
		ca, err := narinfo.ParseCA(text)
		if !has || err != nil || ca.Method == narinfo.CAGit {
			continue
		}
		p := &e.c.table.paths[i]
		ad := &address{path: i, ca: ca}
		switch {
		case ca.Method != narinfo.CANar:
			ad.sum = &fileSum{hash: ca.Digest.New()}
		case p.refersToItself(i):
			ad.sum = narinfo.NewModuloHash(ca.Digest, p.path.Hash())
		case ca.Digest.Algorithm != "sha256":
			ad.sum = narSum{ca.Digest.New()}
		}
		all = append(all, ad)
	}
	return all
}

// refersToItself reports whether the store path, which has the number i, refers
// to itself.
func (e *entry) refersToItself(i int32) bool {
	for _, ref := range e.refs {
		if ref == i {
			return true
		}
	}
	return false
}

// right reports whether the content has the address.
func (ad *address) right(narHash narinfo.Hash) bool {
	if ad.sum == nil {
		return ad.ca.Digest.Sum == string(narHash[:])
	}
	return ad.sum.Is(ad.ca.Digest)
}

// A narSum is the hash of the NAR.
type narSum struct{ hash.Hash }

func (s narSum) Is(d narinfo.Digest) bool { return d.Is(s.Hash) }

// A fileSum is the hash of the content of a store path that is a file.
type fileSum struct {
	hash hash.Hash
	head []byte // of the NAR, until it tells where the content is
	file bool   // it is one
	skip int64  // bytes before the content
	left int64  // bytes of content
}

// headLen is more than what comes before the content of a file.
const headLen = 256

func (s *fileSum) Write(p []byte) (int, error) {
	n := len(p)
	if len(s.head) < headLen {
		have := min(headLen-len(s.head), len(p))
		s.head = append(s.head, p[:have]...)
		if p = p[have:]; len(s.head) < headLen {
			return n, nil
		}
		s.begin()
	}
	s.take(p)
	return n, nil
}

// begin parses the head, and hashes what it has of the content.
func (s *fileSum) begin() {
	h, err := nar.NewReader(bytes.NewReader(s.head), nar.ReaderOptions{}).Next()
	if err == nil && h.Type == nar.Regular {
		s.file, s.skip, s.left = true, h.Offset, h.Size
	}
	s.take(s.head)
}

func (s *fileSum) take(p []byte) {
	skip := min(s.skip, int64(len(p)))
	s.skip -= skip
	p = p[skip:]
	p = p[:min(s.left, int64(len(p)))]
	s.left -= int64(len(p))
	s.hash.Write(p)
}

func (s *fileSum) Is(d narinfo.Digest) bool {
	if len(s.head) < headLen {
		s.begin()
	}
	return s.file && d.Is(s.hash)
}
