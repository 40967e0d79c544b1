package backup

import (
	"fmt"
	"io"
	"runtime"

	"github.com/narvault/narvault/narread/densepack"
	"github.com/narvault/narvault/narread/zseek"
)

// compressionLevels has, for each compression that can be written, the level that is taken
// when none is asked for, and the highest. Level 3 of zstd is where the encoder
// stands that is the best trade of speed for size (package zseek has the
// figures); the others are what the programs take by themselves.
var compressionLevels = map[string]struct{ usual, highest int }{
	"zstd":  {3, 22},
	"none":  {3, 22}, // of which nothing depends
	"xz":    {6, densepack.MaxLevel},
	"bzip2": {9, densepack.MaxLevel},
}

const defaultCompression = "zstd" // for new backups

// checkCompression accepts what can be written; "" and 0 mean the default.
func checkCompression(name string, level int) error {
	if name == "" {
		name = defaultCompression
	}
	l, ok := compressionLevels[name]
	if !ok {
		return fmt.Errorf("compression %q is not zstd, xz, bzip2 or none", name)
	}
	if level < 0 || level > l.highest {
		return fmt.Errorf("compression level %d is not 1 to %d", level, l.highest)
	}
	return nil
}

// pack returns what the request says, else what the backup was made with; level
// is never 0.
func (req *Request) pack(made Config) (compression string, level int) {
	compression, level = made.Compression, made.Level
	if req.Compression != "" && req.Compression != compression {
		compression, level = req.Compression, 0
	}
	if req.Level != 0 {
		level = req.Level
	}
	if compression == "" {
		compression = defaultCompression
	}
	if level == 0 {
		level = compressionLevels[compression].usual
	}
	return compression, level
}

// A container packs a NAR into a file. Close completes the file, Abort gives
// up; one of them ends it.
type container interface {
	io.WriteCloser
	Abort()
}

// A narPacker makes containers, any number of them at a time.
type narPacker struct {
	compression string // as in narinfos
	tool        string // what compresses, for people; "" when that goes without saying
	open        func(io.Writer) container
}

func newPacker(compression string, level int) (*narPacker, error) {
	switch compression {
	case "zstd":
		pool := zseek.NewPool(runtime.GOMAXPROCS(0), level)
		return &narPacker{compression: compression, open: func(w io.Writer) container {
			return zseek.NewWriter(w, pool, zseek.WriterOptions{})
		}}, nil
	case "none":
		return &narPacker{compression: compression, open: func(w io.Writer) container { return plain{w} }}, nil
	}
	dense, err := densepack.New(compression, level, runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	return &narPacker{compression, dense.Tool(), func(w io.Writer) container { return dense.NewWriter(w) }}, nil
}

// plain is the container of compression none: there is none.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }
func (plain) Abort()       {}
