package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

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
	if userCache == "" {
		var err error
		if userCache, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("find a place for the index: %w", err)
		}
	}
	if identity == "" || strings.ContainsAny(identity, "/\x00") {
		return "", fmt.Errorf("find a place for the index: bad identity %q", identity)
	}
	return filepath.Join(userCache, "narvault", "index", identity), nil
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
