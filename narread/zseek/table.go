package zseek

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	tableMagic  = 0x184D2A5E // skippable frame number 14
	footerMagic = 0x8F92EAB1
	headerLen   = 8
	footerLen   = 9

	checksumFlag = 1 << 7
	reservedBits = 0x7c

	// maxFrames is the format's own limit (ZSTD_SEEKABLE_MAXFRAMES).
	maxFrames = 0x8000000
)

// Entry is what a seek table says about one frame.
type Entry struct {
	Compressed   uint32 // bytes of the frame in the file
	Decompressed uint32 // bytes of its content
	Checksum     uint32 // low 32 bits of XXH64 of the content, if Table.Checksums
}

// Table is a seek table: the frames of a file, in order, from its first byte.
type Table struct {
	Entries   []Entry
	Checksums bool  // entries carry checksums
	Size      int64 // bytes of the table itself, at the end of the file
}

// ErrNoTable says that a file does not end in a seek table.
var ErrNoTable = errors.New("no seek table")

// ErrBadTable says that a file ends in a seek table that cannot be right.
var ErrBadTable = errors.New("bad seek table")

// AppendTable appends the seek table of the given frames, without checksums.
func AppendTable(dst []byte, entries []Entry) ([]byte, error) {
	if len(entries) > maxFrames {
		return dst, fmt.Errorf("write seek table: %d frames, the format allows %d", len(entries), maxFrames)
	}
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, tableMagic)
	dst = le.AppendUint32(dst, uint32(len(entries)*8+footerLen))
	for _, e := range entries {
		dst = le.AppendUint32(dst, e.Compressed)
		dst = le.AppendUint32(dst, e.Decompressed)
	}
	dst = le.AppendUint32(dst, uint32(len(entries)))
	dst = append(dst, 0)
	return le.AppendUint32(dst, footerMagic), nil
}

// ReadTable reads the seek table at the end of a file of the given size. It
// reads the table and nothing else. The table returned is consistent with
// itself and with size: its frames and it fill the file exactly. Nothing has
// been compared with the frames.
//
// A table of more than maxEntries frames is refused, so that a hostile one
// cannot take memory; the caller knows how many there can be. Errors are
// ErrNoTable, ErrBadTable, or what r returned.
func ReadTable(r io.ReaderAt, size int64, maxEntries int) (*Table, error) {
	n, checksums, err := readFooter(r, size)
	if err != nil {
		return nil, err
	}
	width := int64(8)
	if checksums {
		width = 12
	}
	total := headerLen + int64(n)*width + footerLen
	switch {
	case n > maxFrames || int64(n) > int64(maxEntries):
		return nil, fmt.Errorf("%w: %d frames", ErrBadTable, n)
	case total > size:
		return nil, fmt.Errorf("%w: of %d bytes in a file of %d", ErrBadTable, total, size)
	}
	b := make([]byte, total-footerLen)
	if err := readFull(r, b, size-total); err != nil {
		return nil, fmt.Errorf("read seek table: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != tableMagic || int64(le.Uint32(b[4:])) != total-headerLen {
		return nil, fmt.Errorf("%w: header does not match footer", ErrBadTable)
	}
	t := &Table{Checksums: checksums, Size: total}
	t.Entries = parseEntries(b[headerLen:], int(n), int(width))
	return t, t.check(size)
}

// readFooter returns the number of frames and whether entries carry checksums.
func readFooter(r io.ReaderAt, size int64) (n uint32, checksums bool, err error) {
	if size < headerLen+footerLen {
		return 0, false, ErrNoTable
	}
	var f [footerLen]byte
	if err := readFull(r, f[:], size-footerLen); err != nil {
		return 0, false, fmt.Errorf("read seek table: %w", err)
	}
	if binary.LittleEndian.Uint32(f[5:]) != footerMagic {
		return 0, false, ErrNoTable
	}
	if f[4]&reservedBits != 0 {
		return 0, false, fmt.Errorf("%w: reserved bits set", ErrBadTable)
	}
	return binary.LittleEndian.Uint32(f[:]), f[4]&checksumFlag != 0, nil
}

func parseEntries(b []byte, n, width int) []Entry {
	es := make([]Entry, n)
	le := binary.LittleEndian
	for i := range es {
		e := b[i*width:]
		es[i] = Entry{Compressed: le.Uint32(e), Decompressed: le.Uint32(e[4:])}
		if width == 12 {
			es[i].Checksum = le.Uint32(e[8:])
		}
	}
	return es
}

// check compares the table with the size of the file.
func (t *Table) check(size int64) error {
	var sum int64
	for _, e := range t.Entries {
		sum += int64(e.Compressed) // at most 2^27 * 2^32: no overflow
	}
	if sum+t.Size != size {
		return fmt.Errorf("%w: frames and table are %d bytes, the file is %d", ErrBadTable, sum+t.Size, size)
	}
	return nil
}

// Content returns the size of the decompressed file.
func (t *Table) Content() int64 {
	var sum int64
	for _, e := range t.Entries {
		sum += int64(e.Decompressed)
	}
	return sum
}

// readFull reads all of p. A file that is shorter than its size says ends in
// io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
