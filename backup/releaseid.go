package backup

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A ReleaseID names a release, as Hydra does: a project and a name in it.
type ReleaseID struct {
	Project string
	Name    string
}

// maxNamePart is the longest project or release name, in bytes: with what
// narvault adds to it, it fits the 255 bytes of a file name.
const maxNamePart = 200

// ErrReleaseID is wrapped by the errors of ParseReleaseID.
var ErrReleaseID = errors.New("is no PROJECT/NAME")

// ParseReleaseID splits PROJECT/NAME at the first slash. Both are file names:
// 1 to 200 bytes of printable UTF-8 without slash and without leading dot.
func ParseReleaseID(s string) (ReleaseID, error) {
	project, name, found := strings.Cut(s, "/")
	if !found {
		return ReleaseID{}, fmt.Errorf("release %q %w: it has no slash", s, ErrReleaseID)
	}
	for _, part := range []string{project, name} {
		if fault := partFault(part); fault != "" {
			return ReleaseID{}, fmt.Errorf("release %q %w: %q %s", s, ErrReleaseID, part, fault)
		}
	}
	return ReleaseID{Project: project, Name: name}, nil
}

func partFault(part string) string {
	switch {
	case part == "":
		return "is empty"
	case len(part) > maxNamePart:
		return fmt.Sprintf("has more than %d bytes", maxNamePart)
	case part[0] == '.':
		return "begins with a dot"
	case !utf8.ValidString(part):
		return "is not UTF-8"
	case strings.Contains(part, "/"):
		return "has a slash"
	case strings.ContainsFunc(part, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "has a character that cannot be printed"
	}
	return ""
}

func (id ReleaseID) String() string { return id.Project + "/" + id.Name }

// MarshalText returns String.
func (id ReleaseID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseReleaseID.
func (id *ReleaseID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseReleaseID(string(text))
	return err
}
