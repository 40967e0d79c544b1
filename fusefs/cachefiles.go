package fusefs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// cacheView is cache/: the files of the binary cache as they are. Its nodes are
// numbered by their path in the cache, which ends in a slash if it is a
// directory, so that a number never changes from the one to the other. Only
// what somebody looked at has a number.
type cacheView struct {
	f     *fileSystem
	files CacheFiles
	names *table[string]
	dirs  handles[*cacheDir]
}

// A cacheDir is what a directory held when it was last listed.
type cacheDir struct {
	name string

	mu      sync.Mutex
	time    time.Time // guarded by mu: of the directory, then
	members *members  // guarded by mu
}

// Close has nothing to do.
func (*cacheDir) Close() error { return nil }

// maxCacheDirs is how many listings of the cache are remembered. A program
// lists few directories at a time.
const maxCacheDirs = 16

const logDir = "log/"

func (f *fileSystem) cacheView(files CacheFiles) *cacheView {
	v := &cacheView{f: f, files: files, names: newTable[string]("files of the cache", maxNumber)}
	v.dirs = handles[*cacheDir]{open: v.openDir, maxN: maxCacheDirs, maxCost: math.MaxInt64, idle: streamIdle}
	return v
}

// name returns the path of n in the cache, with a slash at its end if it is a
// directory; "" is the cache.
func (v *cacheView) name(n node) (name string, dir bool, err error) {
	if n.number() == 0 {
		return "", true, nil
	}
	name, ok := v.names.key(n.number())
	if !ok || n.entry() != 0 {
		return "", false, errNoNode
	}
	return name, strings.HasSuffix(name, "/"), nil
}

// splitName splits a path into its directory and the last part without slash.
func splitName(name string) (dir, base string) {
	name = strings.TrimSuffix(name, "/")
	i := strings.LastIndexByte(name, '/') + 1
	return name[:i], name[i:]
}

// node returns the node of a path as name has them.
func (v *cacheView) node(name string) (node, error) {
	if name == "" {
		return pack(viewCache, 0, 0), nil
	}
	nums, err := v.names.intern([]string{name})
	if err != nil {
		return 0, err
	}
	return pack(viewCache, nums[0], 0), nil
}

// cacheError returns an error of the files: absent is said of what is not there.
func cacheError(err, absent error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return absent
	}
	return &backupError{err}
}

func (v *cacheView) attr(n node, a *fuse.Attr) error {
	name, dir, err := v.name(n)
	if err != nil {
		return err
	}
	info, err := v.files.CacheStat(strings.TrimSuffix(name, "/"))
	switch {
	case err != nil:
		return cacheError(err, errNoNode)
	case info.Dir != dir:
		return errNoNode
	case dir:
		dirAttr(a, 1)
	default:
		fileAttr(a, syscall.S_IFREG|0444, info.Size)
	}
	setTime(a, info.Time)
	return nil
}

func (v *cacheView) lookup(n node, entry string) (node, error) {
	dir, isDir, err := v.name(n)
	if err != nil {
		return 0, err
	}
	if !isDir {
		return 0, errNotDir
	}
	name := dir + entry
	info, err := v.files.CacheStat(name)
	if err != nil {
		return 0, cacheError(err, errNoName)
	}
	if info.Dir {
		name += "/"
	}
	return v.node(name)
}

func (v *cacheView) parent(n node) (node, error) {
	name, _, err := v.name(n)
	if err != nil {
		return 0, err
	}
	if name == "" {
		return nodeRoot, nil
	}
	up, _ := splitName(name)
	return v.node(up)
}

// openDir makes a cacheDir that was not listed yet.
func (v *cacheView) openDir(key node) (*cacheDir, int64, error) {
	name, dir, err := v.name(key)
	if err != nil {
		return nil, 0, err
	}
	if !dir {
		return nil, 0, errNotDir
	}
	return &cacheDir{name: name, members: none}, 0, nil
}

