package backup

import (
	"fmt"
	"slices"
	"testing"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
)

// sp makes a store path whose name is short.
func sp(name string) storepath.Path {
	return storepath.Path("sh8025fhmz1wq27663bakmq915a2pf79-" + name)
}

func TestSortByReferences(t *testing.T) {
	refs := map[storepath.Path][]storepath.Path{
		sp("app"):  {sp("app"), sp("lib"), sp("data"), sp("outside")},
		sp("lib"):  {sp("libc")},
		sp("data"): {sp("lib"), sp("libc")},
		sp("libc"): {sp("libc")},
	}
	paths := []storepath.Path{sp("app"), sp("data"), sp("lib"), sp("libc")}
	got, err := storepath.SortByReferences(paths, func(p storepath.Path) []storepath.Path { return refs[p] })
	if err != nil {
		t.Fatal(err)
	}
	want := []storepath.Path{sp("libc"), sp("lib"), sp("data"), sp("app")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSortByReferencesCycle(t *testing.T) {
	refs := map[storepath.Path][]storepath.Path{
		sp("a"): {sp("b")}, sp("b"): {sp("c")}, sp("c"): {sp("a")},
	}
	got, err := storepath.SortByReferences([]storepath.Path{sp("a"), sp("b"), sp("c")}, func(p storepath.Path) []storepath.Path { return refs[p] })
	if err == nil {
		t.Errorf("a cycle was sorted: %v", got)
	}
}

// A chain of 100,000 references must not need stack.
func TestSortByReferencesDeep(t *testing.T) {
	const n = 100_000
	paths := make([]storepath.Path, n)
	next := make(map[storepath.Path][]storepath.Path, n)
	for i := range paths {
		paths[i] = sp(fmt.Sprint(i))
		next[paths[i]] = []storepath.Path{sp(fmt.Sprint(i + 1))}
	}
	got, err := storepath.SortByReferences(paths, func(p storepath.Path) []storepath.Path { return next[p] })
	if err != nil || len(got) != n || got[0] != paths[n-1] || got[n-1] != paths[0] {
		t.Errorf("got %d paths, %v", len(got), err)
	}
}

func TestLevels(t *testing.T) {
	mk := func(name string, refs ...storepath.Path) *job {
		return &job{info: nixstore.PathInfo{Path: sp(name), References: refs}}
	}
	group := []*job{
		mk("libc", sp("libc")), mk("other"), mk("lib", sp("libc"), sp("before")), mk("app", sp("lib"), sp("other")),
	}
	got := jobLevels(group)
	want := [][]int{{0, 1}, {2}, {3}}
	if !slices.EqualFunc(got, want, slices.Equal[[]int]) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPackageName(t *testing.T) {
	for name, want := range map[string]string{
		"disnix-0.3pre1234": "disnix", "hello": "hello", "gcc-wrapper-12.2": "gcc-wrapper",
		"foo-": "foo-", "a-b-c": "a-b-c", "-1": "", "": "", "x-é": "x",
	} {
		if got := packageName(name); got != want {
			t.Errorf("packageName(%q) = %q, want %q", name, got, want)
		}
	}
}
