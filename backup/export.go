package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// exportMagic closes the NAR of a path in an export stream: "NIXE", zeros.
const exportMagic = 0x4558494e

// An Export is the stream that "nix-store --export" would write for a list of
// store paths and that "nix-store --import" reads. It is made while it is read;
// its size is known before. Source: Nix's src/libstore/export-import.cc.
//
//	stream = { u64 1, NAR, u64 exportMagic, path, references, deriver, u64 0 }, u64 0
//
// All numbers are little-endian; path, deriver and each of the counted
// references are strings: length, bytes, zeros up to a multiple of 8. The
// format has no room for signatures and content addresses.
//
// ReadAt and WriteTo may be called concurrently. Close it when done.
type Export struct {
	cache   *bincache.Cache
	records []exportRecord
	size    int64
	sum     [32]byte

	open archiveSet
}

// exportRecord is one store path in the stream.
type exportRecord struct {
	info  *narinfo.NarInfo
	start int64 // offset of its first word
}

// Offsets in a record: the NAR begins after the word 1, the trailer after it.
func (r *exportRecord) nar() int64     { return r.start + 8 }
func (r *exportRecord) trailer() int64 { return r.nar() + r.info.NarSize }

// NewExport prepares the stream for paths, which are put into the order that
// an import needs. They must be closed: an import refuses a path whose
// references it does not know, so a reference that is not among them is an
// error, and so is a path that the cache lacks (*bincache.DamageError).
func (b *Backup) NewExport(paths []storepath.Path) (*Export, error) {
	infos := make(map[storepath.Path]*narinfo.NarInfo, len(paths))
	for _, p := range paths {
		info, err := b.Cache.Lookup(p)
		if err != nil {
			return nil, fmt.Errorf("export: %w", b.promised(p, err))
		}
		infos[p] = info
	}
	for p, info := range infos {
		for _, ref := range info.References {
			if infos[ref] == nil {
				return nil, fmt.Errorf("export %s: it refers to %s, which is not in the closure", p, ref)
			}
		}
	}
	order, err := storepath.SortByReferences(paths, func(p storepath.Path) []storepath.Path { return infos[p].References })
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	e := &Export{cache: b.Cache}
	h := sha256.New()
	for _, p := range order {
		r := exportRecord{info: infos[p], start: e.size}
		trailer := exportTrailer(r.info)
		e.size = r.trailer() + int64(len(trailer))
		e.records = append(e.records, r)
		h.Write(r.info.NarHash[:])
		h.Write(exportWord(uint64(len(trailer))))
		h.Write(trailer)
	}
	e.size += 8
	h.Sum(e.sum[:0])
	return e, nil
}

// Sum returns a hash of all that the content depends on: two streams with the
// same one are alike.
func (e *Export) Sum() [32]byte { return e.sum }

// PathClosure returns store paths with all that they refer to, through the
// References of their narinfos, sorted. A path that the cache lacks is a
// *bincache.DamageError: something refers to it.
func (b *Backup) PathClosure(roots []storepath.Path) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	todo := append([]storepath.Path(nil), roots...)
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		info, err := b.Cache.Lookup(p)
		if err != nil {
			return nil, fmt.Errorf("closure: %w", b.promised(p, err))
		}
		todo = append(todo, info.References...)
	}
	return sortedKeys(seen), nil
}

// exportTrailer returns what follows the NAR in a record.
func exportTrailer(info *narinfo.NarInfo) []byte {
	var b []byte
	word := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	str := func(s string) {
		word(uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	word(exportMagic)
	str(info.StorePath.In(info.StoreDir))
	word(uint64(len(info.References)))
	for _, ref := range info.References {
		str(ref.In(info.StoreDir))
	}
	if info.Deriver == "" {
		str("")
	} else {
		str(info.Deriver.In(info.StoreDir))
	}
	word(0)
	return b
}

// exportWord is the word before each record, and the last one.
func exportWord(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// Size returns the length of the stream in bytes.
func (e *Export) Size() int64 { return e.size }

// Paths returns the number of store paths in the stream.
func (e *Export) Paths() int { return len(e.records) }

// WriteTo writes the whole stream. Each NAR is checked against its NarHash
// before the trailer that makes an import accept it: after damage the stream
// stops there, and everything before it is good.
func (e *Export) WriteTo(w io.Writer) (int64, error) {
	out := &countingWriter{w: w}
	for i := range e.records {
		if err := e.writeRecord(out, &e.records[i]); err != nil {
			return out.n, err
		}
	}
	_, err := out.Write(exportWord(0))
	return out.n, err
}

func (e *Export) writeRecord(w io.Writer, r *exportRecord) error {
	archive, err := e.cache.Archive(r.info)
	if err != nil {
		return fmt.Errorf("export %s: %w", r.info.StorePath, err)
	}
	defer archive.Close()
	if _, err := w.Write(exportWord(1)); err != nil {
		return err
	}
	if _, err := archive.WriteTo(w); err != nil {
		return fmt.Errorf("export %s: %w", r.info.StorePath, err)
	}
	_, err = w.Write(exportTrailer(r.info))
	return err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt. Every byte was covered by a verified checksum
// of the archive's container.
func (e *Export) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("export: read at %d: %w", off, fs.ErrInvalid)
	}
	n := 0
	for n < len(p) && off+int64(n) < e.size {
		m, err := e.readPiece(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPiece reads from one part of one record: word, NAR or trailer.
func (e *Export) readPiece(p []byte, off int64) (int, error) {
	i := sort.Search(len(e.records), func(i int) bool { return e.records[i].start > off }) - 1
	if off >= e.size-8 {
		return copy(p, exportWord(0)[off-(e.size-8):]), nil
	}
	r := &e.records[i]
	switch {
	case off < r.nar():
		return copy(p, exportWord(1)[off-r.start:]), nil
	case off >= r.trailer():
		return copy(p, exportTrailer(r.info)[off-r.trailer():]), nil
	}
	p = p[:min(int64(len(p)), r.trailer()-off)]
	archive, done, err := e.open.get(i, func() (*narread.Archive, error) { return e.cache.Archive(r.info) })
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", r.info.StorePath, err)
	}
	defer done()
	n, err := archive.ReadAt(p, off-r.nar())
	if n == len(p) || errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}

// Close releases the archives that are open. Reads must have ended.
func (e *Export) Close() error { return e.open.close() }
