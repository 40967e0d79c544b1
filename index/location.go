package index

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/index/bincache"
)

// Identity returns what tells a cache from others: the id of the backup that it
// belongs to, or, if that is "", the directory's device and inode.
func Identity(c *bincache.Cache, id string) (string, error) {
	if id != "" {
		return "id-" + id, nil
	}
	info, err := c.Stat()
	if err != nil {
		return "", fmt.Errorf("identify binary cache: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("identify binary cache %s: the system gives it no inode number", c.Dir())
	}
	return fmt.Sprintf("dir-%x-%x", st.Dev, st.Ino), nil
}

// UserDir returns the directory in the user's cache directory where the index
// of a cache lives that cannot have it beside its files: a foreign or read-only
// one, or one on a file system where Badger cannot live. It makes nothing.
// UserCache is the user's cache directory, "" for the usual one.
func UserDir(identity, userCache string) (string, error) {
	if identity == "" || strings.ContainsAny(identity, "/\x00") {
		return "", fmt.Errorf("find a place for the index: bad identity %q", identity)
	}
	dir, err := OwnCache(userCache)
	if err != nil {
		return "", fmt.Errorf("find a place for the index: %w", err)
	}
	return filepath.Join(dir, "index", identity), nil
}

// OwnCache returns narvault's directory in the user's cache directory, which is
// userCache, "" for the usual one. It makes nothing. What is kept there is taken
// for what narvault wrote, so one that somebody else owns or may write to is an
// error: XDG_CACHE_HOME may be a directory that users share.
func OwnCache(userCache string) (string, error) {
	if userCache == "" {
		var err error
		if userCache, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(userCache, "narvault")
	for _, stat := range []func(string) (fs.FileInfo, error){os.Lstat, os.Stat} { // it may be a symlink
		info, err := stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		if !private(info) {
			return "", fmt.Errorf("%s belongs to another user, or others may write to it: set XDG_CACHE_HOME to a directory of your own", dir)
		}
	}
	return dir, nil
}

// private reports whether a file is this user's, and nobody else may change it.
func private(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	link := info.Mode()&fs.ModeSymlink != 0 // its mode means nothing
	return ok && int(st.Uid) == os.Geteuid() && (link || info.Mode().Perm()&0o022 == 0)
}

// What is kept of indexes in the user's cache directory that were not used last:
// each is about a hundredth of the cache that it is of.
const (
	keptIndexes = 16
	keptFor     = 90 * 24 * time.Hour
)

// Prune notes that the index in dir, which UserDir returned, is used now, and
// removes others beside it that were not used for 90 days, or are not among the
// 16 that were used last. One that somebody reads or builds stays. It is no error
// if dir is not there.
func Prune(dir string) error {
	now := time.Now()
	if err := os.Chtimes(dir, now, now); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("use index: %w", err)
	}
	all := filepath.Dir(dir)
	lock, err := lockFileIn(all)
	if errors.Is(err, errVanished) {
		return nil // somebody else does it
	} else if err != nil {
		return fmt.Errorf("remove old indexes: %w", err)
	}
	defer lock.Close()
	unused, err := unusedIndexes(all, filepath.Base(dir), now)
	for _, name := range unused {
		err = errors.Join(err, removeIndex(filepath.Join(all, name)))
	}
	if err != nil {
		return fmt.Errorf("remove old indexes: %w", err)
	}
	return nil
}

// lockFileIn holds the lock of a directory. The error is errVanished if somebody
// else does.
func lockFileIn(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unusedIndexes returns the names of the indexes that are not to be kept.
func unusedIndexes(all, keep string, now time.Time) (names []string, err error) {
	entries, err := os.ReadDir(all)
	if err != nil {
		return nil, err
	}
	used := make(map[string]time.Time)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && e.Name() != keep {
			used[e.Name()] = info.ModTime()
		}
	}
	byUse := slices.SortedFunc(maps.Keys(used), func(a, b string) int { return used[b].Compare(used[a]) })
	for i, name := range byUse {
		if i >= keptIndexes-1 || now.Sub(used[name]) > keptFor || strings.HasSuffix(name, tempSuffix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// removeIndex removes an index, unless somebody builds or reads it.
func removeIndex(dir string) error {
	lock, err := lockFileIn(dir)
	if errors.Is(err, errVanished) || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer lock.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := parseGen(e.Name()); !ok {
			continue
		}
		g, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		defer g.Close() // with its lock, when the index is gone
		if flock(g, syscall.LOCK_EX) != nil {
			return nil
		}
	}
	if !strings.HasSuffix(dir, tempSuffix) {
		// Who opened a file in it just now sees that it is gone.
		if err := os.Rename(dir, dir+tempSuffix); err != nil {
			return err
		}
		dir += tempSuffix
	}
	return os.RemoveAll(dir)
}

// Suits reports whether Badger can live in the index directory dir, which need
// not exist, and, if write is set, whether this user may write there: nil, or
// why not.
func Suits(dir string, write bool) error {
	at := dir
	for {
		err := suits(at, write)
		parent := filepath.Dir(at)
		if !errors.Is(err, os.ErrNotExist) || parent == at {
			return err
		}
		at = parent // that one would have to be written to
	}
}

func suits(dir string, write bool) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if name := unsuited(int64(st.Type)); name != "" {
		return fmt.Errorf("%s is on %s, where the index cannot live", dir, name)
	}
	if !write {
		return nil
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &os.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

// unsuited returns the name of a type of file system, as statfs(2) has it,
// where Badger does not work: it syncs the directory at opening, which some
// refuse, needs locks and maps that others see, and FAT has no sparse files
// and no modes.
func unsuited(magic int64) string {
	switch uint32(magic) {
	case unix.SQUASHFS_MAGIC:
		return "squashfs"
	case unix.EROFS_SUPER_MAGIC_V1:
		return "erofs"
	case unix.ISOFS_SUPER_MAGIC:
		return "an ISO 9660 medium"
	case unix.UDF_SUPER_MAGIC:
		return "a UDF medium"
	case unix.CRAMFS_MAGIC:
		return "cramfs"
	case unix.MSDOS_SUPER_MAGIC:
		return "FAT"
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.V9FS_MAGIC:
		return "a network file system"
	}
	return ""
}
