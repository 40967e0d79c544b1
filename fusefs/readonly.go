package fusefs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// readOnly refuses everything that would change something. The kernel does so
// by itself, as the mount is read-only; this is for who finds a way around.
// Operations that nobody answers are ENOSYS (LSEEK, STATX, FSYNC, and XATTR
// unless asked for): the kernel then does what is right for a file without
// holes, and does not ask again.
type readOnly struct{ fuse.RawFileSystem }

func (readOnly) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }

func (readOnly) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }

func (readOnly) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}

func (readOnly) Write(<-chan struct{}, *fuse.WriteIn, []byte) (uint32, fuse.Status) {
	return 0, fuse.EROFS
}

func (readOnly) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status { return fuse.EROFS }

func (readOnly) CopyFileRange(<-chan struct{}, *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	return 0, fuse.EROFS
}

// Operations that are counted.
const (
	opLookup = iota
	opGetAttr
	opReadlink
	opRead
	opReadDir
	opOpen // OPEN, OPENDIR and FLUSH: a few at most in the life of a mount
	opXAttr
	opCount
)

// counters count requests of the kernel, by operation and by whether they were
// about something in a store path.
type counters [opCount][2]atomic.Int64

func (c *counters) add(op int, n node) {
	if n.inPath() {
		c[op][1].Add(1)
	} else {
		c[op][0].Add(1)
	}
}

// total returns the number of all requests.
func (c *counters) total() (n int64) {
	for op := range c {
		n += c[op][0].Load() + c[op][1].Load()
	}
	return n
}

// Requests says how often the kernel asked. What it finds in its caches does
// not appear.
type Requests struct {
	Lookup   int64 `json:"lookup"`
	GetAttr  int64 `json:"getattr"`
	Readlink int64 `json:"readlink"`
	Read     int64 `json:"read"`
	ReadDir  int64 `json:"readdir"`
	Open     int64 `json:"open"`
	XAttr    int64 `json:"xattr"`
	InPaths  int64 `json:"inPaths"` // of all these, how many were about the inside of store paths
}

func (c *counters) requests() Requests {
	var r Requests
	for op, p := range []*int64{&r.Lookup, &r.GetAttr, &r.Readlink, &r.Read, &r.ReadDir, &r.Open, &r.XAttr} {
		in := c[op][1].Load()
		*p = c[op][0].Load() + in
		r.InPaths += in
	}
	return r
}
