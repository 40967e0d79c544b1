package narread

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// walkFrames finds the frames of a zstd file by their headers, jumping over
// their data. Skippable frames may stand anywhere. It stops early, with
// errNoFrames, at a frame that does not say how large its content is or that
// is larger than limit; anything wrong is a DamageError, beside which the frames
// before it are returned, if there are any.
func walkFrames(f *file, narSize, limit int64) (*frames, error) {
	w := &frameWalk{f: f, fs: &frames{table: newTable(f, nil)}, limit: limit}
	err := w.all(narSize)
	switch {
	case err != nil && (w.fs.count() == 0 || !isDamage(err)):
		return nil, err
	case w.fs.start(w.fs.count()) > narSize:
		return nil, err
	}
	w.fs.checked = 2*w.checked >= w.fs.count()
	return w.fs, err
}

// all takes in all frames.
func (w *frameWalk) all(narSize int64) error {
	for w.off < w.f.size {
		if err := w.frame(); err != nil {
			return err
		}
		switch n := w.fs.count(); {
		case w.fs.start(n) > narSize:
			return w.f.damage(n-1, w.off, errTooLong)
		case n > maxCount(narSize):
			return errNoFrames
		}
	}
	if n := w.fs.count(); w.fs.start(n) < narSize {
		return w.f.damage(-1, w.f.size, errTooShort)
	}
	return nil
}

type frameWalk struct {
	f       *file
	fs      *frames
	limit   int64
	off     int64 // of the next frame
	checked int   // frames that carry a checksum

	window   []byte // part of the file, from windowAt on
	windowAt int64
}

// frame takes in one frame.
func (w *frameWalk) frame() error {
	b, err := w.bytes(w.off, zstd.HeaderMaxSize)
	if err != nil {
		return err
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return w.damage(unexpected(err))
	}
	if h.Skippable {
		return w.skip(int64(h.HeaderSize) + int64(h.SkippableSize))
	}
	if h.DictionaryID != 0 {
		return w.damage(errDictionary)
	}
	if !h.HasFCS || h.FrameContentSize > uint64(w.limit) {
		return errNoFrames
	}
	start := w.off
	if err := w.blocks(h); err != nil {
		return err
	}
	size := int64(h.FrameContentSize)
	if w.off-start > maxPacked(size) {
		return errNoFrames
	}
	if h.HasCheckSum && size > 0 {
		w.checked++
	}
	w.fs.add(start, uint32(w.off-start), size)
	return nil
}

// blocks jumps over a frame's header, blocks and checksum.
func (w *frameWalk) blocks(h zstd.Header) error {
	at := w.off + int64(h.HeaderSize)
	for last := false; !last; {
		b, err := w.bytes(at, 3)
		if err != nil {
			return err
		}
		if len(b) < 3 {
			return w.damage(io.ErrUnexpectedEOF)
		}
		var size int64
		if size, last, err = blockHeader(b); err != nil {
			return w.damage(err)
		}
		at += 3 + size
		if at-w.off > maxPacked(w.limit) {
			return errNoFrames
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	return w.skip(at - w.off)
}

func (w *frameWalk) skip(n int64) error {
	if n > w.f.size-w.off {
		return w.damage(io.ErrUnexpectedEOF)
	}
	w.off += n
	return nil
}

// bytes returns the n bytes at off, fewer at the end of the file. It reads a
// little more at a time, for files of many small blocks.
func (w *frameWalk) bytes(off int64, n int) ([]byte, error) {
	end := min(off+int64(n), w.f.size)
	if off > end {
		return nil, w.damage(io.ErrUnexpectedEOF)
	}
	if off < w.windowAt || end > w.windowAt+int64(len(w.window)) {
		if w.window == nil {
			w.window = make([]byte, 512)
		}
		w.window = w.window[:min(int64(cap(w.window)), w.f.size-off)]
		w.windowAt = off
		if err := w.f.read(w.window, off); err != nil {
			w.window = w.window[:0]
			return nil, err
		}
	}
	return w.window[off-w.windowAt : end-w.windowAt], nil
}

func (w *frameWalk) damage(err error) error {
	if errors.Is(err, zstd.ErrMagicMismatch) {
		err = fmt.Errorf("%w: neither a zstd frame nor the end", errGarbage)
	}
	return w.f.damage(w.fs.count(), w.off, err)
}
