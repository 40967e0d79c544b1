package narread

import (
	"fmt"
	"os"

	"github.com/cespare/xxhash/v2"
)

// spool is a decoded NAR in a temporary file that has no name any more: it goes
// when it is closed, or when the process ends in whatever way.
type spool struct {
	fixed
	f    *os.File
	name string // of the container
}

func (s *spool) decode(i int, dst []byte) (bool, error) {
	if _, err := s.f.ReadAt(dst, s.start(i)); err != nil {
		return false, fmt.Errorf("read spool of %s: %w", s.name, err)
	}
	return false, nil
}

// spool decodes the container into a temporary file, once.
func (a *Archive) spool() (*blocks, error) {
	f, err := os.CreateTemp(a.o.SpoolDir, "narvault-spool-*")
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", a.file.name, err)
	}
	os.Remove(f.Name())
	var sums []uint64
	err = a.boundedPass(func(p []byte) error {
		sums = append(sums, xxhash.Sum64(p))
		if _, err := f.Write(p); err != nil {
			return fmt.Errorf("spool %s: %w", a.file.name, err)
		}
		return nil
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &spool{fixed: fixed{size: a.o.NarSize, width: blockSize}, f: f, name: a.file.name}
	fail := func(i int, err error) error {
		// Of the spool, not of the container: no DamageError.
		return fmt.Errorf("read block %d of the spool of %s: %w", i, a.file.name, err)
	}
	known := func() (blockSums, error) { return sums, nil }
	return &blocks{container: s, sums: known, fail: fail, close: f.Close}, nil
}
