package xz

import (
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"
)

// tally is what the index of a stream must say about the blocks that were met,
// in a few bytes however many these are: an index has one form only.
type tally struct {
	count uint64
	size  int64  // of the records
	sum   uint64 // CRC64 of the records
}

// add takes in a block.
func (t *tally) add(unpadded, size int64) {
	var b [2 * binary.MaxVarintLen64]byte
	n := binary.PutUvarint(b[:], uint64(unpadded))
	n += binary.PutUvarint(b[n:], uint64(size))
	t.count++
	t.size += int64(n)
	t.sum = crc64.Update(t.sum, crc64Table, b[:n])
}

// readIndex takes the index from in, behind its first byte, and compares.
func (t *tally) readIndex(in *input) error {
	head := binary.AppendUvarint([]byte{0}, t.count)
	at := in.off - 1
	buf := make([]byte, 4096)
	crc, sum := uint32(0), uint64(0)
	next := func(n int) ([]byte, error) {
		err := in.full(buf[:n])
		crc = crc32.Update(crc, crc32.IEEETable, buf[:n])
		return buf[:n], err
	}
	crc = crc32.Update(crc, crc32.IEEETable, head[:1])
	b, err := next(len(head) - 1)
	if err != nil {
		return err
	}
	if string(b) != string(head[1:]) {
		return &Error{at, errIndex}
	}
	for left := t.size; left > 0; left -= int64(len(b)) {
		if b, err = next(int(min(left, int64(len(buf))))); err != nil {
			return err
		}
		sum = crc64.Update(sum, crc64Table, b)
	}
	if b, err = next(padding(int64(len(head)) + t.size)); err != nil {
		return err
	}
	want := crc
	bad := sum != t.sum || !zero(b)
	if b, err = next(4); err != nil {
		return err
	}
	if bad || binary.LittleEndian.Uint32(b) != want {
		return &Error{at, errIndex}
	}
	return nil
}
