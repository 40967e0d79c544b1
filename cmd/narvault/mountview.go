package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

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

	drop func() // closes what the mount has open

	work    context.Context // of what goes on in the background
	endWork context.CancelFunc
	working sync.WaitGroup

	mu      sync.Mutex
	cur     *session // guarded by mu
	refused refusal  // guarded by mu
	closed  bool     // guarded by mu
}

// A refusal is why what is at the place of the backup is not it. For a moment,
// that is not looked at again.
type refusal struct {
	err  error
	at   fs.FileInfo // nil: nothing is there
	when time.Time
}

// refusalAge is how long a refusal is not looked at again.
const refusalAge = time.Second

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
	_ fusefs.AbsenceProver    = (*mountView)(nil)
	_ fusefs.Replacer         = (*mountView)(nil)
	_ fusefs.ActivityReporter = (*mountView)(nil)
	_ fusefs.HashedStream     = (*backup.Export)(nil)
)

// newMountView opens the backup in dir. The caller closes the view.
func newMountView(dir string, limits readLimits, warn func(error)) (*mountView, error) {
	v := &mountView{dir: dir, warn: warn, options: limits.options(warn)}
	var err error
	if v.cur, err = v.open(); err != nil {
		return nil, err
	}
	v.work, v.endWork = context.WithCancel(context.Background())
	return v, nil
}

// tend brings the index up to date in the background if nobody else does. That
// is for when the mount is ready, lest it wait for the processor.
func (v *mountView) tend() {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.cur
	v.working.Go(func() { v.tendIndex(s) })
}

// OnReplace sets the function that closes what the mount has open.
func (v *mountView) OnReplace(drop func()) { v.drop = drop }

// tendIndex checks an index that a backup keeps, and builds the one in the
// user's cache directory.
func (v *mountView) tendIndex(s *session) {
	err := s.TendIndex(v.work)
	if err != nil && v.work.Err() == nil {
		v.warn(err)
	}
}

// Close closes the backup.
func (v *mountView) Close() error {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.endWork()
	v.working.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.cur.files.Close(), v.cur.CloseIndex(), v.cur.Close())
}

func (v *mountView) open() (*session, error) {
	b, err := openToRead(v.dir, v.options)
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
	at, _ := os.Stat(v.cur.Cache.Dir())
	if v.refused.stands(at) {
		return nil, v.refused.err
	}
	s, err := v.reopen()
	if err != nil {
		v.refused = refusal{err: fmt.Errorf("the backup cannot be reached: %v", err), at: at, when: time.Now()}
		return nil, v.refused.err
	}
	v.refused = refusal{}
	v.replace(s)
	return s, nil
}

// stands reports whether the same thing was refused a moment ago.
func (r *refusal) stands(at fs.FileInfo) bool {
	if r.err == nil || time.Since(r.when) > refusalAge || (r.at == nil) != (at == nil) {
		return false
	}
	return at == nil || os.SameFile(r.at, at)
}

// reopen opens what is at the place of the backup now, if it is the same one.
// It needs mu.
func (v *mountView) reopen() (*session, error) {
	s, err := v.open()
	if err != nil {
		return nil, err
	}
	same, err := s.Continues(v.cur.Live)
	if err == nil && !same {
		err = fmt.Errorf("another one is at %s now", v.dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.CloseIndex(), s.files.Close(), s.Close())
	}
	return s, nil
}

// replace makes s the session, and looks after its index. It needs mu.
func (v *mountView) replace(s *session) {
	v.warn(fmt.Errorf("%s was away, or was replaced: opened anew", v.dir))
	v.cur.CloseIndex() // who reads it finishes undisturbed
	v.cur = s
	if v.closed {
		return
	}
	if v.drop != nil {
		go v.drop() // files of the medium that was there; if that is dead, this may never end
	}
	v.working.Go(func() { v.tendIndex(s) })
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
	paths, err := s.WholeClosure(backup.ReleaseID(id))
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
	u, err := s.Usage()
	return fusefs.Usage{Bytes: u.NarSize, Files: u.Entries}, err
}

// Absent says that a damaged narinfo may be the one of a store path.
func (v *mountView) Absent(p storepath.Path) error {
	v.mu.Lock()
	s := v.cur // also while it cannot be reached: that is said of the list
	v.mu.Unlock()
	return s.Absent(p)
}

// Activity tells .narvault/status.json which generation of the index is in use,
// and how much was decoded.
func (v *mountView) Activity() fusefs.Activity {
	v.mu.Lock()
	s := v.cur
	v.mu.Unlock()
	return fusefs.Activity{Generation: s.IndexGeneration(), DecodedBytes: v.options.Blocks.Decoded()}
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
	jobs := jobsOf(roots)
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
