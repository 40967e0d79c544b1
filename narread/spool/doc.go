// Package spool keeps decoded NARs in a directory of the user, so that an
// archive that cannot be entered in the middle is decoded once, whatever the
// number of readers, processes and restarts.
//
// A NAR is known by its hash and size alone, and not by the file that it came
// out of: what is in the spool under a hash had that hash when it was put there.
// A medium that is mounted elsewhere, or a copy of it, finds its NARs again;
// another content never has the same name.
//
//	DIR/<hash in nix32>-<size>.nar    the NAR as it is
//	DIR/<hash in nix32>-<size>.sums   XXH64 of each of its blocks
//	DIR/<hash in nix32>-<size>.part   a NAR that is being decoded
//
// A .sums file is
//
//	sums  = "narvault sums 1\n", 32 bytes of NarHash, u64 NarSize, u64 BlockSize,
//	        { u64 XXH64 of a block }, u64 XXH64 of all before
//
// with integers in little endian. It is made while the NarHash is verified, and
// published by rename, before the .nar file is. Nothing is fsynced: after a
// power failure a file may hold anything, and so may one on a bad disk; every
// block is compared with its sum whenever it is read, and a file in which one
// differs is discarded. Sums outlive their NAR: should it be decoded again, its
// blocks can be served as soon as they are decoded, without waiting for the
// NarHash of the whole.
//
// Locks are those of flock(2), which end with the process, however it ends. Who
// decodes locks the .part file exclusively; one that is not locked is a leftover
// that the next one takes over or away. Who reads a .nar file locks it shared:
// such a file is not removed to make room. All other files go in the order of
// last use (their modification time) when a new one needs room.
package spool
