package nar

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// parseDirents appends what getdents64(2) has returned: for each entry
//
//	inode [8]byte, offset [8]byte, length of the record uint16, type byte, name, NUL
//
// in the byte order of the machine.
func parseDirents(buf []byte, found []foundEntry, names []byte) ([]foundEntry, []byte) {
	const header = 19
	for len(buf) >= header {
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < header || size > len(buf) {
			break
		}
		name := buf[header:size]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		names = append(names, name...)
		found = append(found, foundEntry{len(name), direntType(buf[18])})
		buf = buf[size:]
	}
	return found, names
}

// direntType returns 0, for "ask", also for what cannot be dumped.
func direntType(t byte) Type {
	switch t {
	case unix.DT_REG:
		return Regular
	case unix.DT_DIR:
		return Directory
	case unix.DT_LNK:
		return Symlink
	}
	return 0
}
