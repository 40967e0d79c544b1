package narread

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

// TestDecompress reads what the real programs made, whole and damaged.
func TestDecompress(t *testing.T) {
	text := []byte(strings.Repeat("building '/nix/store/...'\n", 10_000))
	for _, tt := range []struct{ compression, program string }{{"none", "cat"}, {"bzip2", "bzip2"}, {"zstd", "zstd"}, {"xz", "xz"}, {"gzip", "gzip"}} {
		t.Run(tt.compression, func(t *testing.T) {
			testenv.Need(t, tt.program)
			packed := []byte(testenv.RunInput(t, ".", text, tt.program, "-"))
			if got, err := decompress(packed, tt.compression); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes of %d, %v", len(got), len(text), err)
			}
			if tt.compression == "none" {
				return
			}
			var damage *DamageError
			if _, err := decompress(packed[:len(packed)*2/3], tt.compression); !errors.As(err, &damage) {
				t.Errorf("cut off: %v", err)
			}
			packed[len(packed)/2] ^= 0x10
			if _, err := decompress(packed, tt.compression); !errors.As(err, &damage) {
				t.Errorf("damaged: %v", err)
			}
			if _, err := decompress(nil, tt.compression); !errors.As(err, &damage) {
				t.Errorf("empty: %v", err)
			}
		})
	}
	if _, err := decompress(nil, "rot13"); err == nil {
		t.Error("rot13 is known")
	}
}

func decompress(packed []byte, compression string) ([]byte, error) {
	r, err := Decompress(bytes.NewReader(packed), int64(len(packed)), "log", compression)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
