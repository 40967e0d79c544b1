package nar

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// wideNAR returns a NAR of a directory with n files in directories of a
// thousand.
func wideNAR(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	must(t, w.WriteHeader(Header{Type: Directory}))
	for i := range n {
		if i%1000 == 0 {
			must(t, w.WriteHeader(Header{Depth: 1, Name: fmt.Sprintf("%08d", i), Type: Directory}))
		}
		must(t, w.WriteHeader(Header{Depth: 2, Name: fmt.Sprintf("file-%08d", i), Type: Regular}))
	}
	must(t, w.Close())
	return b.Bytes()
}

// Making a listing takes little more than it has in the end, however large it is.
func TestListingMemory(t *testing.T) {
	const n = 200_000
	nar := wideNAR(t, n)
	packed := []byte(nil)
	measure := func(name string, limit uint64, f func() (*Listing, error)) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, err := f()
		runtime.ReadMemStats(&after)
		must(t, err)
		if got := (after.TotalAlloc - before.TotalAlloc) / n; l.Len() < n || got > limit {
			t.Errorf("%s: %d bytes an entry, want at most %d", name, got, limit)
		}
		packed, _ = l.AppendBinary(nil)
	}
	measure("from a NAR", 130, func() (*Listing, error) { return ReadListing(bytes.NewReader(nar), int64(len(nar))) })
	measure("from the binary form", 80, func() (*Listing, error) { return DecodeListing(packed) })
}

// Large listings are made one at a time, and others do not wait for them.
func TestLargeListingsTakeTurns(t *testing.T) {
	large, small := wideNAR(t, 2*freeSize/int(entrySize)), wideNAR(t, 100)
	read := func(nar []byte) *Listing {
		l, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
		if err != nil {
			t.Error(err)
		}
		return l
	}
	l := read(large)
	packed, err := l.AppendBinary(nil)
	must(t, err)

	making <- struct{}{} // somebody makes one
	done := make(chan bool, 2)
	go func() {
		read(large)
		done <- true
	}()
	go func() {
		if _, err := DecodeListing(packed); err != nil {
			t.Error(err)
		}
		done <- true
	}()
	read(small)
	for range 100 {
		runtime.Gosched()
	}
	if len(done) > 0 {
		t.Error("a large listing was made beside another one")
	}
	<-making
	<-done
	<-done
	if len(making) > 0 {
		t.Error("somebody still holds the right to make one")
	}
}
