package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// CacheFiles are the files of a binary cache as they are, for whoever wants to
// see a cache and not what is in it: a mount, a web server. Names are relative to
// the cache, with slashes.
//
// It never leaves the cache directory, and shows only what belongs into a cache:
// regular files (a symlink to one inside the cache counts), real directories,
// narinfos that are good and lead to a NAR file inside the cache, no temporary
// files and no locks. The directories and the nix-cache-info that Nix would make
// when it opens a cache are always there, so that it can open this one read-only.
//
// What is not there, or not shown, is fs.ErrNotExist. A damaged narinfo is not
// in its directory, and a *bincache.DamageError when asked for. Methods may be
// called concurrently.
type CacheFiles struct {
	live *Live
	root *os.Root

	mu    sync.Mutex
	lists map[string]nameList // guarded by mu: of the directories listed last
}

type nameList struct {
	stamp stamp
	paths []storepath.Path // for the top: what was good
	names []string
}

// maxNameLists is how many directories are remembered.
const maxNameLists = 8

// CacheFiles opens the files of the cache. The caller closes them.
func (l *Live) CacheFiles() (*CacheFiles, error) {
	root, err := os.OpenRoot(l.Cache.Dir())
	if err != nil {
		return nil, fmt.Errorf("open binary cache: %w", err)
	}
	return &CacheFiles{live: l, root: root, lists: make(map[string]nameList)}, nil
}

// Close releases the directory.
func (c *CacheFiles) Close() error { return c.root.Close() }

// Stat describes a file or directory. ModTime differs whenever anything changed,
// and may differ when nothing did.
func (c *CacheFiles) Stat(name string) (CacheFile, error) {
	if err := c.allowed(name); err != nil {
		return CacheFile{}, err
	}
	info, err := c.stat(name)
	if errors.Is(err, fs.ErrNotExist) && slices.Contains(bincache.Dirs(), name) {
		return CacheFile{Dir: true, ModTime: time.Unix(1, 0)}, nil
	}
	if errors.Is(err, fs.ErrNotExist) && name == bincache.InfoFile {
		return CacheFile{Size: int64(len(c.info())), ModTime: time.Unix(1, 0)}, nil
	}
	if err != nil {
		return CacheFile{}, err
	}
	return CacheFile{Dir: info.IsDir(), Size: info.Size(), ModTime: changeTime(info, time.Now())}, nil
}

// A CacheFile is what Stat says.
type CacheFile struct {
	Dir     bool
	Size    int64 // in bytes
	ModTime time.Time
}

// stat is os.Stat for what is shown.
func (c *CacheFiles) stat(name string) (fs.FileInfo, error) {
	info, err := c.root.Lstat(dot(name))
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		if info, err = c.root.Stat(name); err == nil && info.IsDir() {
			return nil, notShown(name) // it may lead round in circles
		}
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, notShown(name) // dangling, or it leaves the cache
		}
	}
	if err == nil && !info.IsDir() && (!info.Mode().IsRegular() || !ofCache(name)) {
		return nil, notShown(name)
	}
	return info, err
}

func dot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

func notShown(name string) error { return &fs.PathError{Op: "show", Path: name, Err: fs.ErrNotExist} }

// allowed returns an error for what is not shown because of its name or, for a
// narinfo, its content.
func (c *CacheFiles) allowed(name string) error {
	if name == "" {
		return nil
	}
	dir, base := path.Split(name)
	if !fs.ValidPath(name) || hidden(base) {
		return notShown(name)
	}
	if hash, ok := strings.CutSuffix(base, bincache.NarInfoExt); ok && dir == "" {
		_, err := c.live.Cache.NarInfo(hash)
		return err
	}
	return nil
}

// hidden reports whether a file is temporary, a lock, or none of a cache. Nix
// appends ".tmp.<process>.<number>" while it writes.
func hidden(base string) bool {
	if strings.HasPrefix(base, ".") || strings.HasSuffix(base, "~") || base == layout.LockFile {
		return true
	}
	bare := base
	for {
		i := strings.LastIndexByte(bare, '.')
		if i < 0 || strings.Trim(bare[i+1:], "0123456789") != "" {
			break
		}
		bare = bare[:i]
	}
	for _, suffix := range []string{".tmp", ".lock", ".part"} {
		if strings.HasSuffix(bare, suffix) {
			return true
		}
	}
	return false
}

// Temporary reports whether a file in a cache is temporary, a lock, or none of a
// cache, by its name: CacheFiles does not show it.
func Temporary(base string) bool { return hidden(base) }

