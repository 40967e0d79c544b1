package narread

import (
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
	starts
	f       *file
	dec     *decoders
	off     []int64  // of each frame in the file
	packed  []uint32 // size of each frame
	checked bool     // every frame must carry a checksum
	largest int64    // content of the largest frame
}

// add appends a frame. One without content holds nothing to read.
func (fs *frames) add(off int64, packed uint32, content int64) {
	if content == 0 {
		return
	}
	fs.off = append(fs.off, off)
	fs.packed = append(fs.packed, packed)
	fs.starts = append(fs.starts, fs.starts[len(fs.starts)-1]+content)
	fs.largest = max(fs.largest, content)
}

// decode reads and decodes frame i, and verifies its checksum if it has one.
func (fs *frames) decode(i int, dst []byte) error {
	buf := fs.dec.buffers.get(int(fs.packed[i]))
	defer fs.dec.buffers.put(buf)
	if err := fs.f.read(buf.b, fs.off[i]); err != nil {
		return err
	}
	err := checkFrame(buf.b, len(dst), fs.checked)
	if err == nil {
		err = fs.dec.frame(buf.b, dst)
	}
	if err != nil {
		return fs.f.damage(i, fs.off[i], err)
	}
	return nil
}

// maxPacked bounds the size of a frame in the file by that of its content. An
// encoder adds 3 bytes to each 128 KiB that do not compress; more is allowed.
func maxPacked(content int64) int64 { return content + content/64 + 1024 }

// maxCount bounds the number of frames, and so the memory for their table, which
// is 20 bytes a frame: 1 TiB in frames of 256 KiB.
func maxCount(narSize int64) int { return int(min(narSize/1024+64, 1<<22)) }

// errNoFrames says that a file is no row of frames of known and bounded sizes.
var errNoFrames = errors.New("no frames of known size")

// openFrames finds the frames of a zstd file: in its seek table, or else by
// walking them. Frames of more than limit are not for random access
// (errNoFrames). warn tells of a seek table that is not right.
func openFrames(f *file, dec *decoders, narSize, limit int64, warn func(error)) (*frames, error) {
	fs, err := tableFrames(f, narSize, limit)
	if errors.Is(err, zseek.ErrBadTable) {
		warn(f.damage(-1, -1, err))
	}
	if errors.Is(err, zseek.ErrBadTable) || errors.Is(err, zseek.ErrNoTable) {
		fs, err = walkFrames(f, narSize, limit)
	}
	if err != nil {
		return nil, err
	}
	fs.f, fs.dec = f, dec
	return fs, nil
}

// tableFrames takes the frames from the seek table. Whether they carry
// checksums it sees from the first one; checkFrame holds the others to it.
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
	fs := &frames{starts: starts{0}}
	var off int64
	for _, e := range t.Entries {
		size := int64(e.Decompressed)
		if size > limit || int64(e.Compressed) > maxPacked(size) {
			return nil, errNoFrames
		}
		fs.add(off, e.Compressed, size)
		off += int64(e.Compressed)
	}
	var head [zstd.HeaderMaxSize]byte
	b := head[:min(f.size, int64(len(head)))]
	if err := f.read(b, 0); err != nil {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, f.damage(0, 0, err)
	}
	fs.checked = h.HasCheckSum
	return fs, nil
}

// checkFrame makes sure that b is exactly one frame with size bytes of content,
// and, if checked, that it carries a checksum: a decoder verifies what is
// there, and a single flipped bit says that nothing is.
func checkFrame(b []byte, size int, checked bool) error {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return unexpected(err)
	}
	switch {
	case h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(size):
		return fmt.Errorf("frame header does not say %d bytes of content", size)
	case checked && !h.HasCheckSum:
		return errors.New("frame header says that there is no checksum")
	case h.DictionaryID != 0:
		return errDictionary
	}
	n := int64(h.HeaderSize)
	for last := false; !last; {
		if n+3 > int64(len(b)) {
			return io.ErrUnexpectedEOF
		}
		size, isLast, err := blockHeader(b[n:])
		if err != nil {
			return err
		}
		n += 3 + size
		last = isLast
	}
	if h.HasCheckSum {
		n += 4
	}
	if n != int64(len(b)) {
		return fmt.Errorf("frame of %d bytes where %d are expected", n, len(b))
	}
	return nil
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
