package check

import (
	"hash"
	"io"
	"os"
	"slices"
	"sync"
)

// A source is a NAR file that is hashed while it is decoded, so that it is read
// from the medium once. Decoders read in order, or nearly so: a few blocks at a
// time. It implements narread.Source; reads may be concurrent.
type source struct {
	f    *os.File
	size int64
	read func(n int) // told of progress

	mu    sync.Mutex
	hash  hash.Hash // of what comes before done
	done  int64
	ahead map[int64][]byte // what was read behind done, by offset
	held  int64            // bytes in ahead
	fault error            // of the medium: decoders may hide it
}

// maxHeld bounds the bytes that wait for those before them. What does not find
// room is read again at the end.
const maxHeld = 32 << 20

func newSource(f *os.File, size int64, h hash.Hash, read func(n int)) *source {
	return &source{f: f, size: size, hash: h, read: read, ahead: make(map[int64][]byte)}
}

// ReadAt implements io.ReaderAt.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.f.ReadAt(p, off)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && err != io.EOF && s.fault == nil {
		s.fault = err
	}
	s.take(p[:n], off)
	return n, err
}

// take hashes what comes next, and keeps what comes later. It is called with mu
// held.
func (s *source) take(p []byte, off int64) {
	if off > s.done {
		if _, known := s.ahead[off]; !known && s.held+int64(len(p)) <= maxHeld && len(p) > 0 {
			s.ahead[off] = slices.Clone(p)
			s.held += int64(len(p))
		}
		return
	}
	s.add(p, off)
	for len(s.ahead) > 0 {
		next := int64(-1)
		for at := range s.ahead {
			if at <= s.done {
				next = at
				break
			}
		}
		if next < 0 {
			return
		}
		p := s.ahead[next]
		delete(s.ahead, next)
		s.held -= int64(len(p))
		s.add(p, next)
	}
}

// add hashes p from done on, if it reaches so far.
func (s *source) add(p []byte, off int64) {
	if end := off + int64(len(p)); end > s.done {
		p = p[s.done-off:]
		s.hash.Write(p)
		s.done = end
		s.read(len(p))
	}
}

// finish hashes what no decoder has read. No other call may be under way.
func (s *source) finish() error {
	if s.fault != nil {
		return s.fault
	}
	buf := make([]byte, min(256<<10, s.size-s.done))
	for s.done < s.size {
		n, err := s.f.ReadAt(buf[:min(int64(len(buf)), s.size-s.done)], s.done)
		s.take(buf[:n], s.done)
		if n == 0 && err != nil {
			return err
		}
	}
	return nil
}

// Close closes the file.
func (s *source) Close() error { return s.f.Close() }
