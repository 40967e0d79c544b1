//go:build race

package testenv

// Thin returns n under the race detector, else 1. A test of many steps of one
// kind, in which goroutines do not meet in other ways, makes every nth of them
// there: it takes ten times as long. All of them are made in the runs without it.
func Thin(n int) int { return n }
