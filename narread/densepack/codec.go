package densepack

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	encbzip2 "github.com/dsnet/compress/bzip2"
	"github.com/ulikunitz/xz/lzma"

	"github.com/narvault/narvault/narread/packing"
	"github.com/narvault/narvault/narread/xz"
)

// codec compresses a piece.
type codec struct {
	program string
	args    []string
	library string
	encode  func(dst io.Writer, src []byte) error  // of the library
	wrap    func(dst, src, packed []byte) []byte   // appends packed as a piece of the file
	verify  func(piece, src, scratch []byte) error // that it decodes to src
}

// choose returns how to compress, and says by what.
func (c *codec) choose(find func(string) (string, error)) (packing.Encode, string) {
	path, err := find(c.program)
	if err == nil {
		encode := c.byProgram(path)
		// Others than the usual ones may have that name, and know less.
		if _, err = encode(nil, []byte("try")); err == nil {
			return encode, path
		}
	}
	return c.byLibrary, fmt.Sprintf("the library %s, as there is no program (%v)", c.library, err)
}

func program(name string) (string, error) { return exec.LookPath(name) }

// byProgram returns an Encode that runs a program for each piece.
func (c *codec) byProgram(path string) packing.Encode {
	return func(dst, src []byte) ([]byte, error) {
		cmd := exec.Command(path, c.args...)
		// What the user has set there must not change the files.
		cmd.Env = append(os.Environ(), "XZ_OPT=", "XZ_DEFAULTS=", "BZIP=", "BZIP2=", "LC_ALL=C")
		cmd.Stdin = bytes.NewReader(src)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s: %w%s", path, err, said(stderr.String()))
		}
		return c.finish(dst, src, out.Bytes(), path)
	}
}

// said is what a program wrote to standard error, for an error message.
func said(text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(text, "\n", "; ")
}

func (c *codec) byLibrary(dst, src []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := c.encode(&out, src); err != nil {
		return nil, fmt.Errorf("%s: %w", c.library, err)
	}
	return c.finish(dst, src, out.Bytes(), c.library)
}

// finish appends the piece, once it is known to be right.
func (c *codec) finish(dst, src, packed []byte, by string) ([]byte, error) {
	at := len(dst)
	dst = c.wrap(dst, src, packed)
	if err := c.verify(dst[at:], src, make([]byte, len(src))); err != nil {
		return nil, fmt.Errorf("%s returns what does not decode to what it was given: %w", by, err)
	}
	return dst, nil
}

func xzCodec(level int) codec {
	if level == 0 {
		level = 6
	}
	return codec{
		program: "xz", library: "ulikunitz/xz",
		args: []string{"--compress", "--stdout", "--format=raw", "--threads=1",
			fmt.Sprintf("--lzma2=preset=%d,dict=%d", level, 1<<xzDictBits)},
		encode: func(dst io.Writer, src []byte) error {
			w, err := lzma.Writer2Config{DictCap: 1 << xzDictBits}.NewWriter2(dst)
			return written(w, err, src)
		},
		wrap: func(dst, src, packed []byte) []byte {
			return xz.AppendBlock(dst, src, packed, xz.CheckCRC64, xzDictBits)
		},
		verify: func(piece, src, scratch []byte) error {
			// The CRC64 in it is that of src.
			return new(xz.Decoder).Block(xz.BlockOf(piece, xz.CheckCRC64), scratch, piece)
		},
	}
}

func bzip2Codec(level int) codec {
	if level == 0 {
		level = 9
	}
	return codec{
		program: "bzip2", library: "dsnet/compress",
		args: []string{"--compress", "--stdout", fmt.Sprintf("-%d", level)},
		encode: func(dst io.Writer, src []byte) error {
			w, err := encbzip2.NewWriter(dst, &encbzip2.WriterConfig{Level: level})
			return written(w, err, src)
		},
		wrap: func(dst, _, packed []byte) []byte { return append(dst, packed...) },
		verify: func(piece, src, scratch []byte) error {
			r := bzip2.NewReader(bytes.NewReader(piece))
			if _, err := io.ReadFull(r, scratch); err != nil {
				return err
			}
			if n, err := r.Read(make([]byte, 1)); n > 0 || err != io.EOF || !bytes.Equal(scratch, src) {
				return errors.New("other content")
			}
			return nil
		},
	}
}

// written writes all of src to w, and closes it.
func written(w io.WriteCloser, err error, src []byte) error {
	if err != nil {
		return err
	}
	if _, err := w.Write(src); err != nil {
		return err
	}
	return w.Close()
}
