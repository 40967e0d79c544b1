// Package fusefs shows a backup as a read-only file system.
//
// It knows what the kernel sees: node numbers, views, attributes, errors and
// the life of a mount. It knows nothing of compression, of the layout of a
// backup directory or of an index: those are behind [Backup].
//
//	releases/<project>/<name>/<hash>-<name>/...   every store path of the release, as what it is
//	store/<hash>-<name>/...                       every store path of the backup
//	exports/releases/<project>/<name>.closure     a stream for nix-store --import
//	exports/store/<hash>-<name>.closure           the same, for the closure of one store path
//	jobs/<project>/<name>/<job>.<system>/<output> links to the store paths that a release was made for
//	cache/                                        the binary cache as it is, for Nix: file://MOUNT/cache
//	logs/<derivation>                             the build logs in it
//	.narvault/{status.json,errors}                what the mount does, and which damage it met
//
// What not every backup has (jobs, a cache of files) is asked for by interfaces
// that a Backup may implement or not: optional.go.
//
// # Two kinds of nodes
//
// Below a store path nothing ever changes. The kernel may keep names,
// attributes, listings, link targets and pages for ever, and a second pass asks
// us nothing.
//
// Everything above is mutable: a list of members that is read from the Backup
// again when somebody looks, at most every half second. Names and attributes
// are good for a quarter of a second, and the modification time changes with
// every change, which makes the kernel drop its copy of a listing
// (FUSE_AUTO_INVAL_DATA). Together: what is new in the backup shows within a
// second. Names of store paths are good for five minutes, in which their list is
// read again by itself and the kernel is told what went away (watch.go).
//
// OPEN, OPENDIR and FLUSH are answered ENOSYS. The kernel takes that once for
// the whole connection and from then on opens, closes and keeps pages and
// listings by itself. So there is no state per open file; a stream of
// exports/ must have an exact size, and a new version of a stream is a new node.
//
// # No object per inode
//
// A node number says everything (see node.go for its layout), so FORGET has
// nothing to do and memory does not grow with what was visited. Only the
// archives in use are kept open, within [Options.MaxTrees] and
// [Options.MaxListingBytes]. Exceptions are cache/ and jobs/: what was seen of
// them has a number, which costs about its name.
//
// # Absence
//
// The kernel remembers an absent name below a store path for ever. ENOENT is
// therefore only said by a listing that was read without an error; whatever
// else goes wrong is EIO, is not remembered by anybody, and is logged once.
//
// # Damage
//
// An error is an answer to one request, and never the end of anything. The file
// of an archive may be replaced below us, so after an error it is opened anew; a
// drive with a mapped index may be pulled, so a fault in a request is a panic
// (debug.SetPanicOnFault), and a panic is EIO.
package fusefs
