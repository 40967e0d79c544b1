package fusefs

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A stream is an open export.
type stream struct {
	Stream
	mtime time.Time
	list  int      // the version of the release's list
	sum   [32]byte // of all that its content depends on
	trail trail
}

// openStream opens the export that key is, if its content still has the version
// that key says: an earlier one can no longer be made.
func (f *fileSystem) openStream(key node) (*stream, int64, error) {
	s, err := f.makeStream(key.view(), key.number())
	if err != nil {
		return nil, 0, err
	}
	if f.exports.note(key.view(), key.number(), s) != key.entry() {
		s.Close()
		return nil, 0, errNoNode
	}
	return s, 0, nil
}

// currentStream returns the node of an export as it would be now.
func (f *fileSystem) currentStream(view, num int) (node, error) {
	list := 0
	if view == viewExportStreams {
		m, err := f.cat.release(num)
		if err != nil {
			return 0, err
		}
		list = m.version
	}
	if n, ok := f.exports.fresh(view, num, list); ok {
		return n, nil
	}
	s, err := f.makeStream(view, num)
	if err != nil {
		return 0, err
	}
	version := f.exports.note(view, num, s)
	if version > maxEntry {
		s.Close()
		return 0, errTooMany
	}
	n := pack(view, num, version)
	f.streams.offer(n, s)
	return n, nil
}

// lastStream returns the node that an export had when it was last looked at.
func (f *fileSystem) lastStream(view, num int) node {
	return pack(view, num, min(f.exports.last(view, num), maxEntry))
}

func (f *fileSystem) makeStream(view, num int) (*stream, error) {
	if view == viewExportPaths {
		return f.makePathStream(num)
	}
	return f.makeReleaseStream(num)
}

// newStream completes a stream. One that knows nothing of its content depends on
// its store paths only.
func newStream(s Stream, mtime time.Time, list int) *stream {
	out := &stream{Stream: s, mtime: mtime, list: list}
	if h, ok := s.(HashedStream); ok {
		out.sum = h.Sum()
	} else {
		binary.LittleEndian.PutUint64(out.sum[:], uint64(list))
	}
	return out
}

func (f *fileSystem) makePathStream(num int) (*stream, error) {
	p, ok := f.cat.paths.key(num)
	if !ok || !f.cat.current(p, num) {
		return nil, errNoNode
	}
	s, err := f.backup.ExportPath(p)
	if err != nil {
		return nil, f.cat.orGone(&backupError{err}, func() bool { return f.cat.pathGone(p, num) })
	}
	return newStream(s, storeTime, 0), nil
}

func (f *fileSystem) makeReleaseStream(num int) (*stream, error) {
	id, ok := f.cat.releases.key(num)
	if !ok {
		return nil, errNoNode
	}
	s, err := f.backup.ExportRelease(id)
	if err != nil {
		return nil, f.cat.orGone(&backupError{err}, func() bool { return f.cat.releaseGone(id, num) })
	}
	// Asked afterwards, and not of what was known before: the release may have
	// changed just now.
	f.cat.closure(num, id).expire()
	m, err := f.cat.release(num)
	if err != nil {
		s.Close()
		return nil, err
	}
	return newStream(s, m.mtime, m.version), nil
}

// exportVersions numbers the contents that each export has had since the mount:
// the kernel keeps pages of a node for ever, so another content is another node.
type exportVersions struct {
	now func() time.Time

	mu sync.Mutex
	of map[node]exportVersion // guarded by mu: by node with entry 0
}

type exportVersion struct {
	number int
	sum    [32]byte
	list   int // stream.list
	looked time.Time
}

// note returns the number of the content that s has, which is what the export
// has now.
func (e *exportVersions) note(view, num int, s *stream) int {
	key := pack(view, num, 0)
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.of[key]
	if ok && v.sum != s.sum {
		v.number++
	}
	v.sum, v.list, v.looked = s.sum, s.list, e.now()
	if e.of == nil {
		e.of = make(map[node]exportVersion)
	}
	e.of[key] = v
	return v.number
}

// fresh returns the node of an export that was looked at a moment ago.
func (e *exportVersions) fresh(view, num, list int) (node, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.of[pack(view, num, 0)]
	if !ok || v.list != list || v.number > maxEntry || e.now().Sub(v.looked) >= maxAge {
		return 0, false
	}
	return pack(view, num, v.number), true
}

func (e *exportVersions) last(view, num int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.of[pack(view, num, 0)].number
}

// streamView is the files of exports/. They never change: another version of a
// release's stream is another node, so that who reads the one is not given
// pieces of the other.
type streamView struct {
	fileOnly
	f *fileSystem
}

func (v streamView) attr(n node, a *fuse.Attr) error {
	return v.f.streams.with(n, func(s *stream) error {
		fileAttr(a, syscall.S_IFREG|0444, s.Size())
		setTime(a, s.mtime)
		return nil
	})
}

func (v streamView) parent(n node) (node, error) {
	if n.view() == viewExportPaths {
		return pack(viewExportPaths, 0, 0), nil
	}
	up, err := v.f.projectOf(n.number())
	if err != nil {
		return 0, err
	}
	return pack(viewExports, up.number(), 0), nil
}

func (v streamView) read(n node, p []byte, off int64) (got int, err error) {
	err = v.f.streams.with(n, func(s *stream) error {
		got, err = readWithin(s, p, off, 0, s.Size())
		v.f.reclaim(n, &s.trail, off, int64(got))
		return err
	})
	return got, err
}

func (v streamView) path(n node) string {
	if n.view() == viewExportPaths {
		return "exports/store/" + v.f.pathName(n.number()) + closureSuffix
	}
	return "exports/releases/" + v.f.releaseName(n.number()) + closureSuffix
}
