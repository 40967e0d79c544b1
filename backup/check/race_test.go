//go:build race

package check

// stride is which bytes TestEveryByteFlipped flips: under the race detector it
// would take minutes for all.
const stride = 16
