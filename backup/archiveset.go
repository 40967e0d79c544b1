package backup

import (
	"errors"
	"slices"
	"sync"

	"github.com/narvault/narvault/narread"
)

// maxIdle is how many archives that nobody reads an archiveSet keeps open:
// readers of one stream are near each other.
const maxIdle = 4

// An archiveSet holds archives open between reads. Those in use are never
// closed; of the others the least recently used go first. The zero value is
// empty and ready.
type archiveSet struct {
	mu   sync.Mutex
	open []*openArchive // most recently used last
}

// An openArchive belongs to the mutex of its set.
type openArchive struct {
	key     int
	archive *narread.Archive
	users   int
}

// get returns the archive for key, opened if need be. The caller calls done
// after its last read.
func (s *archiveSet) get(key int, open func() (*narread.Archive, error)) (a *narread.Archive, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.open, func(o *openArchive) bool { return o.key == key })
	var o *openArchive
	if i >= 0 {
		o = s.open[i]
		s.open = slices.Delete(s.open, i, i+1)
	} else {
		archive, err := open()
		if err != nil {
			return nil, nil, err
		}
		o = &openArchive{key: key, archive: archive}
	}
	o.users++
	s.open = append(s.open, o)
	return o.archive, func() { s.release(o) }, nil
}

func (s *archiveSet) release(o *openArchive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.users--
	idle := 0
	for i := len(s.open) - 1; i >= 0; i-- {
		if s.open[i].users > 0 {
			continue
		}
		if idle++; idle > maxIdle {
			s.open[i].archive.Close() // open for reading only: nothing can be lost
			s.open = slices.Delete(s.open, i, i+1)
		}
	}
}

// close closes everything; nobody may be reading.
func (s *archiveSet) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, o := range s.open {
		errs = append(errs, o.archive.Close())
	}
	s.open = nil
	return errors.Join(errs...)
}
