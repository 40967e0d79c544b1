//go:build unix && !linux

package nar

import "golang.org/x/sys/unix"

// parseDirents appends what unix.ReadDirent has returned.
func parseDirents(buf []byte, found []foundEntry, names []byte) ([]foundEntry, []byte) {
	_, _, list := unix.ParseDirent(buf, -1, nil)
	for _, name := range list {
		names = append(names, name...)
		found = append(found, foundEntry{size: len(name)})
	}
	return found, names
}
