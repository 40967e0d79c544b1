package nar

import (
	"bytes"
	"testing"
)

func addSeeds(f *testing.F) {
	for _, v := range verdicts() {
		f.Add(v.nar)
	}
	for n := 0; n < len(sample()); n += 37 {
		f.Add(sample()[:n])
	}
}

// FuzzReader: no panic; what is read strictly is written again byte by byte,
// and is read tolerantly as the same.
func FuzzReader(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, nar []byte) {
		nodes, r, err := parse(nar, ReaderOptions{Strict: true})
		if err != nil {
			return
		}
		if !bytes.Equal(rewrite(t, nodes), nar[:r.Offset()]) {
			t.Error("written again, the NAR differs")
		}
		l, tr := tolerantListing(nar)
		if l.err != nil || tr.Deviation() != nil {
			t.Errorf("tolerant: %v, deviation %v", l.err, tr.Deviation())
		}
	})
}

// FuzzReadListing: no panic; it agrees with the tolerant Reader.
func FuzzReadListing(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, nar []byte) {
		want, r := tolerantListing(nar)
		got, err := ReadListing(bytes.NewReader(nar), int64(len(nar)))
		if accept := want.err == nil && r.Offset() == int64(len(nar)); (err == nil) != accept {
			t.Fatalf("ReadListing: %v; Reader: %v", err, want.err)
		}
		if err != nil {
			return
		}
		sameListing(t, "ReadListing", got, want.Listing)
		checkListing(t, got)
		for i := range got.Len() {
			if e := got.Entry(i); e.Offset+e.Size > int64(len(nar)) {
				t.Fatalf("entry %d is beyond the NAR: %+v", i, e)
			}
		}
	})
}
