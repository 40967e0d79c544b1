package nixstore

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// Limits on answers. They are far above what Nix can produce and keep a broken
// server from making us allocate: nothing is allocated before it has arrived.
const (
	maxString = 16 << 10 // paths are at most 4096 bytes; a CA or signature about 200
	maxPaths  = 1 << 24  // a closure; the largest known stores have some 10^6 paths
	maxSigs   = 1 << 12
	// preallocate bounds what a mere announcement of a count allocates.
	preallocate = 1 << 10
)

// A protocolError is an answer that no Nix gives.
type protocolError string

func (e protocolError) Error() string { return string(e) }

func protocolErrorf(format string, args ...any) error {
	return protocolError("answer: " + fmt.Sprintf(format, args...))
}

// question writes the serve protocol. Errors are bufio's, which keeps the first
// and returns it from Flush.
type question struct{ *bufio.Writer }

func (q question) uint64(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	q.Write(b[:])
}

func (q question) bool(b bool) {
	if b {
		q.uint64(1)
		return
	}
	q.uint64(0)
}

func (q question) string(s string) {
	q.uint64(uint64(len(s)))
	q.WriteString(s)
	var zeros [8]byte
	q.Write(zeros[:padding(uint64(len(s)))])
}

func (q question) paths(storeDir string, paths []storepath.Path) {
	q.uint64(uint64(len(paths)))
	for _, p := range paths {
		q.string(p.In(storeDir))
	}
}

// padding returns the number of zeros after a string of n bytes.
func padding(n uint64) uint64 { return -n & 7 }

// answer reads the serve protocol.
type answer struct {
	r        *bufio.Reader
	storeDir string
	buf      []byte
}

func newAnswer(r io.Reader, storeDir string) *answer {
	return &answer{r: bufio.NewReaderSize(r, 64<<10), storeDir: storeDir}
}

func (a *answer) uint64() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(a.r, b[:]); err != nil {
		return 0, noEOF(err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// noEOF makes the end of the stream an error wherever an answer is due.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (a *answer) string() (string, error) {
	n, err := a.uint64()
	if err != nil {
		return "", err
	}
	if n > maxString {
		return "", protocolErrorf("string of %d bytes, more than %d", n, maxString)
	}
	a.buf = slices.Grow(a.buf[:0], int(n)+8)[:n+padding(n)]
	if _, err := io.ReadFull(a.r, a.buf); err != nil {
		return "", noEOF(err)
	}
	for _, b := range a.buf[n:] {
		if b != 0 {
			return "", protocolErrorf("padding is not zero")
		}
	}
	return string(a.buf[:n]), nil
}

func (a *answer) path() (storepath.Path, error) {
	s, err := a.string()
	if err != nil {
		return "", err
	}
	return a.parse(s)
}

func (a *answer) parse(s string) (storepath.Path, error) {
	p, err := storepath.ParseIn(a.storeDir, s)
	if err != nil {
		return "", protocolErrorf("%v", err)
	}
	return p, nil
}

func (a *answer) count(what string, limit uint64) (uint64, error) {
	n, err := a.uint64()
	if err == nil && n > limit {
		err = protocolErrorf("%d %s, more than %d", n, what, limit)
	}
	return n, err
}

// paths reads a set of store paths and sorts it.
func (a *answer) paths() ([]storepath.Path, error) {
	n, err := a.count("paths", maxPaths)
	if err != nil {
		return nil, err
	}
	paths := make([]storepath.Path, 0, min(n, preallocate))
	for range n {
		p, err := a.path()
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	// Nix sends sets in order; sorting again makes that no condition.
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func (a *answer) strings(what string, limit uint64) ([]string, error) {
	n, err := a.count(what, limit)
	if err != nil {
		return nil, err
	}
	var list []string
	for range n {
		s, err := a.string()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// info reads one answer to QueryPathInfos; ok is false at the end of them.
func (a *answer) info() (info PathInfo, ok bool, err error) {
	path, err := a.string()
	if err != nil || path == "" {
		return info, false, err
	}
	if info.Path, err = a.parse(path); err != nil {
		return info, false, err
	}
	if err := a.infoFields(&info); err != nil {
		return info, false, err
	}
	return info, true, nil
}

func (a *answer) infoFields(info *PathInfo) error {
	deriver, err := a.string()
	if err != nil {
		return err
	}
	if deriver != "" {
		if info.Deriver, err = a.parse(deriver); err != nil {
			return err
		}
	}
	if info.References, err = a.paths(); err != nil {
		return err
	}
	if _, err = a.uint64(); err != nil { // download size: Nix repeats the NAR size
		return err
	}
	size, err := a.uint64()
	if err != nil {
		return err
	}
	if info.NarSize = int64(size); info.NarSize < 0 {
		return protocolErrorf("NAR size %d of %s", size, info.Path)
	}
	return a.integrity(info)
}

// integrity reads what protocol 2.4 added: hash, content address, signatures.
func (a *answer) integrity(info *PathInfo) error {
	hash, err := a.string()
	if err != nil {
		return err
	}
	if info.NarHash, err = narinfo.ParseHash(hash); err != nil {
		return protocolErrorf("%s: %v", info.Path, err)
	}
	if info.CA, err = a.string(); err != nil {
		return err
	}
	info.Sigs, err = a.strings("signatures", maxSigs)
	return err
}
