package xz

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"testing"

	ulixz "github.com/ulikunitz/xz"
	oracle "github.com/ulikunitz/xz/lzma"
)

// maxFuzz bounds what an input may decode to.
const maxFuzz = 1 << 20

// FuzzXZContainer decodes arbitrary files. Nothing may panic; the ways to decode
// agree; what we decode, the xz program decodes to the same; and where ulikunitz/xz
// knows better, that is a filter or a check that it does not have, or a file that
// is cut off, which it does not notice.
func FuzzXZContainer(f *testing.F) {
	for _, file := range smallFiles(f) {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(file), 1<<24), maxFuzz))
		if len(got) == maxFuzz {
			return
		}
		if _, err := WalkBlocks(bytes.NewReader(file), int64(len(file)), 100); err != nil {
			t.Errorf("WalkBlocks: %v", err)
		}
		blocks, berr := byBlocks(file)
		if (err == nil) != (berr == nil) && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("in order: %v, by blocks: %v", err, berr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got, blocks) {
			t.Errorf("in order: %d bytes, by blocks: %d bytes", len(got), len(blocks))
		}
		if want, err := xzProgram(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, xz gives %d, %v", len(got), len(want), err)
		}
		if want, err := ulikunitz(file); err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, ulikunitz/xz gives %d", len(got), len(want))
		}
	})
}

// xzProgram runs xz. (A check that nobody can verify is a warning to it, as it is
// none to us.)
func xzProgram(file []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("xz", append([]string{"-dc", "--no-warn"}, args...)...)
	cmd.Stdin = bytes.NewReader(file)
	return cmd.Output()
}

func ulikunitz(file []byte) ([]byte, error) {
	r, err := ulixz.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// FuzzLZMA2 decodes arbitrary LZMA2 data in both ways, with the xz program, and
// with ulikunitz/xz: what we decode, that they decode to the same. (The latter also
// takes data that are cut off where they must not be; see TestAgainstXz.)
func FuzzLZMA2(f *testing.F) {
	packed := chunkOf(f, content(500, 3))
	for _, s := range []string{
		"\x00", stored(1, "hello") + "\x00", stored(1, "hel") + stored(2, "lo") + "\x00", packed + "\x00",
		stored(1, "sixteen bytes..\x00") + "\xc0" + packed[1:] + "\x00", packed + packed + "\x00",
		chunkOf(f, bytes.Repeat([]byte("abc"), 300)) + "\x00", chunkOf(f, machineCode(500)) + "\x00",
	} {
		f.Add([]byte(s))
	}
	const dict = 1 << 20
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(fileOf(CheckNone, []uint64{0}, append(lzma2Header(), data...))), dict)
		// The index does not say the size: what counts is what comes before it.
		got, err := io.ReadAll(io.LimitReader(r, maxFuzz))
		if len(got) == maxFuzz || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		whole := r.data.ended && r.data.packed == int64(len(data))
		var d Decoder
		d.begin(dict)
		dst := make([]byte, len(got))
		if ferr := d.flat(dst, data, len(data)); (ferr == nil) != whole {
			t.Errorf("in order: whole %v (%v), at once: %v", whole, err, ferr)
		} else if whole && !bytes.Equal(got, dst) {
			t.Errorf("in order and at once: other bytes")
		}
		if !whole {
			return
		}
		if want, err := xzProgram(data, "--format=raw", "--lzma2=dict=1MiB"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, xz gives %d, %v", len(got), len(want), err)
		}
		if want, err := ulikunitzLZMA2(data, dict); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, ulikunitz/xz gives %d, %v", len(got), len(want), err)
		}
	})
}

func ulikunitzLZMA2(data []byte, dict int) ([]byte, error) {
	r, err := oracle.Reader2Config{DictCap: dict}.NewReader2(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxFuzz))
}
