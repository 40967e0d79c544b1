//go:build !race

package check

// stride is which bytes TestEveryByteFlipped flips: all.
const stride = 1
