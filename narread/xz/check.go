package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// Check is the kind of check that a stream has behind each block.
type Check byte

// The checks that the format defines.
const (
	CheckNone   Check = 0
	CheckCRC32  Check = 1
	CheckCRC64  Check = 4
	CheckSHA256 Check = 10
)

const maxCheck = 64

// Size returns the length of the check in the file, for the reserved kinds too.
func (c Check) Size() int {
	if c == CheckNone {
		return 0
	}
	return 4 << ((c&15 - 1) / 3)
}

// Verified reports whether the check is one that is compared with the content:
// CRC32, CRC64 or SHA-256. Of all others only the length is seen to.
func (c Check) Verified() bool {
	return c == CheckCRC32 || c == CheckCRC64 || c == CheckSHA256
}

var crc64Table = crc64.MakeTable(crc64.ECMA)

// checker computes the check of a block.
type checker struct {
	check  Check
	crc32  uint32
	crc64  uint64
	sha256 hash.Hash
}

func newChecker(c Check) checker {
	k := checker{check: c}
	if c == CheckSHA256 {
		k.sha256 = sha256.New()
	}
	return k
}

func (k *checker) write(p []byte) {
	switch k.check {
	case CheckCRC32:
		k.crc32 = crc32.Update(k.crc32, crc32.IEEETable, p)
	case CheckCRC64:
		k.crc64 = crc64.Update(k.crc64, crc64Table, p)
	case CheckSHA256:
		k.sha256.Write(p)
	}
}

// matches compares with a check from a file.
func (k *checker) matches(b []byte) bool {
	return !k.check.Verified() || string(k.append(nil)) == string(b)
}

// append appends the check as it is in files.
func (k *checker) append(dst []byte) []byte {
	switch k.check {
	case CheckCRC32:
		return binary.LittleEndian.AppendUint32(dst, k.crc32)
	case CheckCRC64:
		return binary.LittleEndian.AppendUint64(dst, k.crc64)
	case CheckSHA256:
		return k.sha256.Sum(dst)
	}
	return append(dst, make([]byte, k.check.Size())...)
}
