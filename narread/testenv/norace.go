//go:build !race

package testenv

// Thin returns 1.
func Thin(int) int { return 1 }
