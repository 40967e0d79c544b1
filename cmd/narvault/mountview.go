package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/storepath"
)

// mountView is a backup as fusefs wants to see it. It outlives the medium that
// the backup is on: when that was pulled away and is back, by the same name, the
// backup is opened anew.
type mountView struct {
	dir     string
	options bincache.Options
	warn    func(error) // of what happens to the backup

	endIndexing context.CancelFunc
	indexing    sync.WaitGroup

	mu  sync.Mutex
	cur *session // guarded by mu
}

// A session is the backup while its medium is there. Those of the past are not
// closed, as they may be in use; the garbage collector does it.
type session struct {
	*backup.Live
	jobs  *backup.Jobs
	files *backup.CacheFiles

	mu   sync.Mutex
	raw  map[fusefs.ReleaseID][]backup.Root // guarded by mu: of which jobs were made
	made map[fusefs.ReleaseID][]fusefs.Job  // guarded by mu
}

var (
	_ fusefs.Backup           = (*mountView)(nil)
	_ fusefs.UsageReporter    = (*mountView)(nil)
	_ fusefs.JobLister        = (*mountView)(nil)
	_ fusefs.CacheFiles       = (*mountView)(nil)
	_ fusefs.PathInfoReporter = (*mountView)(nil)
	_ fusefs.Locator          = (*mountView)(nil)
)

// newMountView opens the backup in dir, and brings its index up to date in the
// background if nobody else does. The caller closes the view.
func newMountView(dir string, limits readLimits, warn func(error)) (*mountView, error) {
	v := &mountView{dir: dir, warn: warn, options: limits.options(warn)}
	var err error
	if v.cur, err = v.open(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.endIndexing = cancel
	cur := v.cur
	v.indexing.Go(func() { v.tendIndex(ctx, cur) })
	return v, nil
}

// tendIndex checks an index that a backup keeps, and builds the one in the
// user's cache directory.
func (v *mountView) tendIndex(ctx context.Context, s *session) {
	err := s.TendIndex(ctx)
	if err != nil && ctx.Err() == nil {
		v.warn(err)
	}
}

// Close closes the backup.
func (v *mountView) Close() error {
	v.endIndexing()
	v.indexing.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.cur.files.Close(), v.cur.CloseIndex(), v.cur.Close())
}

func (v *mountView) open() (*session, error) {
	b, err := backup.Open(v.dir, v.options)
	if err != nil {
		return nil, err
	}
	s := &session{
		Live: backup.NewLive(b, v.warn), jobs: backup.NewJobs(b),
		raw: make(map[fusefs.ReleaseID][]backup.Root), made: make(map[fusefs.ReleaseID][]fusefs.Job),
	}
	if s.files, err = s.CacheFiles(); err != nil {
		b.Close()
		return nil, err
	}
	if err := s.UseIndex(); err != nil {
		v.warn(err) // it is slower without
	}
	return s, nil
}

// session returns the backup if it is where it was. If not, that must not look
// like an empty one: no error here wraps fs.ErrNotExist.
func (v *mountView) session() (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cur.there() {
		return v.cur, nil
	}
	s, err := v.open()
	if err != nil {
		return nil, fmt.Errorf("the backup cannot be reached: %v", err)
	}
	if s.Config().ID != v.cur.Config().ID || s.Cache.StoreDir() != v.cur.Cache.StoreDir() {
		s.files.Close()
		s.Close()
		return nil, fmt.Errorf("the backup cannot be reached: another one is at %s now", v.dir)
	}
	v.warn(fmt.Errorf("%s was away, or was replaced: opened anew", v.dir))
	v.cur.CloseIndex() // who reads it finishes undisturbed
	v.cur = s
	return s, nil
}

// there reports whether the directory of the cache is the one that is open.
func (s *session) there() bool {
	at, err := os.Stat(s.Cache.Dir())
	if err != nil {
		return false
	}
	open, err := s.Cache.Stat()
	return err == nil && os.SameFile(at, open)
}

func (v *mountView) StoreDir() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cur.Cache.StoreDir()
}

func (v *mountView) Paths() ([]storepath.Path, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	return s.Paths()
}

