package narread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// format is a container format, under the name that narinfos use.
type format string

const (
	formatNone  format = "none"
	formatZstd  format = "zstd"
	formatXz    format = "xz"
	formatBzip2 format = "bzip2"
	formatGzip  format = "gzip"
	formatBr    format = "br"
	formatLz4   format = "lz4"
	formatLzip  format = "lzip"
	formatLzma  format = "lzma"
)

// headLen is how many bytes recognise wants to see.
const headLen = 24

// recognise returns the format that a file beginning with head has, or "".
// Brotli has no magic number; gzip's is short enough to occur by chance.
func recognise(head []byte) format {
	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case has("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"):
		return formatNone
	case has("\x28\xb5\x2f\xfd"), len(head) > 3 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18":
		return formatZstd // also a skippable frame, which lz4 has too
	case has("\xfd7zXZ\x00"):
		return formatXz
	case has("BZh") && len(head) > 9 && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17rE8P\x90"):
		return formatBzip2
	case has("\x1f\x8b\x08"):
		return formatGzip
	case has("\x04\x22\x4d\x18"), has("\x02\x21\x4c\x18"):
		return formatLz4
	case has("LZIP"):
		return formatLzip
	case looksLikeLzma(head):
		return formatLzma
	}
	return ""
}

// looksLikeLzma knows .lzma files, which have no magic number, by what all of
// them have in common that programs write: the usual properties, a dictionary
// of whole 64 KiB, a size that is not known or not absurd, and the first byte of
// the LZMA stream.
func looksLikeLzma(head []byte) bool {
	if len(head) < 14 || string(head[:3]) != "\x5d\x00\x00" || head[13] != 0 {
		return false
	}
	size := binary.LittleEndian.Uint64(head[5:])
	return size == 1<<64-1 || size < maxNarSize
}

// labelled returns the format that a narinfo's Compression names, or "" when
// narread knows none of that name. A missing field means bzip2, as in Nix.
func labelled(compression string) format {
	switch f := format(compression); f {
	case "":
		return formatBzip2
	case formatNone, formatZstd, formatXz, formatBzip2, formatGzip, formatBr, formatLz4, formatLzip, formatLzma:
		return f
	}
	return ""
}

// errLabel is what Options.Warn gets when the label lies.
var errLabel = errors.New("wrong Compression")

// choose decides what a file is. The magic number wins over the label, as in
// Nix up to 2.33; warn is then not nil.
func choose(compression string, head []byte) (f format, warn, err error) {
	label, seen := labelled(compression), recognise(head)
	switch {
	case seen == label && label != "",
		label == formatBr && (seen == "" || seen == formatGzip),
		label == formatLz4 && seen == formatZstd && head[0] != 0x28,
		label == formatLzma && seen == "":
		return label, nil, nil
	case seen == "" && label == "":
		return "", nil, fmt.Errorf("compression %q: %w (what can be read is none, zstd, xz, bzip2, gzip, br, lz4, lzip and lzma)", compression, errors.ErrUnsupported)
	case seen == "":
		return "", nil, fmt.Errorf("not %s as its Compression says, nor anything known", label)
	}
	return seen, fmt.Errorf("%w: it is %s, the narinfo says %q", errLabel, seen, compression), nil
}
