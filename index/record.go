package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/zpack"
)

// A Record is what the index holds of one store path. It shares no memory with
// the index and must not be changed.
type Record struct {
	Info       *narinfo.NarInfo
	NarInfo    []byte   // the narinfo file, byte by byte
	NarInfoSum [32]byte // SHA-256 of NarInfo: does the record fit what the cache holds now?
	Layout     []byte   // how the container is cut into blocks, for narread; may be empty

	listing []byte
	reason  string // why there is no listing
}

// Listing decodes the listing of the NAR, at each call: keep it. The error is a
// *NoListingError when there is none, a *DamageError when it is damaged.
func (r *Record) Listing() (*nar.Listing, error) {
	if r.listing == nil {
		return nil, &NoListingError{Reason: r.reason}
	}
	l, err := nar.DecodeListing(r.listing)
	if err == nil && l.NarSize() != r.Info.NarSize {
		err = fmt.Errorf("listing is of a NAR of %d bytes, NarSize is %d", l.NarSize(), r.Info.NarSize)
	}
	if err != nil {
		return nil, damage("record of "+string(r.Info.StorePath), "%w", err)
	}
	return l, nil
}

// In the database a record is
//
//	checksum  8 bytes: XXH64 of the path's number (4 bytes), the path, and all
//	          that follows here
//	kind      1 byte: kindPath, or kindDamaged when the narinfo is damaged
//	sum       16 bytes: the first of the SHA-256 of the narinfo file
//	narSize   varint: bytes of the NAR; 0 if the narinfo is damaged
//	nodes     varint: entries of the listing
//	sizes     5 varints: of words, reason, listing, hashes, layout
//	hashes    of the text, and
//	layout    as they are: they are hashes, and small numbers without order
//	contents  words, reason and listing, packed together by zpack
//
// words and hashes are the narinfo file, see text. The listing of a store path
// has at least one byte: zero says that there is none.
type record struct {
	head
	text
	reason  string
	layout  []byte
	listing []byte
}

// sizes are those of the parts of a record.
type sizes struct{ words, reason, listing, hashes, layout int }

func (s *sizes) all() []*int { return []*int{&s.words, &s.reason, &s.listing, &s.hashes, &s.layout} }

// contents is the size of what is packed together.
func (s *sizes) contents() int { return s.words + s.reason + s.listing }

// A head is what can be read of a record without unpacking it.
type head struct {
	kind    byte
	sum     [16]byte
	narSize int64
	nodes   int
	listed  bool // set by readHead only
}

const (
	kindPath    = 1
	kindDamaged = 2

	checksumSize = 8
	headSize     = checksumSize + 1 + 16

	maxText     = 4 << 20 // as bincache reads
	maxReason   = 1 << 10
	maxContents = 1 << 30
	maxRatio    = 1 << 12  // contents to packed; no listing is as dense
	maxFree     = 16 << 20 // contents that may be of any ratio
)

// tooDense reports whether contents would take more memory than what they are
// packed in could honestly hold.
func tooDense(contents, packed uint64) bool {
	return contents > maxContents || contents > maxFree && contents/maxRatio > packed
}

var errRecord = errors.New("record is damaged")

func narInfoSum(file []byte) (sum [16]byte) {
	full := sha256.Sum256(file)
	return [16]byte(full[:16])
}

// A codec turns records into bytes and back. It is safe for concurrent use.
type codec struct {
	texter
	pack    *zpack.Codec
	buffers sync.Pool // of *[]byte
}

func newCodec() (*codec, error) {
	pack, err := zpack.New()
	if err != nil {
		return nil, err
	}
	return &codec{texter: newTexter(), pack: pack}, nil
}

// encode returns the bytes of a record without its checksum, which seal sets.
// A listing that is too large is left out.
func (c *codec) encode(r record) []byte {
	r.reason = r.reason[:min(len(r.reason), maxReason)]
	b := make([]byte, headSize, 512)
	b[checksumSize] = r.kind
	copy(b[checksumSize+1:], r.sum[:])
	b = binary.AppendUvarint(b, uint64(r.narSize))
	b = binary.AppendUvarint(b, uint64(r.nodes))
	z := sizes{len(r.words), len(r.reason), len(r.listing), len(r.hashes), len(r.layout)}
	for _, n := range z.all() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	b = append(b, r.hashes...)
	b = append(b, r.layout...)
	contents := make([]byte, 0, z.contents())
	contents = append(contents, r.words...)
	contents = append(contents, r.reason...)
	contents = append(contents, r.listing...)
	start := len(b)
	if len(contents) <= maxContents {
		b = c.pack.Pack(b, contents)
	}
	if tooDense(uint64(len(contents)), uint64(len(b)-start)) && r.listing != nil {
		r.listing, r.layout, r.nodes, r.reason = nil, nil, 0, "it is too large"
		return c.encode(r)
	}
	return b
}