func (v *mountView) Releases() ([]fusefs.ReleaseID, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	ids, err := s.Releases()
	if err != nil {
		return nil, err
	}
	out := make([]fusefs.ReleaseID, len(ids))
	for i, id := range ids {
		out[i] = fusefs.ReleaseID(id)
	}
	return out, nil
}

func (v *mountView) Closure(id fusefs.ReleaseID) ([]storepath.Path, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	return s.Closure(backup.ReleaseID(id))
}

func (v *mountView) Open(p storepath.Path) (fusefs.Tree, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	return s.OpenTree(p)
}

func (v *mountView) ExportRelease(id fusefs.ReleaseID) (fusefs.Stream, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	paths, err := s.Closure(backup.ReleaseID(id))
	if err != nil {
		return nil, err
	}
	return s.NewExport(paths)
}

func (v *mountView) ExportPath(p storepath.Path) (fusefs.Stream, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	paths, err := s.PathClosure([]storepath.Path{p})
	if err != nil {
		return nil, err
	}
	return s.NewExport(paths)
}

// Usage answers df with the sizes of all NARs.
func (v *mountView) Usage() (fusefs.Usage, error) {
	s, err := v.session()
	if err != nil {
		return fusefs.Usage{}, err
	}
	bytes, err := s.NarSize(context.Background())
	return fusefs.Usage{Bytes: bytes}, err
}

// Jobs returns the roots of a release.
func (v *mountView) Jobs(id fusefs.ReleaseID) ([]fusefs.Job, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	roots, err := s.jobs.Roots(backup.ReleaseID(id))
	if err != nil {
		return nil, err
	}
	return s.jobsOf(id, roots), nil
}

// jobsOf returns the same slice for the same roots.
func (s *session) jobsOf(id fusefs.ReleaseID, roots []backup.Root) []fusefs.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.raw[id]
	if len(roots) > 0 && len(old) == len(roots) && &old[0] == &roots[0] {
		return s.made[id]
	}
	jobs := make([]fusefs.Job, len(roots))
	for i, r := range roots {
		jobs[i] = fusefs.Job{Name: r.Job, System: r.System, Output: r.Output, NixName: r.NixName, DrvPath: r.DrvPath, Path: r.StorePath}
	}
	s.raw[id], s.made[id] = roots, jobs
	return jobs
}

// PathInfo answers --xattrs.
func (v *mountView) PathInfo(p storepath.Path) (fusefs.PathInfo, error) {
	s, err := v.session()
	if err != nil {
		return fusefs.PathInfo{}, err
	}
	info, err := s.Cache.Lookup(p)
	if err != nil {
		return fusefs.PathInfo{}, err
	}
	return fusefs.PathInfo{NarHash: info.NarHash.String(), References: info.References, Deriver: info.Deriver}, nil
}

func (v *mountView) CacheNames(dir string) ([]string, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	return s.files.Names(dir)
}

func (v *mountView) CacheStat(name string) (fusefs.FileInfo, error) {
	s, err := v.session()
	if err != nil {
		return fusefs.FileInfo{}, err
	}
	f, err := s.files.Stat(name)
	if err != nil {
		return fusefs.FileInfo{}, err
	}
	return fusefs.FileInfo{Dir: f.Dir, Size: f.Size, Time: f.ModTime}, nil
}

func (v *mountView) CacheOpen(name string) (fusefs.Stream, error) {
	s, err := v.session()
	if err != nil {
		return nil, err
	}
	f, size, err := s.files.Open(name)
	if err != nil {
		return nil, err
	}
	return cacheFile{f, size, f}, nil
}

// cacheFile is an open file of the cache.
type cacheFile struct {
	io.ReaderAt
	size int64
	io.Closer
}

func (f cacheFile) Size() int64 { return f.size }

// Locate finds out where an error says that damage is.
func (v *mountView) Locate(err error) fusefs.Place {
	var (
		archive *narread.DamageError
		file    *bincache.DamageError
		path    *fs.PathError
	)
	switch {
	case errors.As(err, &archive):
		return fusefs.Place{File: archive.File, Block: archive.Block, Offset: archive.Offset}
	case errors.As(err, &file):
		return fusefs.Place{File: file.File, Block: -1, Offset: -1}
	case errors.As(err, &path):
		return fusefs.Place{File: path.Path, Block: -1, Offset: -1}
	}
	return fusefs.Place{Block: -1, Offset: -1}
}
