// Package zseek writes zstd files that can be entered at any frame, and reads
// and writes the table that says where the frames are.
//
// A file is a row of independent zstd frames of [FrameSize] bytes of input each
// (the last one is shorter), followed by a seek table:
//
//	file   = { frame }, table
//	frame  = one zstd frame: single segment, Frame_Content_Size, Content_Checksum
//	         (low 32 bits of XXH64), no dictionary
//	table  = u32 0x184D2A5E, u32 size of what follows,
//	         { u32 compressed size, u32 decompressed size [, u32 checksum] }, footer
//	footer = u32 number of frames, u8 descriptor, u32 0x8F92EAB1
//
// All integers are little endian. The table is a skippable frame of the zstd
// format (RFC 8878, 3.1.2), so every zstd decoder, Nix's included, reads such a
// file as an ordinary .zst and never sees the table. It is the "zstd seekable
// format" 0.1.0 of facebook/zstd, contrib/seekable_format. The descriptor's bit
// 7 says whether the entries carry checksums; ours do not, because the frames
// themselves do. Bits 2 to 6 must be zero.
//
// Frames of 256 KiB cost size: on Linux distribution packages 4 % against
// frames of 1 MiB, and 8 to 9 % against one frame for the whole file (libzstd
// level 3, both measured). They make a random read three times faster than
// frames of 1 MiB do, which is what a mounted backup lives on.
package zseek
