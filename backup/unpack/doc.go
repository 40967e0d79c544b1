// Package unpack restores archived store paths, or what is below one, as plain
// files into any directory, without Nix. Which archives, and where they lie, is
// the business of package backup.
//
// # What counts
//
// A tree gets its name only when all of its NAR has passed the NarHash. Until
// then it is called ".narvault-<sum>.tmp", where an interrupted run left it and
// the next one finds it: what is there is compared with the archive, kept as
// far as it is right and written anew from there on. A tree that is there under
// its name is compared, never changed. Where the archive is damaged, the files
// of which every byte passed a checksum of the container are put into
// "<name>.damaged".
//
// # What an archive cannot do
//
// Every file is made with the directory that it belongs into held open
// (os.Root), directory below directory, and no symlink is followed: neither
// names in an archive nor symlinks that lie in the directory lead out of it.
//
// # What is kept
//
// Contents (holes are made where there are 4 KiB of zeros), modes and time as
// in a Nix store (0444, 0555, one second after 1970), symlinks. What the file
// system of the directory cannot hold is left out, and told.
package unpack
