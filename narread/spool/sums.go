package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// BlockSize is the unit in which NARs are verified.
const BlockSize = 256 << 10

// Sums are the XXH64 of the blocks of a NAR, made while its NarHash was
// verified: BlockSize bytes each, the last one what is left.
type Sums []uint64

const sumsMagic = "narvault sums 1\n"

// maxSums bounds what is read of a .sums file, in bytes: that of a NAR of 1 TiB.
const maxSums = 33 << 20

var errSums = errors.New("damaged .sums file")

// blocks returns how many blocks a NAR has.
func (k Key) blocks() int64 { return (k.Size + BlockSize - 1) / BlockSize }

func encodeSums(k Key, sums Sums) []byte {
	le := binary.LittleEndian
	b := append([]byte(sumsMagic), k.Hash[:]...)
	b = le.AppendUint64(b, uint64(k.Size))
	b = le.AppendUint64(b, BlockSize)
	for _, s := range sums {
		b = le.AppendUint64(b, s)
	}
	return le.AppendUint64(b, xxhash.Sum64(b))
}

func decodeSums(k Key, b []byte) (Sums, error) {
	head := len(sumsMagic) + len(k.Hash) + 16
	if int64(len(b)) != int64(head)+8*k.blocks()+8 {
		return nil, errSums
	}
	sums := make(Sums, k.blocks())
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint64(b[head+8*i:])
	}
	if !bytes.Equal(b, encodeSums(k, sums)) {
		return nil, errSums
	}
	return sums, nil
}

// Sums returns the sums of a NAR if they are known, else nil.
func (d *Dir) Sums(k Key) Sums {
	if d == nil {
		return nil
	}
	f, err := os.OpenFile(d.path(k, sumsExt), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSums))
	if err != nil {
		return nil
	}
	sums, err := decodeSums(k, b)
	if err != nil {
		os.Remove(f.Name())
		return nil
	}
	touch(f.Name())
	return sums
}

// saveSums publishes the sums of a NAR.
func (d *Dir) saveSums(k Key, sums Sums) error {
	f, err := os.CreateTemp(d.name, "*"+tempExt)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeSums(k, sums))
	d.step("sums written")
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.name, k.name()+sumsExt))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	d.step("sums published")
	return err
}
