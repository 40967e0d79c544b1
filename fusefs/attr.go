package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	blockSize = 4096
	// generation goes with nodes that are the same in every mount: see
	// fileSystem.generation.
	generation = 1

	// forever is how long the kernel may keep what cannot change.
	forever = 100 * 365 * 24 * time.Hour
	// brief is how long it may keep what can. With maxAge it makes less than a
	// second until a change shows.
	brief = 250 * time.Millisecond
)

// keep returns how long the attributes of n, and names in n if it is a
// directory, may be kept.
func keep(n node) time.Duration {
	switch n.view() {
	case viewFixed:
		return forever
	case viewExportPaths, viewExportStreams, viewSelf:
		if n.number() != 0 { // another version is another node
			return forever
		}
	}
	if n.inPath() {
		return forever
	}
	return brief
}

// fileAttr sets the attributes of what is not a directory.
func fileAttr(a *fuse.Attr, mode uint32, size int64) {
	a.Mode = mode
	a.Nlink = 1
	a.Size = uint64(size)
	a.Blocks = uint64(size+511) / 512
	setTime(a, storeTime)
}

// dirAttr sets the attributes of a directory. A link count of 1 means that
// nobody counted; else it must be right, as find(1) may rely on it.
func dirAttr(a *fuse.Attr, links int) {
	a.Mode = syscall.S_IFDIR | 0555
	a.Nlink = uint32(links)
	setTime(a, storeTime)
}

// storeTime is the time of all files in a Nix store.
var storeTime = time.Unix(1, 0)

func setTime(a *fuse.Attr, t time.Time) {
	a.SetTimes(&t, &t, &t)
}
