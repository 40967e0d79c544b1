package backup

import (
	"fmt"
	"slices"
	"testing"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
)

// path makes a store path whose name is short.
func path(name string) storepath.Path {
	return storepath.Path("sh8025fhmz1wq27663bakmq915a2pf79-" + name)
}

func TestSortByReferences(t *testing.T) {
	refs := map[storepath.Path][]storepath.Path{
		path("app"):  {path("app"), path("lib"), path("data"), path("outside")},
		path("lib"):  {path("libc")},
		path("data"): {path("lib"), path("libc")},
		path("libc"): {path("libc")},
	}
	paths := []storepath.Path{path("app"), path("data"), path("lib"), path("libc")}
	got, err := sortByReferences(paths, func(p storepath.Path) []storepath.Path { return refs[p] })
	if err != nil {
		t.Fatal(err)
	}
	want := []storepath.Path{path("libc"), path("lib"), path("data"), path("app")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSortByReferencesCycle(t *testing.T) {
	refs := map[storepath.Path][]storepath.Path{
		path("a"): {path("b")}, path("b"): {path("c")}, path("c"): {path("a")},
	}
	got, err := sortByReferences([]storepath.Path{path("a"), path("b"), path("c")}, func(p storepath.Path) []storepath.Path { return refs[p] })
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
		paths[i] = path(fmt.Sprint(i))
		next[paths[i]] = []storepath.Path{path(fmt.Sprint(i + 1))}
	}
	got, err := sortByReferences(paths, func(p storepath.Path) []storepath.Path { return next[p] })
	if err != nil || len(got) != n || got[0] != paths[n-1] || got[n-1] != paths[0] {
		t.Errorf("got %d paths, %v", len(got), err)
	}
}

func TestLevels(t *testing.T) {
	job := func(name string, refs ...storepath.Path) *job {
		return &job{info: nixstore.PathInfo{Path: path(name), References: refs}}
	}
	group := []*job{
		job("libc", path("libc")), job("other"), job("lib", path("libc"), path("before")), job("app", path("lib"), path("other")),
	}
	got := levels(group)
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
