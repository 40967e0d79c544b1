// Package xz reads .xz files: block by block, wherever a block lies, or as a
// stream from beginning to end. It decodes LZMA2 some two times as fast as
// other decoders in Go, and believes nothing that it has not verified.
//
//   - [ReadIndex] finds the blocks of a file from its end, by the indexes of its
//     streams; [WalkBlocks] finds what it can when that end is missing.
//   - [Decoder] decodes one block from memory into memory.
//   - [Reader] decodes a file of any kind in order.
//   - [AppendBlock] and [Stream] make a file of LZMA2 data that others made.
//
// The format is "The .xz File Format" 1.2.1 (tukaani.org/xz/xz-file-format.txt):
//
//	file   = stream, { padding, stream }, padding
//	stream = header, { block }, index, footer
//	header = FD 37 7A 58 5A 00, flags (00, check), crc32(flags)
//	block  = block header, LZMA2 data, padding, check
//	index  = 00, count, { unpadded size, uncompressed size }, padding, crc32
//	footer = crc32(of what follows), u32 size of the index / 4 - 1, flags, 59 5A
//
// Paddings are of zeros, to a multiple of four bytes. LZMA2 is a row of chunks,
// each of which has up to 2 MiB of content and is stored, or packed with LZMA
// into at most 64 KiB; both are specified by the LZMA SDK (7-zip.org/sdk.html)
// and by liblzma.
//
// Every checksum, size and padding is verified, and those that are stated twice
// are compared. Checks are none, CRC32, CRC64 and SHA-256; a check that the
// format reserves for later is passed over like none, as the xz program does
// ([Check.Verified] tells). Filters are LZMA2, delta, and BCJ for x86, PowerPC,
// IA-64, ARM, ARM-Thumb, SPARC and ARM64. Everything else is an error that
// wraps errors.ErrUnsupported.
//
// No input makes it panic or use more memory than the caller allows. Errors of
// the format are of type *Error; errors of reading are passed on.
package xz
