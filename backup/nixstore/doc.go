// Package nixstore asks the local Nix store: which paths are valid, what they
// refer to, what a closure is, what the garbage collector's roots are. It only
// uses Nix's own commands, so that any store that Nix can open as files works:
// the system store, through the daemon or not, and chroot stores (--store DIR).
// What is in store paths is read as files (Dump); an Importer adds paths, from
// NARs that others have.
//
// # The serve protocol
//
// Questions go to one long-lived child, "nix-store --serve --write", over its
// standard input and output: the protocol behind ssh:// stores, which Nix 2.0
// to 2.36 speak unchanged as far as it is used here (src/libstore's
// serve-protocol.hh, opServe in nix-store.cc). Compared with a command for each
// question this has no limit on arguments, costs one start, and gives locks
// that cannot be forgotten: the temporary roots that it adds live in a file
// that the child holds locked, so they end with the child, also after kill -9.
//
// Everything is built of two things, as in a NAR:
//
//	u64     little-endian
//	string  u64 length, the bytes, zeros up to a multiple of 8
//	paths   u64 count, then that many strings: absolute store paths
//
// The greeting, then the questions that are used here and their answers (the one
// that adds a path is at Importer):
//
//	client  u64 0x390c9deb
//	server  u64 0x5452eecb, u64 version (major<<8 | minor)
//	client  u64 version: the smaller of the server's and 2.7
//
//	1  QueryValidPaths  u64 lock, u64 substitute, paths
//	                 -> paths: those that are valid
//	2  QueryPathInfos   paths
//	                 -> for each valid one: string path, string deriver or "",
//	                    paths references, u64 download size, u64 NAR size,
//	                    string NAR hash, string ca or "", u64 n, n signatures
//	                    and string "" at the end
//	7  QueryClosure     u64 include outputs, paths -> paths
//
// Substitute is always 0. Any mistake, a path that is not valid in QueryClosure
// included, ends the child with a message on its standard error.
//
// go-nix's pkg/wire reads the same encoding, but forgets the error of the
// padding after a string (wrong or missing zeros pass), so the few lines of it
// that are needed are here.
package nixstore
