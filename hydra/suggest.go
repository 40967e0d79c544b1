package hydra

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// suggest completes a message about a name that is not known by the known ones:
// the nearest, if one is near, else the first few.
func suggest(name string, known []string) string {
	if near := nearest(name, known); near != "" && distance(strings.ToLower(name), strings.ToLower(near)) <= max(2, len(name)/3) {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	const few = 10
	switch {
	case len(known) == 0:
		return ": it has none"
	case len(known) > few:
		return fmt.Sprintf(": it has %s and %d more", strings.Join(known[:few], ", "), len(known)-few)
	}
	return ": it has " + strings.Join(known, ", ")
}

// nearest returns the most similar of the known names, "" if there are none.
func nearest(name string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	return slices.MinFunc(known, func(a, b string) int {
		return distance(strings.ToLower(name), strings.ToLower(a)) - distance(strings.ToLower(name), strings.ToLower(b))
	})
}

// distance is Levenshtein's, over the first bytes of names that are longer than
// any sensible one.
func distance(a, b string) int {
	const sensible = 200
	a, b = a[:min(len(a), sensible)], b[:min(len(b), sensible)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
