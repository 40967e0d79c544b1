package fusefs

import (
	"time"

	"github.com/narvault/narvault/narread/storepath"
)

// What a Backup may do beyond the interface Backup. The mount has the part of
// the tree that belongs to an interface only if the Backup implements it. The
// rules of Backup hold: methods are called concurrently, lists are asked for
// again and again and say with the very same slice that nothing changed.

// A Job is one thing that a release was made for.
type Job struct {
	Name    string // what Hydra calls it, or the package; any text
	System  string // "x86_64-linux", or ""
	Output  string // "out", or ""
	NixName string // "hello-1.0", or ""
	DrvPath storepath.Path
	Path    storepath.Path
}

// JobLister is implemented by a Backup that knows the jobs of its releases:
// jobs/<project>/<name>/<job>.<system>/<output>.
type JobLister interface {
	// Jobs returns the jobs of a release, in any order.
	Jobs(ReleaseID) ([]Job, error)
}

// FileInfo describes a file or directory of a binary cache.
type FileInfo struct {
	Dir  bool
	Size int64 // of a file, in bytes
	// Time is the time of the last change. A change of any kind changes it, if
	// only in its nanoseconds: the kernel sees changes by nothing else.
	Time time.Time
}

// CacheFiles is implemented by a Backup that shows its binary cache as it is, in
// cache/ and logs/. Files are named relative to the cache, with slashes; "" is
// the cache itself. What is not there, or is not to be seen, is fs.ErrNotExist;
// any other error says nothing about what is there.
type CacheFiles interface {
	// CacheNames returns the names in a directory, in any order, those of
	// directories with a slash at the end.
	CacheNames(dir string) ([]string, error)
	// CacheStat describes a file or directory.
	CacheStat(name string) (FileInfo, error)
	// CacheOpen opens a file for one read. The caller closes it.
	CacheOpen(name string) (Stream, error)
}

// PathInfo is what a narinfo says of a store path, for --xattrs.
type PathInfo struct {
	NarHash    string // "sha256:<nix32>"
	References []storepath.Path
	Deriver    storepath.Path // "" if not known
}

// PathInfoReporter is implemented by a Backup that can answer
// Options.XAttrs.
type PathInfoReporter interface {
	PathInfo(storepath.Path) (PathInfo, error)
}

// AbsenceProver is implemented by a Backup that may hold store paths which it
// cannot list, because what would tell their names is damaged.
type AbsenceProver interface {
	// Absent returns nil if a store path that Paths lacks is not in the backup,
	// and why that is not certain if it is not. It is asked for each name that
	// somebody looks for in vain, so it must be fast.
	Absent(storepath.Path) error
}

// Replacer is implemented by a Backup whose medium may be replaced while it is
// mounted.
type Replacer interface {
	// OnReplace sets the function that is called, in no request, when what was
	// opened before is of no use any more: it is closed and opened anew. It is
	// called once, before the first request.
	OnReplace(drop func())
}

// HashedStream is implemented by a Stream that knows what it consists of. Without
// it, the stream of a store path must never change, and that of a release only
// if its closure does.
type HashedStream interface {
	// Sum is a hash of all that the content of the stream depends on.
	Sum() [32]byte
}

// Place is where damage is: in which file of the backup, which block of it, and
// at what offset in bytes. What is not known is "" or -1.
type Place struct {
	File   string
	Block  int
	Offset int64
}

// Locator is implemented by a Backup that knows which of its errors are about
// what file, for .narvault/errors.
type Locator interface {
	// Locate returns where an error of this Backup says that damage is.
	Locate(error) Place
}

// Activity is what a Backup says of itself in .narvault/status.json. What it
// does not know is left out.
type Activity struct {
	Generation   string `json:"generation,omitempty"`   // of the index
	DecodedBytes int64  `json:"decodedBytes,omitempty"` // out of archives, since the mount
}

// ActivityReporter is implemented by a Backup that has more to say in
// .narvault/status.json.
type ActivityReporter interface {
	Activity() Activity
}
