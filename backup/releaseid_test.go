package backup

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReleaseID(t *testing.T) {
	long := strings.Repeat("x", maxNamePart)
	for _, c := range []struct {
		name, in string
		want     ReleaseID // zero: refused
	}{
		{"plain", "disnix/disnix-0.3", ReleaseID{"disnix", "disnix-0.3"}},
		{"spaces and letters of the world", "Größe/β 1.0", ReleaseID{"Größe", "β 1.0"}},
		{"longest", long + "/" + long, ReleaseID{long, long}},
		{"dots inside", "a..b/c.", ReleaseID{"a..b", "c."}},
		{"no slash", "disnix", ReleaseID{}},
		{"two slashes", "a/b/c", ReleaseID{}},
		{"no project", "/b", ReleaseID{}},
		{"no name", "a/", ReleaseID{}},
		{"dot dot project", "../b", ReleaseID{}},
		{"dot dot name", "a/..", ReleaseID{}},
		{"hidden", "a/.b", ReleaseID{}},
		{"newline", "a/b\n", ReleaseID{}},
		{"NUL", "a/b\x00", ReleaseID{}},
		{"escape", "a/\x1b[31m", ReleaseID{}},
		{"right-to-left override", "a/\u202eb", ReleaseID{}},
		{"not UTF-8", "a/\xff", ReleaseID{}},
		{"too long", "a/" + long + "x", ReleaseID{}},
		{"empty", "", ReleaseID{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseReleaseID(c.in)
			if got != c.want || (err == nil) == (c.want == ReleaseID{}) {
				t.Errorf("ParseReleaseID(%q) = %v, %v", c.in, got, err)
			}
			if err != nil && !errors.Is(err, ErrReleaseID) {
				t.Errorf("%v is not ErrReleaseID", err)
			}
		})
	}
}
