package storepath

import "strings"

// maxTarget is the longest symlink target that Linux handles (PATH_MAX without
// the zero byte).
const maxTarget = 4095

// Relink returns the target of a symlink as it is where store paths lie side by
// side in another directory than storeDir. A target that begins with storeDir,
// a slash and the name of a store path that is held there becomes relative to
// the link, which lies depth levels below that directory, 0 for a store path
// that is itself a symlink. Anything else, and what would become too long, is
// returned as it is.
func Relink(target, storeDir string, depth int, held func(Path) bool) string {
	below, ok := strings.CutPrefix(target, storeDir+"/")
	if !ok {
		return target
	}
	base, _, _ := strings.Cut(below, "/")
	if 3*depth+len(below) > maxTarget {
		return target
	}
	p, err := Parse(base)
	if err != nil || !held(p) {
		return target
	}
	return strings.Repeat("../", depth) + below
}
