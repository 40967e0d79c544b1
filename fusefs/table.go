package fusefs

import (
	"fmt"
	"sync"
)

// A table numbers keys from 1 in the order in which they come. A number is
// never given to another key while the table lives, so that the kernel's copy
// of a node stays right. When the first keys come sorted, an unchanged backup
// has the same numbers in every mount.
type table[K comparable] struct {
	what string // "store paths": for the error
	max  int

	mu      sync.RWMutex
	keys    []K       // guarded by mu; number i+1 is keys[i]
	numbers map[K]int // guarded by mu; of the keys that were not retired
}

func newTable[K comparable](what string, max int) *table[K] {
	return &table[K]{what: what, max: max, numbers: make(map[K]int)}
}

// intern returns the numbers of keys, new ones for those that have none.
func (t *table[K]) intern(keys []K) ([]int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	nums := make([]int, len(keys))
	for i, k := range keys {
		n, ok := t.numbers[k]
		if !ok {
			if len(t.keys) >= t.max {
				return nil, fmt.Errorf("number %d %s: %w", len(keys), t.what, errTooMany)
			}
			t.keys = append(t.keys, k)
			n = len(t.keys)
			t.numbers[k] = n
		}
		nums[i] = n
	}
	return nums, nil
}

// number returns the number of k.
func (t *table[K]) number(k K) (int, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.numbers[k]
	return n, ok
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
		if k := t.keys[n-1]; t.numbers[k] == n {
			delete(t.numbers, k)
		}
	}
}
