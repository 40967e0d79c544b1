package fusefs

import (
	"io"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// ReleaseID names a release: releases/<Project>/<Name>.
type ReleaseID struct{ Project, Name string }

func (id ReleaseID) String() string { return id.Project + "/" + id.Name }

// Tree is one archived store path. *narread.Archive is one.
//
// ReadAt reads bytes of the NAR and keeps the io.ReaderAt contract; an error
// means that these bytes are not to be had, and every byte it returns has
// passed a checksum. All methods may be called concurrently. Listing returns the
// same listing at each call, or an error; an error need not last. Close is
// called once, when no other call is running.
type Tree interface {
	io.ReaderAt
	Listing() (*nar.Listing, error)
	Size() int64
	Close() error
}

// HashedTree is implemented by a Tree that knows what it is an archive of. Without
// it, the content of a store path must not change while it is listed.
type HashedTree interface {
	NarHash() narinfo.Hash
}

// RandomTree is implemented by a Tree whose Listing may have to decode the whole
// archive, unless it says that it has random access: then a process that waits for
// it can be killed. Its Close may be called while Listing runs, to end it, and
// again after that.
type RandomTree interface {
	RandomAccess() bool
}

// Stream is what nix-store --import reads, made while it is read. Its size is
// exact, and its content is the same as long as it is open. The methods follow
// the same rules as those of Tree.
type Stream interface {
	io.ReaderAt
	Size() int64
	Close() error
}

// Backup is what a mount shows. All methods may be called concurrently.
//
// Lists (Paths, Releases, Closure) are asked for on demand, at most every half
// second each. Returned slices are never modified afterwards, by neither side.
// An implementation that knows that nothing changed returns the very same slice
// again: that is the cheap way to say so, and matters with 100,000 paths.
//
// Absence is what the lists say. An error of any kind from Open for a store
// path that a list still names is EIO, also when it wraps fs.ErrNotExist (the
// file of a NAR may be missing). Errors are never remembered, so an operation
// succeeds again as soon as its cause is gone.
type Backup interface {
	// StoreDir is the store directory of the archived paths, such as "/nix/store".
	StoreDir() string
	// Paths returns every store path of the backup, sorted, without duplicates.
	Paths() ([]storepath.Path, error)
	// Releases returns every release, in any order. Names that cannot be file
	// names are left out of the mount, with a log line.
	Releases() ([]ReleaseID, error)
	// Closure returns the store paths of a release, in any order. A path that
	// Paths lacks is shown and cannot be read.
	Closure(ReleaseID) ([]storepath.Path, error)
	// Open opens one store path. The caller closes the Tree.
	Open(storepath.Path) (Tree, error)
	// ExportRelease opens the stream with all paths of a release as it is now.
	ExportRelease(ReleaseID) (Stream, error)
	// ExportPath opens the stream with the closure of one store path.
	ExportPath(storepath.Path) (Stream, error)
}

// Usage is what a backup holds, for statfs(2) and df(1).
type Usage struct {
	Bytes int64 // size of all contents
	Files int64 // number of files, directories and symlinks; 0 if that is not known
}

// UsageReporter is implemented by a Backup that knows, without work, how much
// it holds. Without it, df shows nothing but the number of store paths.
type UsageReporter interface {
	Usage() (Usage, error)
}
