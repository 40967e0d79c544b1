package narread

import (
	"errors"
	"io"
	"testing"
)

// zerosBehind is a file that goes on with zeros for ever.
type zerosBehind struct{ file []byte }

func (z zerosBehind) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.file)) {
		copy(p, z.file[off:])
	}
	return len(p), nil
}

// Zeros behind an xz file are padding; so much of it that reading it takes hours
// is damage.
func TestEndlessPadding(t *testing.T) {
	n := makeNAR(t, 100_000)
	for _, p := range packers() {
		if p.compression == "none" {
			continue // its size is NarSize
		}
		a, err := Open(zerosBehind{p.pack(t, n)}, 1<<40, optionsFor(n, p.compression))
		if err == nil {
			_, err = a.WriteTo(io.Discard)
		}
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: %v, want damage", p.name, err)
		}
	}
}
