package fusefs

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPack(t *testing.T) {
	for _, c := range []struct {
		view, number, entry int
		want                node
	}{
		{viewFixed, 0, 1, nodeRoot},
		{viewFixed, 0, 2, nodeExports},
		{viewStore, 0, 0, 1 << 46},
		{viewStore, 1, 0, 1<<46 | 1<<23},
		{maxView, maxNumber, maxEntry, 1<<63 - 1},
		{viewReleases + maxRelease, 0, 0, maxView << 46},
	} {
		n := pack(c.view, c.number, c.entry)
		if n != c.want || n.view() != c.view || n.number() != c.number || n.entry() != c.entry {
			t.Errorf("pack(%d, %d, %d) = %#x (%d, %d, %d), want %#x", c.view, c.number, c.entry, n, n.view(), n.number(), n.entry(), c.want)
		}
	}
}

func TestPackOutOfRange(t *testing.T) {
	for _, c := range [][3]int{{maxView + 1, 0, 0}, {0, maxNumber + 1, 0}, {0, 0, maxEntry + 1}, {-1, 0, 0}, {0, -1, 0}, {0, 0, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("pack(%v) does not panic", c)
				}
			}()
			pack(c[0], c[1], c[2])
		}()
	}
}

func TestKeep(t *testing.T) {
	for _, c := range []struct {
		what string
		n    node
		want time.Duration
	}{
		{"root", nodeRoot, forever},
		{"exports", nodeExports, forever},
		{"store", pack(viewStore, 0, 0), brief},
		{"store path", pack(viewStore, 7, 0), forever},
		{"file", pack(viewStore, 7, 3), forever},
		{"releases", pack(viewProjects, 0, 0), brief},
		{"project", pack(viewProjects, 1, 0), brief},
		{"release", pack(viewReleases+1, 0, 0), brief},
		{"directory in a release", pack(viewReleases+1, 7, 3), forever},
		{"exports/store", pack(viewExportPaths, 0, 0), brief},
		{"stream of a path", pack(viewExportPaths, 7, 0), forever},
		{"exports/releases", pack(viewExports, 0, 0), brief},
		{"project in exports", pack(viewExports, 1, 0), brief},
		{"stream of a release", pack(viewExportStreams, 1, 0), forever},
	} {
		if got := keep(c.n); got != c.want {
			t.Errorf("keep(%s) = %v, want %v", c.what, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	testTable(t, newTable[string]("letters", 4))
	// The same, with keys that are found by bisection.
	tab := newTable[string]("letters", 4)
	tab.compare = strings.Compare
	if nums, err := tab.intern([]string{"a", "b"}); err != nil || !slices.Equal(nums, []int{1, 2}) || tab.sorted != 2 {
		t.Fatalf("intern = %v, %v", nums, err)
	}
	testTable(t, tab)
}

func testTable(t *testing.T, tab *table[string]) {
	t.Helper()
	nums, err := tab.intern([]string{"a", "b", "a"})
	if err != nil || nums[0] != 1 || nums[1] != 2 || nums[2] != 1 {
		t.Fatalf("intern = %v, %v", nums, err)
	}
	tab.retire([]int{1})
	if _, ok := tab.number("a"); ok {
		t.Error("a retired key still has its number")
	}
	if k, ok := tab.key(1); k != "a" || !ok {
		t.Errorf("key(1) = %q, %v", k, ok)
	}
	if nums, err := tab.intern([]string{"a", "b", "c"}); err != nil || nums[0] != 3 || nums[1] != 2 || nums[2] != 4 {
		t.Errorf("after retiring: intern = %v, %v", nums, err)
	}
	tab.retire([]int{1}) // again: must not hurt the new number of "a"
	if n, ok := tab.number("a"); n != 3 || !ok {
		t.Errorf(`number("a") = %d, %v`, n, ok)
	}
	if _, err := tab.intern([]string{"d"}); !errors.Is(err, errTooMany) {
		t.Errorf("a full table says %v", err)
	}
	for _, n := range []int{0, 5, -1} {
		if _, ok := tab.key(n); ok {
			t.Errorf("key(%d) is known", n)
		}
	}
}