// numbers lists a directory.
func (v *cacheView) numbers(dir string) ([]int, error) {
	names, err := v.files.CacheNames(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return nil, err
	}
	paths := make([]string, 0, len(names))
	for _, name := range names {
		if validName(strings.TrimSuffix(name, "/")) {
			paths = append(paths, dir+name)
		}
	}
	slices.Sort(paths)
	return v.names.intern(paths)
}

// members returns the numbers of what is in a directory. At the beginning of a
// listing they are as new as the directory's attributes, with which the kernel
// keeps the listing; its continuation goes on with the same ones.
func (v *cacheView) members(n node, begin bool) (m *members, err error) {
	err = v.dirs.with(n, func(d *cacheDir) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if begin || d.members == none {
			err = v.update(d)
		}
		m = d.members
		return err
	})
	return m, err
}

// update lists a directory again if it changed. Needs d.mu.
func (v *cacheView) update(d *cacheDir) error {
	info, err := v.files.CacheStat(strings.TrimSuffix(d.name, "/"))
	if err != nil {
		return cacheError(err, errNoNode)
	}
	if d.members != none && info.Time.Equal(d.time) {
		return nil
	}
	nums, err := v.numbers(d.name)
	if err != nil {
		return cacheError(err, errNoNode)
	}
	d.members, d.time = d.members.next(nums, &v.f.cat.clock), info.Time
	return nil
}

func (v *cacheView) list(n node, after int, yield func(key int, e dirent) bool) error {
	m, err := v.members(n, after == 0)
	if err != nil {
		return err
	}
	for _, num := range m.nums[m.after(after):] {
		name, _ := v.names.key(num)
		if !yield(num, v.dirent(name, num)) {
			break
		}
	}
	return nil
}

func (v *cacheView) dirent(name string, num int) dirent {
	_, base := splitName(name)
	e := dirent{name: base, node: pack(viewCache, num, 0), typ: syscall.S_IFREG}
	if strings.HasSuffix(name, "/") {
		e.typ = syscall.S_IFDIR
	}
	return e
}

// read opens the file for each request: it costs little, and the file may be
// another one by now.
func (v *cacheView) read(n node, p []byte, off int64) (int, error) {
	name, dir, err := v.name(n)
	if err != nil {
		return 0, err
	}
	if dir {
		return 0, errIsDir
	}
	s, err := v.files.CacheOpen(name)
	if err != nil {
		return 0, cacheError(err, errNoNode)
	}
	defer s.Close()
	got, err := s.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return 0, &backupError{err}
	}
	return got, nil
}

func (v *cacheView) readlink(n node) (string, error) { return "", errNotLink }

func (v *cacheView) path(n node) string {
	name, _, _ := v.name(n)
	return strings.TrimSuffix("cache/"+name, "/")
}

// logsView is logs/: the files of cache/log/, and the same nodes.
type logsView struct {
	fixedDirs // for what it has in common with directories that never change
	v         *cacheView
	dir       node // cache/log/
}

func (f *fileSystem) logsView(v *cacheView) (*logsView, error) {
	dir, err := v.node(logDir)
	return &logsView{v: v, dir: dir}, err
}

func (l *logsView) attr(_ node, a *fuse.Attr) error {
	err := l.v.attr(l.dir, a)
	a.Nlink = 2
	return err
}

func (l *logsView) lookup(_ node, name string) (node, error) {
	n, err := l.v.lookup(l.dir, name)
	if err != nil {
		return 0, err
	}
	if _, dir, err := l.v.name(n); err != nil || dir {
		return 0, cmpErr(err, errNoName)
	}
	return n, nil
}

func (l *logsView) parent(node) (node, error) { return nodeRoot, nil }

func (l *logsView) list(_ node, after int, yield func(key int, e dirent) bool) error {
	return l.v.list(l.dir, after, func(key int, e dirent) bool {
		return e.typ == syscall.S_IFDIR || yield(key, e)
	})
}

func (l *logsView) path(node) string { return "logs" }
