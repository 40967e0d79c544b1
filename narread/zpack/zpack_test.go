package zpack

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

func newCodec(t testing.TB) *Codec {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func samples() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 1))
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	return map[string][]byte{
		"empty":  {},
		"one":    {7},
		"text":   []byte("StorePath: /nix/store/sh8025fhmz1wq27663bakmq915a2pf79-x\n"),
		"zeros":  make([]byte, 5<<20),
		"random": random,
	}
}

func TestPack(t *testing.T) {
	c := newCodec(t)
	for name, want := range samples() {
		packed := c.Pack([]byte("before"), want)
		rest, ok := bytes.CutPrefix(packed, []byte("before"))
		if !ok {
			t.Fatalf("%s: Pack does not append", name)
		}
		got, err := c.Unpack(rest, len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, size := range []int{-1, len(want) - 1, len(want) + 1} {
			if _, err := c.Unpack(rest, size); err == nil {
				t.Errorf("%s: unpacked to %d bytes instead of %d", name, size, len(want))
			}
		}
		for _, cut := range []int{len(rest) - 1, len(rest) / 2} {
			if _, err := c.Unpack(rest[:cut], len(want)); err == nil && len(want) > 0 {
				t.Errorf("%s: unpacked from %d bytes of %d", name, cut, len(rest))
			}
		}
	}
}

func TestConcurrent(t *testing.T) {
	c := newCodec(t)
	var wg sync.WaitGroup
	for range 8 {
		for _, want := range samples() {
			wg.Go(func() {
				if got, err := c.Unpack(c.Pack(nil, want), len(want)); err != nil || !bytes.Equal(got, want) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
}

// FuzzUnpack: no panic, and never another size than asked for.
func FuzzUnpack(f *testing.F) {
	c := newCodec(f)
	for _, s := range samples() {
		f.Add(c.Pack(nil, s), uint16(len(s)))
	}
	f.Fuzz(func(t *testing.T, packed []byte, size uint16) {
		if out, err := c.Unpack(packed, int(size)); err == nil && len(out) != int(size) {
			t.Errorf("%d bytes, want %d", len(out), size)
		}
	})
}
