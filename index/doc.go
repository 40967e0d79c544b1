// Package index keeps what a binary cache holds in a form that is opened in
// milliseconds: every store path with its narinfo and the listing of its NAR.
// It is derived from the cache's files and can be made again from them at any
// time; what the files mean is the business of package bincache.
//
// # On disk
//
//	index/
//	  lock        held, with flock, by whoever builds
//	  CURRENT     "gen-<N> <SHA-256 of its manifest>\n"
//	  gen-<N>/    a generation, complete and never changed
//	    manifest  JSON: sizes and SHA-256 sums of the other files, and more
//	    names     all store paths and their numbers
//	    references  what their narinfos refer to
//	    records/  a Badger database: one record for each store path
//	  gen-<N>.tmp/ a generation being made, or what a crash left of one
//
// Badger locks out readers while it writes, cannot be opened read-only after a
// crash, and answers "not found" where a table is damaged. Hence generations,
// which are built aside, synced, renamed and then named by CURRENT: readers and
// a builder never wait for each other, a crash leaves the generation before,
// and what is there is proven by names. Readers hold a shared flock on their
// generation's directory; a builder removes the generations that nobody holds.
//
// # Damage
//
// A generation is opened only if its manifest, names and whatever Badger reads
// at opening have the right sums, and its files the right sizes: Badger dies of
// truncated tables, in goroutines of its own. Records carry a checksum that is
// verified at each use, and Verify hashes all files. So a store path is absent
// only if names, verified, does not have it. References are read, and verified,
// when a narinfo is asked for. All else that is not right is a
// *DamageError: build a new generation, and read the cache itself meanwhile.
//
// Records are read through a memory map. A medium that vanishes makes the
// kernel send a signal instead of an error; where records are read, it becomes
// a *DamageError (debug.SetPanicOnFault). While a generation is being opened
// Badger reads the ends of its tables in goroutines where this is not possible;
// they have been read, and so are in memory, an instant before. Writing through
// the map dies likewise when the disk is full, so Build looks for free space as
// it goes.
//
// # Size
//
// Most of a store path's bytes are random: its hash part and that of its deriver,
// of the NAR, of the NAR file, of the narinfo, signatures. They are kept once, in
// binary, and references as the numbers of places in names. What a path takes
// without its listing is then, in bytes:
//
//	31  in names: hash part 20, the rest of its name
//	 9  in references, with 4.5 of them
//	25  in Badger: key, version, sizes
//	33  checksum 8, sum of the narinfo 16, sizes
//	64  NarHash and FileHash; 20 for a deriver, 64 for a signature
//	25  the rest of the narinfo, packed
//	10  layout of the container, with one or two blocks
//
// and each entry of its listing takes about 10 more.
//
// # Numbers
//
// Each store path has a number from 1. It keeps it from generation to
// generation, and no other path ever gets it, so that they can serve as inode
// numbers. The first generation numbers the paths in their order. When the
// names are lost, or the numbers used up, numbering begins anew: see
// Index.Numbering.
package index
