package narread

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestStrangeFile reads containers that are not of the size that the narinfo says.
// Those that are whole are compared with the NarHash before anything is read of
// them; of those that are cut off, what is there can be read.
func TestStrangeFile(t *testing.T) {
	n := makeNAR(t, 700_000, 500_000)
	other := bytes.Clone(n)
	other[len(n)/2] ^= 1
	for _, p := range []packer{own, xzInBlocks, pieces(zstdSums, 300_000, "zstd frames")} {
		for _, tt := range []struct {
			what     string
			nar      []byte
			fileSize int64 // more than it has
			cache    int64
			good     bool
		}{
			{"the right NAR", n, 1, 1 << 20, true},
			{"the right NAR, in one block of the cache", n, 1, 32 << 20, true},
			{"another NAR", other, 1, 1 << 20, false},
			{"another NAR, in one block of the cache", other, 1, 32 << 20, false},
			{"another NAR in a file of the right size", other, 0, 1 << 20, true}, // package comment
		} {
			t.Run(p.name+", "+tt.what, func(t *testing.T) {
				file := p.pack(t, tt.nar)
				o := optionsFor(n, p.compression)
				o.Cache, o.FileSize = NewCache(tt.cache), int64(len(file))+tt.fileSize
				readStrange(t, file, tt.nar, o, tt.good)
				o.Layout = open(t, file, optionsFor(n, p.compression)).Layout()
				readStrange(t, file, tt.nar, o, tt.good)
			})
		}
	}
	file := packOwn(t, n)
	o := optionsFor(n, "zstd")
	o.FileSize = int64(len(file))
	buf := make([]byte, 1000)
	if _, err := open(t, file[:len(file)/2], o).ReadAt(buf, 0); err != nil || !bytes.Equal(buf, n[:1000]) {
		t.Errorf("one that was cut off: %v", err)
	}
}

func readStrange(t *testing.T, file, n []byte, o Options, good bool) {
	t.Helper()
	a := open(t, file, o)
	if a.RandomAccess() != (o.FileSize == int64(len(file))) {
		t.Errorf("random access: %v", a.RandomAccess())
	}
	buf := make([]byte, 1000)
	_, err := a.ReadAt(buf, 100_000)
	if good {
		if err != nil || !bytes.Equal(buf, n[100_000:101_000]) {
			t.Errorf("wrong bytes, error %v", err)
		}
		_, err = a.Listing()
		must(t, err)
		return
	}
	if wantDamage(t, "read", err); err == nil || !strings.Contains(fmt.Sprint(err), "NarHash") {
		t.Errorf("error %v", err)
	}
	_, err = a.Listing()
	wantDamage(t, "list", err)
	_, err = a.WriteTo(io.Discard)
	wantDamage(t, "write", err)
}
