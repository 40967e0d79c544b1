// Package check looks for damage in a backup, or in any other binary cache: in
// what its files say of each other, and on request in every byte of its NAR
// files. It writes nothing into what it checks, but for a note of when each NAR
// file was last read whole, and that only into a backup of narvault.
//
// What it finds is a list of typed findings, for people and for whoever repairs.
// It never stops at the first. Three things are kept apart: damage, which reading
// again will not change; what could not be read, which may be all right; and
// what is merely odd. Backups, garbage collections and mounts may go on
// meanwhile: a file that appears or goes is not damage, so whatever looks like it
// is looked at again before it is reported.
//
// A narinfo has no checksum of its own. Where there is an index, its record has
// one of the narinfo, and shows a flipped bit that leaves a well-formed file.
//
// Memory is bounded: about 1.5 kB for each store path with ten references, and
// what a few archives take that are being read. Symlinks and URLs that lead out of the cache are
// never followed.
package check
