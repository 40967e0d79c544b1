package fusefs

import "fmt"

// A node is a FUSE node id and, at once, an inode number. It is the whole state
// of an inode:
//
//	bit 63      0
//	bits 62-46  view   (17 bits)
//	bits 45-23  number (23 bits)
//	bits 22-0   entry  (23 bits)
//
//	view              number           entry
//	viewFixed         0                nodeRoot, nodeExports (1, 2, ...)
//	viewStore         0                0: store/
//	                  path             entry of the path's listing: below store/; files and symlinks of all views
//	viewExportPaths   0                0: exports/store/
//	                  path             version: exports/store/<path>.closure
//	viewExports       0                0: exports/releases/
//	                  project          0: exports/releases/<project>/
//	viewExportStreams release          version: exports/releases/<project>/<name>.closure
//	viewProjects      0                0: releases/
//	                  project          0: releases/<project>/
//	viewJobs          0                0: jobs/
//	                  project          0: jobs/<project>/
//	viewJobReleases   release          0: jobs/<project>/<name>/; else a directory or link below it (jobs.go)
//	viewCache         0                0: cache/
//	                  file             0: a file or directory below cache/, also the files of logs/
//	viewLogs          0                0: logs/
//	viewSelf          0                0: .narvault/
//	                  1, 2, ...        version: a file in it
//	11 to 63          kept for later views
//	64 + release      0                0: releases/<project>/<name>/
//	                  path             entry: a directory below it
//
// Paths, releases and projects are numbered from 1 by append-only tables
// (table.go), entries as the listing has them, 0 being the store path itself.
// So are the files of the binary cache and what is below jobs/<project>/<name>/,
// but in the order in which somebody came by: see volatile.
//
// Files and symlinks of a store path are the same inode in releases/ and in
// store/: the kernel then has their pages once. Directories are not, as it
// allows a directory one parent.
//
// Nothing is hashed: two things never share a number. What does not fit is an
// error (errTooMany). Bit 63 stays clear for programs that take an inode number
// for a signed integer; it also keeps clear of go-fuse's own ^0.
type node uint64

const (
	entryBits  = 23
	numberBits = 23
	viewBits   = 17

	maxEntry  = 1<<entryBits - 1
	maxNumber = 1<<numberBits - 1
	maxView   = 1<<viewBits - 1
)

const (
	viewFixed = iota
	viewStore
	viewExportPaths
	viewExports
	viewExportStreams
	viewProjects
	viewJobs
	viewJobReleases
	viewCache
	viewLogs
	viewSelf
	viewReleases = 64 // plus the number of the release

	maxRelease = maxView - viewReleases
)

const (
	nodeRoot    node = 1 // FUSE_ROOT_ID: view 0, number 0, entry 1
	nodeExports node = 2
)

// pack makes a node number. Its arguments come from tables and listings that
// were held to the limits above; anything else is a bug, and a panic is EIO.
func pack(view, number, entry int) node {
	if view < 0 || view > maxView || number < 0 || number > maxNumber || entry < 0 || entry > maxEntry {
		panic(fmt.Sprintf("fusefs: node number (%d, %d, %d) is out of range", view, number, entry))
	}
	return node(view)<<(numberBits+entryBits) | node(number)<<entryBits | node(entry)
}

func (n node) view() int   { return int(n >> (numberBits + entryBits)) }
func (n node) number() int { return int(n>>entryBits) & maxNumber }
func (n node) entry() int  { return int(n) & maxEntry }

// release returns the number of the release whose view n is in, or 0.
func (n node) release() int {
	return max(n.view()-viewReleases, 0)
}

// inPath reports whether n is in a store path, where nothing changes.
func (n node) inPath() bool {
	return n.number() != 0 && (n.view() == viewStore || n.view() > viewReleases)
}

// volatile reports whether the number of n means something else in the next
// mount of the same backup.
func (n node) volatile() bool {
	switch n.view() {
	case viewJobReleases, viewCache, viewSelf, viewExportPaths, viewExportStreams:
		return n.number() != 0
	}
	return false
}
