package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
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
//	sizes     4 varints: of text, reason, layout, listing
//	contents  these four, packed together by zpack
//
// text is the narinfo file, shortened by phrases. The listing of a store path
// has at least one byte: zero says that there is none.
type record struct {
	head
	text    []byte
	reason  string
	layout  []byte
	listing []byte
}

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
	pack    *zpack.Codec
	shorten *strings.Replacer
	expand  *strings.Replacer
	buffers sync.Pool // of *[]byte
}

func newCodec() (*codec, error) {
	pack, err := zpack.New()
	if err != nil {
		return nil, err
	}
	var short, long []string
	for i, phrase := range phrases() {
		b := string(rune(i + 1))
		short, long = append(short, phrase, b), append(long, b, phrase)
	}
	return &codec{pack: pack, shorten: strings.NewReplacer(short...), expand: strings.NewReplacer(long...)}, nil
}

// phrases are what the bytes from 1 on stand for in a text, up to 9 as the
// next one is a newline. They belong to the format.
func phrases() []string {
	return []string{
		"StorePath: /nix/store/",
		"\nURL: nar/",
		"\nCompression: xz\nFileHash: sha256:",
		"\nCompression: zstd\nFileHash: sha256:",
		"\nFileSize: ",
		"\nNarHash: sha256:",
		"\nNarSize: ",
		"\nReferences: ",
		"\nDeriver: ",
	}
}

// ownName stands for the store path of the record in its text.
const ownName = "\x0b"

// short returns the text of a narinfo file for a record. A file with a byte
// that stands for something stays as it is, after a zero byte.
func (c *codec) short(file []byte, p storepath.Path) []byte {
	s := string(file)
	if strings.ContainsFunc(s, func(r rune) bool { return r <= 0x0b && r != '\n' }) {
		return append([]byte{0}, file...)
	}
	return []byte(strings.ReplaceAll(c.shorten.Replace(s), string(p), ownName))
}

func (c *codec) long(text []byte, p storepath.Path) []byte {
	if len(text) > 0 && text[0] == 0 {
		return text[1:]
	}
	return []byte(c.expand.Replace(strings.ReplaceAll(string(text), ownName, string(p))))
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
	size := 0
	for _, n := range []int{len(r.text), len(r.reason), len(r.layout), len(r.listing)} {
		b = binary.AppendUvarint(b, uint64(n))
		size += n
	}
	contents := make([]byte, 0, size)
	contents = append(contents, r.text...)
	contents = append(contents, r.reason...)
	contents = append(contents, r.layout...)
	contents = append(contents, r.listing...)
	start := len(b)
	if size <= maxContents {
		b = c.pack.Pack(b, contents)
	}
	if tooDense(uint64(size), uint64(len(b)-start)) && (r.listing != nil || r.layout != nil) {
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

// readHead returns the head of an encoded record, the sizes of its contents,
// and what they are packed in.
func readHead(value []byte) (h head, sizes [4]int, packed []byte, ok bool) {
	if len(value) < headSize {
		return h, sizes, nil, false
	}
	h.kind, h.sum = value[checksumSize], [16]byte(value[checksumSize+1:])
	rest, sum := value[headSize:], uint64(0)
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > limit {
			rest, sum = nil, maxContents+1
			return 0
		}
		rest = rest[n:]
		return v
	}
	h.narSize, h.nodes = int64(number(math.MaxInt64)), int(number(maxContents))
	for i := range sizes {
		sizes[i] = int(number(maxContents))
		sum += uint64(sizes[i])
	}
	h.listed = sizes[3] > 0
	ok = sizes[0] <= maxText+1 && sizes[1] <= maxReason && !tooDense(sum, uint64(len(rest)))
	return h, sizes, rest, ok
}

// decode is the reverse of encode.
func (c *codec) decode(value []byte) (record, error) {
	h, sizes, packed, ok := readHead(value)
	if !ok {
		return record{}, errRecord
	}
	contents, err := c.pack.Unpack(packed, sizes[0]+sizes[1]+sizes[2]+sizes[3])
	if err != nil {
		return record{}, err
	}
	take := func(n int) []byte {
		if n == 0 {
			return nil
		}
		part := contents[:n:n]
		contents = contents[n:]
		return part
	}
	return record{head: h, text: take(sizes[0]), reason: string(take(sizes[1])), layout: take(sizes[2]), listing: take(sizes[3])}, nil
}

// keptBuffer is the largest buffer that is kept for the next record.
const keptBuffer = 1 << 20

// contents returns the listing and the layout in a record, nil if it is of
// another narinfo or has no listing.
func (c *codec) contents(value []byte, e Entry, sum [16]byte) (l *nar.Listing, layout []byte, err error) {
	if !sealed(value, e) {
		return nil, nil, errRecord
	}
	h, sizes, packed, ok := readHead(value)
	if !ok {
		return nil, nil, errRecord
	}
	if h.sum != sum || h.kind != kindPath || !h.listed {
		return nil, nil, nil
	}
	kept, _ := c.buffers.Get().(*[]byte)
	if kept == nil {
		kept = new([]byte)
	}
	buf, err := c.pack.UnpackTo(*kept, packed, sizes[0]+sizes[1]+sizes[2]+sizes[3])
	if err != nil {
		return nil, nil, err
	}
	if cap(buf) <= keptBuffer {
		*kept = buf
		defer c.buffers.Put(kept)
	}
	rest := buf[sizes[0]+sizes[1]:]
	l, err = nar.DecodeListing(rest[sizes[2]:])
	if err == nil && l.NarSize() != h.narSize {
		err = fmt.Errorf("listing is of a NAR of %d bytes, NarSize is %d", l.NarSize(), h.narSize)
	}
	if sizes[2] > 0 {
		layout = bytes.Clone(rest[:sizes[2]])
	}
	return l, layout, err
}

// open returns the Record of p that value holds.
func (c *codec) open(value []byte, e Entry) (*Record, error) {
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
	file := c.long(r.text, e.Path)
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
