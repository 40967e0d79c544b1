package densepack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/xz"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content returns n bytes of text and noise.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%d of %x\n", r.IntN(1000), r.IntN(100))
		if r.IntN(50) == 0 {
			b = append(b, bytes.Repeat([]byte{byte(len(b))}, r.IntN(500))...)
		}
	}
	return b[:n]
}

func noProgram(string) (string, error) { return "", errors.New("not here") }

func pack(t testing.TB, p *Packer, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := p.NewWriter(&out)
	_, err := w.Write(in)
	must(t, err)
	must(t, w.Close())
	if n := p.pool.InUse(); n != 0 {
		t.Errorf("%d pieces in use", n)
	}
	return out.Bytes()
}

// TestPack packs with the programs and with the libraries; the programs unpack.
func TestPack(t *testing.T) {
	testenv.Need(t, "xz", "bzip2")
	for _, compression := range []string{"xz", "bzip2"} {
		for _, by := range []struct {
			find  func(string) (string, error)
			sizes []int
		}{
			{program, []int{0, 1, 1000, bzip2Stream, xzBlock, xzBlock + 1, 2_500_000}},
			{noProgram, []int{0, 1000, xzBlock + 1}}, // the libraries are slow under the race detector
		} {
			one, err := newPacker(compression, 1, 1, by.find)
			must(t, err)
			three, err := newPacker(compression, 1, 3, by.find)
			must(t, err)
			for _, n := range by.sizes {
				in := content(n)
				file := pack(t, one, in)
				what := fmt.Sprintf("%s by %s, %d bytes", compression, one.Tool(), n)
				if !bytes.Equal(file, pack(t, three, in)) {
					t.Errorf("%s: another file with more workers", what)
				}
				if n == 0 && compression == "bzip2" {
					continue // no NAR is empty
				}
				if got := testenv.RunInput(t, t.TempDir(), file, compression, "-dc"); got != string(in) {
					t.Errorf("%s: %d other bytes", what, len(got))
				}
				if compression == "xz" {
					blocks, err := xz.ReadIndex(bytes.NewReader(file), int64(len(file)), 10)
					if want := (n + xzBlock - 1) / xzBlock; err != nil || len(blocks) != want {
						t.Errorf("%s: %d blocks, want %d, %v", what, len(blocks), want, err)
					}
				}
			}
		}
	}
}

func TestLevels(t *testing.T) {
	in := content(100_000)
	sizes := map[string]int{}
	for _, compression := range []string{"xz", "bzip2"} {
		for _, level := range []int{0, 1, 9} {
			p, err := New(compression, level, 1)
			must(t, err)
			sizes[fmt.Sprint(compression, level)] = len(pack(t, p, in))
		}
	}
	if sizes["xz0"] >= sizes["xz1"] {
		t.Errorf("no difference: %v", sizes)
	}
	for _, tt := range []struct {
		compression string
		level       int
	}{{"xz", 10}, {"xz", -1}, {"bzip2", 10}, {"zstd", 1}} {
		if _, err := New(tt.compression, tt.level, 1); err == nil {
			t.Errorf("%v: no error", tt)
		}
	}
}

// script returns the path of a program that works for the first piece, which New
// tries, and then does what the given shell commands do.
func script(t *testing.T, then string) func(string) (string, error) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tool")
	text := "#!/bin/sh\nif [ ! -e " + dir + "/tried ]; then : > " + dir + "/tried; exec xz \"$@\"; fi\n" + then + "\n"
	must(t, os.WriteFile(path, []byte(text), 0o755))
	return func(string) (string, error) { return path, nil }
}

// TestProgramFails wants the error of a program that fails or lies, and nothing
// left in use.
func TestProgramFails(t *testing.T) {
	testenv.Need(t, "xz")
	for then, want := range map[string]string{
		"echo no memory >&2; exit 3": "exit status 3: no memory",
		"kill -9 $$":                 "killed",
		"xz \"$@\"; exit 1":          "exit status 1",
		"true":                       "does not decode",
		"xz \"$@\" | head -c 1000":   "does not decode",
		"tr a-z A-Z | xz \"$@\"":     "does not decode",
		"xz \"$@\" > /dev/null; xz \"$@\" < /dev/null; exit 0": "does not decode",
	} {
		p, err := newPacker("xz", 1, 2, script(t, then))
		must(t, err)
		w := p.NewWriter(io.Discard)
		_, err = w.Write(content(5_000_000))
		if err == nil {
			err = w.Close()
		} else {
			w.Abort()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/tool") {
			t.Errorf("%s: %v, want %q", then, err, want)
		}
		if n := p.pool.InUse(); n != 0 {
			t.Errorf("%s: %d pieces in use", then, n)
		}
	}
}

// TestNoUse has programs that cannot compress: the library is taken, and said.
func TestNoUse(t *testing.T) {
	for _, text := range []string{"#!/bin/sh\necho unrecognised option >&2\nexit 1\n", "#!/bin/sh\nexit 0\n"} {
		path := filepath.Join(t.TempDir(), "xz")
		must(t, os.WriteFile(path, []byte(text), 0o755))
		p, err := newPacker("xz", 0, 1, func(string) (string, error) { return path, nil })
		must(t, err)
		if !strings.Contains(p.Tool(), "library ulikunitz/xz") || !strings.Contains(p.Tool(), path) {
			t.Error(p.Tool())
		}
		pack(t, p, content(1000))
	}
}

// TestEnvironment wants the same file whatever the user has set for xz.
func TestEnvironment(t *testing.T) {
	testenv.Need(t, "xz", "bzip2")
	in := content(50_000)
	for _, compression := range []string{"xz", "bzip2"} {
		p, err := New(compression, 6, 1)
		must(t, err)
		want := pack(t, p, in)
		for _, name := range []string{"XZ_OPT", "XZ_DEFAULTS", "BZIP2", "BZIP"} {
			t.Setenv(name, "-1")
		}
		if !bytes.Equal(pack(t, p, in), want) {
			t.Errorf("%s: another file", compression)
		}
	}
}
