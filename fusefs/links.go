package fusefs

import (
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// maxTarget is the longest symlink target that Linux handles (PATH_MAX without
// the zero byte).
const maxTarget = 4095

// relink returns target as the mount shows it. A target that begins with the
// store directory, a slash and the name of a store path that is held becomes
// relative to the link, which lies depth levels below the directory that holds
// the store paths, 0 for a store path that is itself a symlink. It then
// resolves inside the mount, in releases/ and store/ alike. Anything else, and
// what would become too long, is returned as it is.
func relink(target, storeDir string, depth int, held func(storepath.Path) bool) string {
	below, ok := strings.CutPrefix(target, storeDir+"/")
	if !ok {
		return target
	}
	base, _, _ := strings.Cut(below, "/")
	if 3*depth+len(below) > maxTarget {
		return target
	}
	p, err := storepath.Parse(base)
	if err != nil || !held(p) {
		return target
	}
	return strings.Repeat("../", depth) + below
}