// Names returns the names in a directory, sorted; those of directories end in a
// slash. As long as nothing changes, the same slice comes again; it must not be
// modified.
func (c *CacheFiles) Names(dir string) ([]string, error) {
	now := time.Now()
	if err := c.allowed(dir); err != nil {
		return nil, err
	}
	info, err := c.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && slices.Contains(bincache.Dirs(), dir):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var paths []storepath.Path
	if dir == "" {
		if paths, err = c.live.Paths(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	have, known := c.lists[dir]
	current := newStamp(info)
	if known && have.stamp.proves(current, now) && slices.Equal(have.paths, paths) {
		return have.names, nil
	}
	names, err := c.read(dir, paths)
	if err != nil {
		return nil, err
	}
	if known && slices.Equal(names, have.names) {
		names = have.names
	}
	if len(c.lists) >= maxNameLists {
		clear(c.lists)
	}
	c.lists[dir] = nameList{settled(current, now), paths, names}
	return names, nil
}

// read lists a directory; at the top, only the narinfos of paths.
func (c *CacheFiles) read(dir string, paths []storepath.Path) ([]string, error) {
	f, err := c.root.Open(dot(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.Name(), err)
	}
	var names []string
	for _, e := range entries {
		if name := c.shown(dir, e, paths); name != "" {
			names = append(names, name)
		}
	}
	if dir == "" {
		for _, always := range bincache.Dirs() {
			names = append(names, always+"/")
		}
		names = append(names, bincache.InfoFile)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// shown returns the name of an entry as Names has it, "" if it is not shown.
func (c *CacheFiles) shown(dir string, e fs.DirEntry, paths []storepath.Path) string {
	name := e.Name()
	switch {
	case hidden(name), dir == "" && (!e.IsDir() && !ofCache(name) || !good(name, paths)):
		return ""
	case e.IsDir():
		return name + "/"
	case e.Type().IsRegular():
		return name
	}
	if info, err := c.stat(path.Join(dir, name)); err != nil || info.IsDir() {
		return ""
	}
	return name
}

// ofCache reports whether a file may be in a cache, which at the top has few
// kinds of them. nix-push 1.x had its NAR files there.
func ofCache(name string) bool {
	if strings.Contains(name, "/") || name == bincache.InfoFile {
		return true
	}
	hash, ok := strings.CutSuffix(name, bincache.ListingExt)
	return ok && storepath.ValidHash(hash) || strings.Contains(name, ".nar")
}

// good reports whether a file at the top is no narinfo, or one of paths.
func good(name string, paths []storepath.Path) bool {
	hash, ok := strings.CutSuffix(name, bincache.NarInfoExt)
	if !ok {
		return true
	}
	i, _ := slices.BinarySearch(paths, storepath.Path(hash))
	return i < len(paths) && paths[i].Hash() == hash
}

// Open opens a regular file. The caller closes it.
func (c *CacheFiles) Open(name string) (*os.File, int64, error) {
	if err := c.allowed(name); err != nil {
		return nil, 0, err
	}
	_, err := c.stat(name)
	if errors.Is(err, fs.ErrNotExist) && name == bincache.InfoFile {
		f, err := memoryFile(name, c.info())
		return f, int64(len(c.info())), err
	}
	if err != nil {
		return nil, 0, err
	}
	// Not blocking: a pipe may have taken its place.
	f, err := c.root.OpenFile(dot(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notShown(name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// info is the nix-cache-info of a cache that has none.
func (c *CacheFiles) info() []byte {
	return []byte("StoreDir: " + c.live.Cache.StoreDir() + "\n")
}

// memoryFile returns a file that is in no file system.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "memfd_create", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// changeTime returns the modification time to the second, with nanoseconds that
// stand for all that changes when a file changes: another file that was renamed
// to its name may have its time. What changed just now may change again without
// a trace, so until then no two answers are alike.
func changeTime(info fs.FileInfo, now time.Time) time.Time {
	h := fnv.New64a()
	changed := info.ModTime()
	words := []int64{changed.UnixNano(), info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		words = append(words, int64(st.Dev), int64(st.Ino), st.Ctim.Nano())
		if c := time.Unix(st.Ctim.Unix()); c.After(changed) {
			changed = c
		}
	}
	if now.Sub(changed) <= settleTime {
		words = append(words, now.UnixNano())
	}
	binary.Write(h, binary.LittleEndian, words)
	t := time.Unix(info.ModTime().Unix(), int64(h.Sum64()%1e9))
	if t.After(now) {
		t = t.Add(-time.Second) // programs like make warn of times to come
	}
	return t
}
