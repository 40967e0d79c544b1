package main

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "512B": 512, "4k": 4096, "4K": 4096, "64MiB": 64 << 20, "64M": 64 << 20, "64 MiB": 64 << 20,
		"64MB": 64e6, "1.5G": 3 << 29, "2TiB": 2 << 40, "3kB": 3000, "1KiB": 1024,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q: %d, %v, want %d", text, s, err, want)
		}
		var again byteSize
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q is written %q, which is %d", text, s, again)
		}
	}
	for _, text := range []string{"", "x", "-1", "1X", "1iB", "1Bi", "1BB", "1MM", "M", "1e400", "9999999T", "NaN", "1 2", "inf", "1i"} {
		var s byteSize
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, s)
		}
	}
}
