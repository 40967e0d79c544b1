package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/storepath"
)

// testClock is a clock that a test moves.
type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

// later moves to where lists are read again.
func (c *testClock) later() { c.t = c.t.Add(maxAge) }

func testCatalogue(t *testing.T, b Backup) (*catalogue, *testClock) {
	t.Helper()
	clock := &testClock{time.Unix(1e9, 0)}
	c := newCatalogue(b, clock.now, func(op, object string, err error) { t.Log(op, object, err) })
	must(t, c.load())
	return c, clock
}

func (b *memBackup) hold(ps ...storepath.Path) {
	b.do(func() {
		clear(b.nars)
		for _, p := range ps {
			b.nars[p] = nil
		}
	})
}

func TestCatalogueNumbers(t *testing.T) {
	b := newMemBackup()
	b.hold(path(3, "c"), path(1, "a"))
	c, clock := testCatalogue(t, b)
	first, err := c.store()
	must(t, err)
	if !slices.Equal(first.nums, []int{1, 2}) {
		t.Fatalf("numbers %v, want 1 and 2 in sorted order", first.nums)
	}

	b.hold(path(3, "c"), path(1, "a"), path(2, "b"))
	if m, _ := c.store(); m != first {
		t.Error("the list was read again too early")
	}
	clock.later()
	second, err := c.store()
	must(t, err)
	if n, _ := c.paths.number(path(2, "b")); !slices.Equal(second.nums, []int{1, 2, 3}) || n != 3 {
		t.Errorf("a new path has number %d of %v", n, second.nums)
	}
	if !second.mtime.After(first.mtime) || second.version != first.version+1 {
		t.Error("a change does not show in mtime and version")
	}

	clock.later()
	if m, _ := c.store(); m != second {
		t.Error("without a change the state is another")
	}
}

func TestCatalogueNeverReusesNumbers(t *testing.T) {
	b := newMemBackup()
	p := path(1, "a")
	id := ReleaseID{"p", "r"}
	b.hold(p)
	b.releases[id] = []storepath.Path{p}
	c, clock := testCatalogue(t, b)
	if m, err := c.release(1); err != nil || !m.has(1) || !c.holds(p) {
		t.Fatalf("release = %v, %v", m, err)
	}
	b.hold()
	clock.later()
	_, err := c.store()
	must(t, err)
	if c.holds(p) || c.current(p, 1) {
		t.Error("a path that went away is still held")
	}
	// It is in the release as before, and cannot be read: under another number.
	if m, err := c.release(1); err != nil || len(m.nums) != 1 || m.has(1) {
		t.Errorf("release = %v, %v", m, err)
	}
	b.hold(p)
	clock.later()
	m, err := c.store()
	must(t, err)
	if m.has(1) || !c.holds(p) {
		t.Errorf("a path that came back, maybe with other content, has its old number: %v", m.nums)
	}
}

func TestCatalogueReleases(t *testing.T) {
	b := newMemBackup()
	for _, id := range []ReleaseID{{"b", "2"}, {"a", "9"}, {"b", "1"}, {"a/b", "1"}, {"c", ".."}, {"", "x"}, {"d", strings.Repeat("x", 250)}} {
		b.releases[id] = nil
	}
	c, clock := testCatalogue(t, b)
	projects, err := c.projectNames()
	must(t, err)
	var got []string
	for _, p := range projects.nums {
		name, _ := c.projects.key(p)
		m, err := c.project(p)
		must(t, err)
		for _, r := range m.nums {
			id, _ := c.releases.key(r)
			got = append(got, fmt.Sprintf("%d:%s %d:%s", p, name, r, id.Name))
		}
	}
	if want := []string{"1:a 1:9", "2:b 2:1", "2:b 3:2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	b.do(func() { delete(b.releases, ReleaseID{"a", "9"}) })
	clock.later()
	if _, err := c.project(1); !errors.Is(err, errNoNode) {
		t.Errorf("a project without releases: %v", err)
	}
	if m, err := c.projectNames(); err != nil || !slices.Equal(m.nums, []int{2}) {
		t.Errorf("projects = %v, %v", m, err)
	}
}

func TestCatalogueErrorsDoNotLast(t *testing.T) {
	b := newMemBackup()
	b.hold(path(1, "a"))
	c, clock := testCatalogue(t, b)
	b.do(func() { b.listErr = fmt.Errorf("disk gone: %w", fs.ErrNotExist) })
	clock.later()
	for range 2 {
		if _, err := c.store(); !errors.Is(err, errBackup) {
			t.Errorf("store says %v", err)
		}
		if _, err := c.projectNames(); !errors.Is(err, errBackup) {
			t.Errorf("projectNames says %v", err)
		}
	}
	b.do(func() { b.listErr = nil })
	if m, err := c.store(); err != nil || !slices.Equal(m.nums, []int{1}) {
		t.Errorf("store = %v, %v", m, err)
	}
}

func TestCatalogueTellsGoneFromDamaged(t *testing.T) {
	b := newMemBackup()
	id := ReleaseID{"p", "r"}
	b.releases[id] = nil
	c, clock := testCatalogue(t, b)
	lost := &backupError{fmt.Errorf("open closure.txt: %w", fs.ErrNotExist)}
	if err := c.orGone(lost, func() bool { return c.releaseGone(id, 1) }); err != lost {
		t.Errorf("a listed release without its file: %v", err)
	}
	b.do(func() { delete(b.releases, id) })
	clock.later()
	if _, err := c.release(1); err != errNoNode {
		t.Errorf("a removed release: %v", err)
	}
}

// unchangedBackup returns the same list each time.
type unchangedBackup struct {
	*memBackup
	paths []storepath.Path
}

func (b *unchangedBackup) Paths() ([]storepath.Path, error) { return b.paths, nil }

func TestCatalogueSameListIsCheap(t *testing.T) {
	b := &unchangedBackup{memBackup: newMemBackup()}
	for i := range 100_000 {
		b.paths = append(b.paths, path(i, "x"))
	}
	c, clock := testCatalogue(t, b)
	allocs := testing.AllocsPerRun(100, func() {
		clock.later()
		if _, err := c.store(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 1 {
		t.Errorf("%v allocations to see that nothing changed", allocs)
	}
}

func TestClockNeverRepeats(t *testing.T) {
	c := clock{now: func() time.Time { return time.Unix(5, 0) }}
	a, b := c.stamp(), c.stamp()
	if !b.After(a) {
		t.Errorf("%v, %v", a, b)
	}
}
