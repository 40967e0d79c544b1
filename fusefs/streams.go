package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A stream is an open export.
type stream struct {
	Stream
	mtime time.Time
	trail trail
}

// openStream opens the export that key is.
func (f *fileSystem) openStream(key node) (*stream, int64, error) {
	var s *stream
	var err error
	if key.view() == viewExportPaths {
		s, err = f.openPathStream(key.number())
	} else {
		s, err = f.openReleaseStream(key.number(), key.entry())
	}
	return s, 0, err
}

func (f *fileSystem) openPathStream(num int) (*stream, error) {
	p, ok := f.cat.paths.key(num)
	if !ok || !f.cat.current(p, num) {
		return nil, errNoNode
	}
	s, err := f.backup.ExportPath(p)
	if err != nil {
		return nil, f.cat.orGone(&backupError{err}, func() bool { return f.cat.pathGone(p, num) })
	}
	return &stream{Stream: s, mtime: storeTime}, nil
}

// openReleaseStream opens the stream of a release if that still has the given
// version: an earlier one can no longer be made.
func (f *fileSystem) openReleaseStream(num, version int) (*stream, error) {
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
	if err == nil && m.version != version {
		err = errNoNode
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return &stream{Stream: s, mtime: m.mtime}, nil
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
