package nar

import "unsafe"

// A listing of millions of entries takes hundreds of megabytes while it is made,
// and whoever sends an archive says how many it has. In this process, one that
// is larger than this many bytes is made at a time.
const freeSize = 2 << 20

// making is held, by sending to it, by who makes a large listing.
var making = make(chan struct{}, 1)

// largeListing is a part of making one listing. The zero value holds nothing.
type largeListing struct{ held bool }

// grown waits until a listing of so many bytes may be made.
func (l *largeListing) grown(size int64) {
	if !l.held && size > freeSize {
		making <- struct{}{}
		l.held = true
	}
}

// done ends it.
func (l *largeListing) done() {
	if l.held {
		<-making
		l.held = false
	}
}

// entrySize is what an entry takes in a Listing, without its name.
const entrySize = int64(unsafe.Sizeof(entry{}))

// memSize returns about how many bytes the Builder holds.
func (b *Builder) memSize() int64 { return int64(b.entries.len())*(entrySize+4) + int64(b.text.size) }
