package narread

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/narvault/narvault/narread/zseek"
)

// maxFrame is the largest content of a frame that is decoded as one block. Nix
// since 2.35 makes frames of 16 MiB.
const maxFrame = 16 << 20

// frames is a NAR in zstd frames that say how large they are.
type frames struct {
	table
	checked bool // most frames carry a checksum; those that do not are known when they are decoded
}

// decode reads and decodes frame i, and verifies its checksum if it has one.
func (fs *frames) decode(i int, dst []byte) (verified bool, err error) {
	buf, err := fs.load(i, int(fs.packed[i]))
	if err != nil {
		return false, err
	}
	defer fs.dec.buffers.put(buf)
	verified, err = checkFrame(buf.b, len(dst))
	if err == nil {
		err = fs.dec.frame(buf.b, dst)
	}
	if err != nil {
		return false, fs.f.damage(i, fs.off[i], err)
	}
	return verified, nil
}

// lose makes what is left of a NAR one block that is missing because of cause.
// It fails when nothing is there.
func (fs *frames) lose(narSize int64, cause error) error {
	fs.lost = cause
	if fs.starts[len(fs.off)] == narSize {
		return nil // what follows is no content
	}
	n, err := fs.confirm()
	if n == 0 || err != nil && !isDamage(err) {
		return cmp.Or(err, cause)
	}
	fs.cut(n, narSize)
	return nil
}

// confirm returns the number of frames, from the first on, whose sizes are
// certain, though they do not add up to the size of the NAR: one that is wrong
// would move all that follow. Those of our own files are all the same; others
// are decoded to find out.
func (fs *frames) confirm() (int, error) {
	own := 0
	for i := range fs.off {
		if fs.length(i) == zseek.FrameSize {
			own++
		}
	}
	if 2*own > len(fs.off) {
		n := 0
		for n < len(fs.off) && fs.length(n) == zseek.FrameSize {
			n++
		}
		return n, nil
	}
	for i := range fs.off {
		buf := fs.dec.buffers.get(int(fs.length(i)))
		verified, err := fs.decode(i, buf.b)
		fs.dec.buffers.put(buf)
		if err != nil || !verified {
			return i, err
		}
	}
	return len(fs.off), nil
}

// openFrames finds the frames of a zstd file: in its seek table, or else by
// walking them. Frames of more than limit are not for random access
// (errNoFrames). warn tells of a seek table that is not right. Frames with
// checksums of a file that is damaged behind them are as good as ever: then warn
// is told of the damage, and what is there is returned.
func openFrames(f *file, dec *decoders, narSize, limit int64, warn func(error)) (*frames, error) {
	fs, err := tableFrames(f, narSize, limit)
	if errors.Is(err, zseek.ErrBadTable) {
		warn(f.damage(-1, -1, err))
	}
	if errors.Is(err, zseek.ErrBadTable) || errors.Is(err, zseek.ErrNoTable) {
		fs, err = walkFrames(f, narSize, limit)
	}
	if fs == nil {
		return nil, err
	}
	fs.dec = dec
	if isDamage(err) && fs.checked {
		warn(err)
		err = fs.lose(narSize, err)
	}
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// tableFrames takes the frames from the seek table.
func tableFrames(f *file, narSize, limit int64) (*frames, error) {
	t, err := zseek.ReadTable(f.src, f.size, maxCount(narSize))
	if err != nil {
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, f.damage(-1, f.size, errTruncated)
		case errors.Is(err, zseek.ErrNoTable), errors.Is(err, zseek.ErrBadTable):
			return nil, err
		}
		return nil, fmt.Errorf("open %s: %w", f.name, err)
	}
	if t.Content() != narSize {
		return nil, fmt.Errorf("%w: of %d bytes of content, NarSize is %d", zseek.ErrBadTable, t.Content(), narSize)
	}
	fs := &frames{table: newTable(f, nil)}
	var off int64
	for _, e := range t.Entries {
		size := int64(e.Decompressed)
		if size > limit || int64(e.Compressed) > maxPacked(size) {
			return nil, errNoFrames
		}
		fs.add(off, e.Compressed, size)
		off += int64(e.Compressed)
	}
	return fs, fs.sample()
}

// sample sets checked by what the first frame, the last and one between say. One
// that is damaged must not decide for the others.
func (fs *frames) sample() error {
	n, votes := len(fs.off), 0
	for _, i := range []int{0, n / 2, n - 1} {
		var head [zstd.HeaderMaxSize]byte
		b := head[:min(int(fs.packed[i]), len(head))]
		if err := fs.f.read(b, fs.off[i]); err != nil {
			return err
		}
		var h zstd.Header
		switch err := h.Decode(b); {
		case err == nil && h.HasCheckSum:
			votes++
		case err == nil:
			votes--
		}
	}
	fs.checked = votes >= 0
	return nil
}

// checkFrame makes sure that b is exactly one frame with size bytes of content,
// and reports whether it carries a checksum: a decoder verifies what is there.
// A flipped bit cannot make a frame that has one look like one that has none, as
// the frame would be of another size then.
func checkFrame(b []byte, size int) (checked bool, err error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return false, unexpected(err)
	}
	switch {
	case h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(size):
		return false, fmt.Errorf("frame header does not say %d bytes of content", size)
	case h.DictionaryID != 0:
		return false, errDictionary
	}
	n := int64(h.HeaderSize)
	for last := false; !last; {
		if n+3 > int64(len(b)) {
			return false, io.ErrUnexpectedEOF
		}
		size, isLast, err := blockHeader(b[n:])
		if err != nil {
			return false, err
		}
		n += 3 + size
		last = isLast
	}
	if h.HasCheckSum {
		n += 4
	}
	if n != int64(len(b)) {
		return false, fmt.Errorf("frame of %d bytes where %d are expected", n, len(b))
	}
	return h.HasCheckSum, nil
}

var errDictionary = errors.New("frame needs a dictionary")

// blockHeader decodes a zstd block header (RFC 8878, 3.1.1.2): how many bytes
// of data follow it, and whether it is the frame's last.
func blockHeader(b []byte) (size int64, last bool, err error) {
	v := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	size, last = int64(v>>3), v&1 != 0
	switch {
	case size > 128<<10:
		return 0, false, fmt.Errorf("zstd block of %d bytes", size)
	case v>>1&3 == 1: // run of one byte
		return 1, last, nil
	case v>>1&3 == 3:
		return 0, false, errors.New("reserved zstd block type")
	}
	return size, last, nil
}
