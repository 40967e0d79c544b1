package fusefs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A testWatcher is a watcher whose clock and kernel are the test's.
type testWatcher struct {
	*watcher
	told  []string
	held  bool
	clock time.Time
}

func newTestWatcher(f *fileSystem) *testWatcher {
	t := &testWatcher{clock: time.Now()}
	t.watcher = f.newWatcher(func(dir node, name string) { t.told = append(t.told, f.pathOf(dir, name)) })
	t.now = func() time.Time { return t.clock }
	t.hold = func() bool { return t.held }
	t.running = true // by the test
	f.watcher.Store(t.watcher)
	return t
}

// tick is what run does again and again. The lists are due each time.
func (t *testWatcher) tick(f *fileSystem) {
	f.cat.pathList.expire()
	t.look()
	if !t.hold() {
		t.tell()
	}
}

// The kernel keeps names of store paths, and is told when they go away.
func TestNamesAreWatched(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	store, _ := f.walk(t, "store")
	release, _ := f.walk(t, "releases/demo/demo-1.0")
	w := newTestWatcher(f)
	kept := func(dir node, p storepath.Path) time.Duration {
		t.Helper()
		out, status := f.testLookup(dir, string(p))
		if !status.Ok() || out.NodeId == 0 {
			t.Fatalf("look up %s: node %d, %v", p, out.NodeId, status)
		}
		return out.EntryTimeout()
	}
	for _, dir := range []node{store, release} {
		if d := kept(dir, filePath); d != nameAge {
			t.Errorf("a name in %s is kept %v", f.pathOf(dir, ""), d)
		}
	}
	if out, _ := f.testLookup(store, "absent"); out.EntryTimeout() != brief {
		t.Errorf("an absent name is kept %v", out.EntryTimeout())
	}
	w.tick(f)
	if len(w.told) > 0 {
		t.Errorf("told of %s, but nothing changed", w.told)
	}

	// What came after the last look is not watched yet.
	added := path(0, "added")
	b.do(func() { b.nars[added] = b.nars[filePath] })
	f.cat.pathList.expire()
	if d := kept(store, added); d != brief {
		t.Errorf("a name that nobody watches is kept %v", d)
	}
	w.tick(f)
	if d := kept(store, added); d != nameAge {
		t.Errorf("a name that was seen is kept %v", d)
	}

	// While somebody holds the lock for long, nobody else is to wait for it.
	w.held = true
	b.do(func() { delete(b.nars, filePath) })
	w.tick(f)
	if len(w.told) > 0 {
		t.Errorf("told of %s", w.told)
	}
	w.held = false
	for range told + 1 {
		w.tick(f)
	}
	slices.Sort(w.told)
	// Its number in the release is another one now, so that name is void, too.
	want := []string{"releases/demo/demo-1.0/" + string(filePath), "store/" + string(filePath)}
	if got := slices.Compact(slices.Clone(w.told)); !slices.Equal(got, want) || len(w.told) != told*len(want) {
		t.Errorf("told %s", w.told)
	}

	// An error is no absence.
	w.told = nil
	b.do(func() { b.listErr = errBadName })
	w.tick(f)
	if len(w.told) > 0 {
		t.Errorf("told of %s after an error", w.told)
	}
	b.do(func() { b.listErr, b.panics = nil, true })
	if w.tick(f); len(w.told) > 0 || !strings.Contains(string(f.damage.text()), "oops") {
		t.Errorf("told of %s after a panic, of which the list of damage says %q", w.told, f.damage.text())
	}
	b.do(func() { b.panics = false })

	// Names that the kernel has forgotten need no watching.
	w.clock = w.clock.Add(nameAge + 1)
	w.tick(f)
	if len(w.dirs)+len(w.gone) > 0 {
		t.Errorf("still watched: %v, %v", w.dirs, w.gone)
	}
}

// With a kernel: names of store paths are asked for once, and what goes away or
// gets another content is seen nevertheless.
func TestNamesAreKept(t *testing.T) {
	b, _ := sample(t)
	other := path(9, "other")
	dir := nar.Header{Type: nar.Directory}
	file := nar.Header{Depth: 1, Name: "a", Type: nar.Regular, Size: 100}
	b.pack(t, other, dir, file)
	s := mounted(t, b, Options{Logf: t.Logf, MaxTrees: 1})
	const pass = `cd "$1" && find store releases/demo/demo-1.0 -mindepth 1 -maxdepth 2 > /dev/null`
	sh(t, pass, s.Mountpoint())
	time.Sleep(2 * brief)
	before := s.Requests()
	sh(t, `cd "$1/store"; stat * > /dev/null; cd "$1/releases/demo/demo-1.0"; stat * > /dev/null`, s.Mountpoint())
	after := s.Requests()
	// store, releases, demo, demo-1.0; on a slow machine more than once
	if n := after.Lookup - before.Lookup; n > 8 {
		t.Errorf("%d lookups", n)
	}

	const until = `i=0; until eval "$2" 2>/dev/null; do i=$((i+1)); test $i -lt 1000 || exit 1; sleep 0.02; done`
	b.do(func() { delete(b.nars, filePath) })
	sh(t, `cd "$1"; `+until, s.Mountpoint(), `test ! -e store/`+string(filePath))
	file.Size = 200
	b.pack(t, other, dir, file)
	sh(t, `ls "$1/store/$2"`, s.Mountpoint(), string(samplePath)) // so that other is opened anew
	sh(t, `cd "$1"; `+until, s.Mountpoint(), `test "$(cat store/`+string(other)+`/a | wc -c)" = 200`)
	if got := sh(t, `ls "$1/store"`, s.Mountpoint()); strings.Contains(got, string(filePath)) {
		t.Errorf("a removed path is listed: %s", got)
	}
}
