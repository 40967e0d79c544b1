package narinfo

import (
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
)

func TestParseCA(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"text:" + h32, true},
		{"fixed:" + h32, true},
		{"fixed:r:" + h32, true},
		{"fixed:r:sha1:" + strings.Repeat("0", 40), true},
		{"fixed:git:sha1:" + strings.Repeat("0", 40), true},
		{"fixed:md5:" + strings.Repeat("0", 32), true},
		{"text:md5:" + strings.Repeat("0", 32), false},
		{"fixed:sha256:0", false},
		{"fixed:crc:00", false},
		{"", false},
		{"nonsense", false},
	} {
		if _, err := ParseCA(c.text); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}

// However the NAR is cut, what is zeroed and where is the same.
func TestModuloHash(t *testing.T) {
	self := strings.Repeat("s", storepath.HashLen)
	text := "a" + self + strings.Repeat("b", 50) + self + self + "end" + self[1:]
	zeroed := strings.ReplaceAll(text, self, strings.Repeat("\x00", len(self)))
	digest, err := ParseDigest(h32)
	if err != nil {
		t.Fatal(err)
	}
	with, without := digest.New(), digest.New()
	with.Write([]byte(zeroed + "|1|83|115"))
	without.Write([]byte(zeroed))
	for step := 1; step <= len(text); step++ {
		for _, want := range []Digest{digest.Of(with), digest.Of(without)} {
			m := NewModuloHash(digest, self)
			for rest := text; rest != ""; {
				n := min(step, len(rest))
				m.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if !m.Is(want) {
				t.Fatalf("in steps of %d: wrong", step)
			}
		}
	}
	m := NewModuloHash(digest, self)
	m.Write([]byte(text + "x"))
	if m.Is(digest.Of(with)) || m.Is(digest.Of(without)) {
		t.Error("another text has the same hash")
	}
}
