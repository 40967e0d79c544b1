// Package densepack makes .xz and .bz2 files of NARs: smaller than those of
// zseek, and slower to make and to read, but every Nix there ever was reads
// them.
//
// An .xz file is one stream of blocks of 1 MiB of content each, with their sizes
// in their headers and a CRC64: any of them can be read without the others. A
// .bz2 file is a row of streams of 850 KiB of content each, as parallel
// compressors make them; there is no way into it but from its beginning.
//
// The pieces are compressed by the program of the system, xz or bzip2, one
// process for each, or where there is none by a library in Go: github.com/
// ulikunitz/xz makes files some 20 % larger, github.com/dsnet/compress of the same
// size. What a program returns is decoded again and compared before it counts.
package densepack

import (
	"fmt"
	"io"

	"github.com/narvault/narvault/narread/packing"
	"github.com/narvault/narvault/narread/xz"
)

const (
	xzBlock     = 1 << 20
	xzDictBits  = 20
	bzip2Stream = 850 << 10 // one block of bzip2 -9, if there are not too many runs

	// MaxLevel is the highest level of both.
	MaxLevel = 9
)

// Packer packs any number of files at a time. It needs no closing.
type Packer struct {
	pool *packing.Pool
	file func() packing.Container
	tool string
}

// New returns a Packer for a compression, "xz" or "bzip2", at a level of 1 to
// MaxLevel; 0 is what the programs take by themselves, 6 and 9. As many pieces
// are compressed at a time as there are workers (0: GOMAXPROCS), of which each
// takes some 15 MiB. Equal input gives equal files while the tool, its version
// and the level are the same.
func New(compression string, level, workers int) (*Packer, error) {
	return newPacker(compression, level, workers, program)
}

// newPacker looks for a program by find, which is that of this package but in
// tests.
func newPacker(compression string, level, workers int, find func(string) (string, error)) (*Packer, error) {
	if level < 0 || level > MaxLevel {
		return nil, fmt.Errorf("%s: level %d is not 1 to %d", compression, level, MaxLevel)
	}
	var c codec
	p := &Packer{file: func() packing.Container { return streams{} }}
	size := bzip2Stream
	switch compression {
	case "xz":
		c = xzCodec(level)
		size, p.file = xzBlock, func() packing.Container { return xz.NewStream(xz.CheckCRC64) }
	case "bzip2":
		c = bzip2Codec(level)
	default:
		return nil, fmt.Errorf("%s is neither xz nor bzip2", compression)
	}
	encode, tool := c.choose(find)
	p.pool, p.tool = packing.NewPool(workers, size, encode), tool
	return p, nil
}

// Tool says, for people, what compresses.
func (p *Packer) Tool() string { return p.tool }

// NewWriter returns a Writer of a file, which goes to w.
func (p *Packer) NewWriter(w io.Writer) *packing.Writer {
	return packing.NewWriter(w, p.pool, p.file(), packing.WriterOptions{})
}

// streams is a file of nothing but pieces.
type streams struct{}

func (streams) Begin() []byte        { return nil }
func (streams) Add([]byte, int)      {}
func (streams) End() ([]byte, error) { return nil, nil }
