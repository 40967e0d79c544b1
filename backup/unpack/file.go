package unpack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/narvault/narvault/narread/nar"
)

const (
	// chunkSize is how much of a file is read, hashed and written at a time.
	chunkSize = 256 << 10
	// holeSize is the least run of zeros for which a hole is made, where file
	// systems can: their usual block.
	holeSize = 4 << 10
)

// file restores a regular file, or compares it.
func (w *writer) file(at *os.Root, name string, h nar.Header, r io.Reader) error {
	if w.compare {
		if err := w.mustBe(at, name, 0); err != nil {
			return err
		}
	}
	f, err := w.openFile(at, name)
	if err != nil {
		return w.held(err)
	}
	sum, err := w.fill(f, name, h, r)
	if err == nil {
		err = w.setMode(f, name, h)
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, syscall.EFBIG) {
		err = errors.Join(at.Remove(name), &leftOutError{"it is too large for the file system"})
	}
	if err != nil {
		return err
	}
	w.files = append(w.files, File{Path: w.path(name), Size: h.Size, SHA256: sum})
	if w.compare {
		return nil
	}
	return at.Chtimes(name, storeTime, storeTime)
}

// openFile opens a file for what is to be done with it. In a temporary tree,
// what an earlier run left of it is taken; what else is there makes room.
func (w *writer) openFile(at *os.Root, name string) (*os.File, error) {
	if w.compare {
		// Not to wait for a pipe that took its place.
		return at.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	}
	f, err := at.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if !errors.Is(err, fs.ErrExist) || w.dir.limits.FoldsCase {
		return f, err
	}
	if st, err := at.Lstat(name); err == nil && st.Mode().IsRegular() && at.Chmod(name, 0o600) == nil {
		f, err := at.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err == nil && singleLink(f) {
			return f, nil
		}
		if err == nil {
			f.Close()
		}
	}
	if err := removeAll(at, name); err != nil {
		return nil, err
	}
	return at.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// singleLink reports whether a file has no other name, through which writing
// would change what is not ours.
func singleLink(f *os.File) bool {
	st, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 1 && st.Mode().IsRegular()
}

// fill makes the content of f what r has, and returns its hash. What f has
// already is kept as far as it is right. Errors of r are returned as they are.
func (w *writer) fill(f *os.File, name string, h nar.Header, r io.Reader) (sum [sha256.Size]byte, err error) {
	st, err := f.Stat()
	if err != nil {
		return sum, err
	}
	if w.compare && st.Size() != h.Size {
		return sum, &differsError{w.path(name), fmt.Sprintf("has %d bytes, not %d", st.Size(), h.Size)}
	}
	if w.buf == nil {
		w.buf = make([]byte, 2*chunkSize)
	}
	want, have := w.buf[:chunkSize], w.buf[chunkSize:]
	hash := sha256.New()
	there := st.Size() // from here on nothing that is in f counts
	for off := int64(0); off < h.Size; {
		p := want[:min(chunkSize, h.Size-off)]
		if _, err := io.ReadFull(r, p); err != nil {
			return sum, err
		}
		hash.Write(p)
		if off < there && !sameAt(f, p, have, off) {
			if w.compare {
				return sum, &differsError{w.path(name), "has another content"}
			}
			there = off
			if err := f.Truncate(off); err != nil {
				return sum, err
			}
		}
		if off >= there {
			if err := writeSparse(f, p, off); err != nil {
				return sum, err
			}
		}
		off += int64(len(p))
	}
	hash.Sum(sum[:0])
	if w.compare {
		return sum, nil
	}
	return sum, f.Truncate(h.Size)
}

// sameAt reports whether f has p at off.
func sameAt(f *os.File, p, buf []byte, off int64) bool {
	n, _ := f.ReadAt(buf[:len(p)], off) // what cannot be read is written anew
	return n == len(p) && bytes.Equal(buf[:n], p)
}

var zeros [holeSize]byte

// writeSparse writes p at off, which is a multiple of holeSize and at or behind
// the end of the file, without the zeros for which there can be a hole.
func writeSparse(f *os.File, p []byte, off int64) error {
	for start := 0; start < len(p); {
		end := start
		for end < len(p) && !isHole(p[end:]) {
			end = min(end+holeSize, len(p))
		}
		if end > start {
			if _, err := f.WriteAt(p[start:end], off+int64(start)); err != nil {
				return err
			}
		}
		for end < len(p) && isHole(p[end:]) {
			end += holeSize
		}
		start = end
	}
	return nil
}

// isHole reports whether p begins with enough zeros for a hole.
func isHole(p []byte) bool {
	return len(p) >= holeSize && bytes.Equal(p[:holeSize], zeros[:])
}

// setMode sets, or compares, the mode of a file.
func (w *writer) setMode(f *os.File, name string, h nar.Header) error {
	mode := fs.FileMode(modeFile)
	if h.Executable {
		mode = modeProgram
	}
	if w.dir.limits.NoModes {
		if h.Executable {
			w.leftOut = append(w.leftOut, w.path(name)+": that it is executable")
		}
		return nil
	}
	if !w.compare {
		return f.Chmod(mode)
	}
	st, err := f.Stat()
	if err == nil && st.Mode()&0o100 != mode&0o100 {
		return &differsError{w.path(name), "is executable or not, other than in the archive"}
	}
	return err
}
