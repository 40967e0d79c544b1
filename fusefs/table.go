package fusefs

import (
	"fmt"
	"slices"
	"sync"
)

// A table numbers keys from 1 in the order in which they come. A number is
// never given to another key while the table lives, so that the kernel's copy
// of a node stays right. When the first keys come sorted, an unchanged backup
// has the same numbers in every mount.
//
// The keys that come first, sorted, are found by bisection, which costs no
// memory; only later ones are in a map.
type table[K comparable] struct {
	what    string // "store paths": for the error
	max     int
	compare func(a, b K) int // nil: all keys are in the map

	mu      sync.RWMutex
	keys    []K        // guarded by mu; number i+1 is keys[i]
	sorted  int        // guarded by mu; so many of keys are found by bisection
	numbers map[K]int  // guarded by mu; of the others, and of those that got another number
	retired map[K]bool // guarded by mu; those among the sorted that have no number now
}

func newTable[K comparable](what string, max int) *table[K] {
	return &table[K]{what: what, max: max, numbers: make(map[K]int), retired: make(map[K]bool)}
}

// intern returns the numbers of keys, new ones for those that have none.
func (t *table[K]) intern(keys []K) ([]int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) == 0 && len(keys) <= t.max && t.compare != nil && ascending(keys, t.compare) {
		t.keys, t.sorted = slices.Clip(keys), len(keys) // nobody modifies it, and append copies it
	}
	nums := make([]int, len(keys))
	last := 0
	for i, k := range keys {
		n, ok := t.find(k, last)
		if !ok {
			if len(t.keys) >= t.max {
				return nil, fmt.Errorf("number %d %s: %w", len(keys), t.what, errTooMany)
			}
			t.keys = append(t.keys, k)
			n = len(t.keys)
			t.numbers[k] = n
		}
		nums[i], last = n, n
	}
	return nums, nil
}

// ascending reports whether keys are sorted and all different.
func ascending[K any](keys []K, compare func(a, b K) int) bool {
	for i := 1; i < len(keys); i++ {
		if compare(keys[i-1], keys[i]) >= 0 {
			return false
		}
	}
	return true
}

// find returns the number of k, at once if it follows the number before. Needs
// mu.
func (t *table[K]) find(k K, before int) (int, bool) {
	if n, ok := t.numbers[k]; ok {
		return n, true
	}
	if before < t.sorted && t.keys[before] == k {
		return before + 1, !t.retired[k]
	}
	if t.sorted == 0 {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(t.keys[:t.sorted], k, t.compare)
	return i + 1, ok && !t.retired[k]
}

// number returns the number of k.
func (t *table[K]) number(k K) (int, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.find(k, t.sorted)
	if !ok {
		return 0, false
	}
	return n, true
}

// key returns what n is the number of, also when it was retired.
func (t *table[K]) key(n int) (k K, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n < 1 || n > len(t.keys) {
		return k, false
	}
	return t.keys[n-1], true
}

// retire takes numbers out of use: should their keys come back, they get new
// ones, because what they name may then be something else.
func (t *table[K]) retire(nums []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range nums {
		k := t.keys[n-1]
		if now, ok := t.find(k, t.sorted); !ok || now != n {
			continue
		}
		delete(t.numbers, k)
		if n <= t.sorted {
			t.retired[k] = true
		}
	}
}
