package backup

import (
	"maps"
	"slices"
	"strings"
)

// packageName returns the package part of a Nix name, as builtins.parseDrvName
// has it: up to the first dash that is not followed by a letter.
func packageName(nixName string) string {
	for i := range len(nixName) - 1 {
		if nixName[i] == '-' && !isLetter(nixName[i+1]) {
			return nixName[:i]
		}
	}
	return nixName
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func trimDrv(name string) string { return strings.TrimSuffix(name, ".drv") }

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
