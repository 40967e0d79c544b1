package backup

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// freeSpace returns the bytes that the calling user may still write on the
// file system of dir, or of its parent when dir is not there yet; -1 if that
// cannot be found out.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		if err := unix.Statfs(filepath.Dir(filepath.Clean(dir)), &st); err != nil {
			return -1
		}
	}
	return int64(st.Bavail) * st.Bsize
}
