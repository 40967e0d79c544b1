// Package narread reads one NAR at any offset, out of the container that a
// binary cache keeps it in, and vouches for every byte it gives.
//
// [Open] recognises the container by its first bytes (the narinfo's Compression
// may lie) and picks one of three ways to it:
//
//   - Direct. zstd in frames that state their size and carry a checksum, such as
//     narvault writes: a block is a frame; it is found in the seek table at the
//     end, or by walking the frames' headers, and its checksum is verified
//     whenever it is decoded. xz in blocks of up to 8 MiB with a check: they are
//     found by the indexes. Damage is damage of one block; of zstd that was cut
//     off, what is there can be read. The checksums are those of whoever made the
//     container: that he packed something else than NarHash says shows only when
//     all of it is read, by [Archive.WriteTo] (see below).
//   - Summed. No container at all, or zstd frames without checksums, such as
//     Nix since 2.35 writes, or xz blocks without a check: at the first use one
//     pass in order verifies the NarHash and keeps 64 bits of hash a block in
//     memory, against which every later read of the block is compared.
//   - Decoded. xz and zstd in larger pieces, and all others, cannot
//     be entered in the middle: they are decoded once, in order. Small ones become
//     one block of the cache. Larger ones go to a [spool.Dir], which keeps them
//     for other processes and for later; nothing of them is served before the
//     NarHash of the whole is verified (see the type spooled for why).
//
// What a pass has found out, [Archive.Layout] returns for the next time: with the
// hashes of its blocks, a summed container is a direct one, and of one that has
// to be decoded each block can be served as soon as it is there.
//
// So what is read of a direct container is what was packed into it, of the size
// that the narinfo says, but perhaps not what NarHash says. Hashes of its blocks
// from a pass would not change that for whoever has reason to care: they would lie
// in an index beside the archive, and who can forge a container that fits its
// narinfo can forge both. Against him only a signature helps, and that is one of
// the NarHash, which takes the whole NAR to compare: restoring, exporting and
// checking do. Against decay the container's own checksums are enough, and a pass before
// the first byte would be the end of random access. It is made where there is a
// reason: a container that is whole, but not of the FileSize that the narinfo says,
// is a summed one, as archives may have been mixed up.
//
// Decoded blocks are kept in a [Cache] that archives share. What is damaged is
// a [DamageError]; every other error comes from the medium or the machine, may
// pass, and is not remembered.
//
// Sub-packages know the formats: nar the archive, zseek the seek table, xz the
// .xz file.
package narread