// seal sets the checksum of an encoded record.
func seal(value []byte, e Entry) {
	binary.LittleEndian.PutUint64(value, checksum(value, e))
}

func checksum(value []byte, e Entry) uint64 {
	var d xxhash.Digest
	d.Reset()
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], e.Number)
	d.Write(number[:])
	d.WriteString(string(e.Path))
	d.Write(value[checksumSize:])
	return d.Sum64()
}

// sealed reports whether value is the record of e, undamaged.
func sealed(value []byte, e Entry) bool {
	return len(value) >= headSize && binary.LittleEndian.Uint64(value) == checksum(value, e)
}

// parts are those of an encoded record, which they share the memory of.
type parts struct {
	head
	sizes
	hashes []byte
	layout []byte
	packed []byte
}

// split takes an encoded record apart, without unpacking it.
func split(value []byte) (p parts, ok bool) {
	if len(value) < headSize {
		return p, false
	}
	p.kind, p.sum = value[checksumSize], [16]byte(value[checksumSize+1:])
	rest := value[headSize:]
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > limit {
			rest, ok = nil, false
			return 0
		}
		rest = rest[n:]
		return v
	}
	ok = true
	p.narSize, p.nodes = int64(number(math.MaxInt64)), int(number(maxContents))
	for _, size := range p.all() {
		*size = int(number(maxContents))
	}
	if !ok || p.sizes.hashes+p.sizes.layout > len(rest) {
		return p, false
	}
	p.hashes, rest = rest[:p.sizes.hashes], rest[p.sizes.hashes:]
	p.layout, p.packed = rest[:p.sizes.layout], rest[p.sizes.layout:]
	p.listed = p.listing > 0
	return p, p.words <= maxText+1 && p.reason <= maxReason && !tooDense(uint64(p.sizes.contents()), uint64(len(p.packed)))
}

// decode is the reverse of encode.
func (c *codec) decode(value []byte) (r record, err error) {
	p, ok := split(value)
	if !ok {
		return record{}, errRecord
	}
	contents, err := c.pack.Unpack(p.packed, p.sizes.contents())
	if err != nil {
		return record{}, err
	}
	r.head = p.head
	r.words, r.hashes = contents[:p.words], bytes.Clone(p.hashes)
	r.reason = string(contents[p.words:][:p.reason])
	if p.listed {
		r.listing = contents[p.words+p.reason:]
	}
	if len(p.layout) > 0 {
		r.layout = bytes.Clone(p.layout)
	}
	return r, nil
}

// keptBuffer is the largest buffer that is kept for the next record.
const keptBuffer = 1 << 20

// contents returns the listing and the layout in a record, nil if it is of
// another narinfo or has no listing.
func (c *codec) contents(value []byte, e Entry, sum [16]byte) (l *nar.Listing, layout []byte, err error) {
	if !sealed(value, e) {
		return nil, nil, errRecord
	}
	p, ok := split(value)
	if !ok {
		return nil, nil, errRecord
	}
	if p.sum != sum || p.kind != kindPath || !p.listed {
		return nil, nil, nil
	}
	kept, _ := c.buffers.Get().(*[]byte)
	if kept == nil {
		kept = new([]byte)
	}
	buf, err := c.pack.UnpackTo(*kept, p.packed, p.sizes.contents())
	if err != nil {
		return nil, nil, err
	}
	if cap(buf) <= keptBuffer {
		*kept = buf
		defer c.buffers.Put(kept)
	}
	l, err = nar.DecodeListing(buf[p.words+p.reason:])
	if err == nil && l.NarSize() != p.narSize {
		err = fmt.Errorf("listing is of a NAR of %d bytes, NarSize is %d", l.NarSize(), p.narSize)
	}
	if len(p.layout) > 0 {
		layout = bytes.Clone(p.layout)
	}
	return l, layout, err
}

// open returns the Record of e that value holds. refs are the references of e
// that are in the table of them.
func (c *codec) open(value []byte, e Entry, refs []storepath.Path) (*Record, error) {
	if !sealed(value, e) {
		return nil, errRecord
	}
	r, err := c.decode(value)
	if err != nil {
		return nil, err
	}
	if r.kind == kindDamaged {
		return nil, &damagedNarInfo{r.reason}
	}
	if r.kind != kindPath {
		return nil, errRecord
	}
	r.refs = refs
	file, ok := c.long(r.text, e.Path, r.narSize)
	if !ok {
		return nil, errRecord
	}
	out := &Record{NarInfo: file, NarInfoSum: sha256.Sum256(file), Layout: r.layout, listing: r.listing, reason: r.reason}
	if out.Info, err = narinfo.Parse(file); err != nil {
		return nil, err
	}
	if out.Info.StorePath != e.Path || [16]byte(out.NarInfoSum[:16]) != r.sum {
		return nil, errRecord
	}
	return out, nil
}

// damagedNarInfo is what a record of kindDamaged says.
type damagedNarInfo struct{ reason string }

func (e *damagedNarInfo) Error() string { return e.reason }
