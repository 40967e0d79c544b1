package fusefs

import (
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestReadDirResumesAnywhere(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	for _, dir := range []string{"store/" + string(manyPath), "store", "releases/demo", "exports"} {
		n, _ := f.walk(t, dir)
		want, _ := f.testList(t, n, 1<<20, false)
		if dir == "store/"+string(manyPath) && (len(want) != manyEntries+2 || want[manyEntries+1] != manyName(manyEntries-1)) {
			t.Errorf("%d entries", len(want))
		}
		for _, size := range []int{288, 1000, 4096} {
			for _, plus := range []bool{false, true} {
				if plus && size < 500 {
					continue
				}
				if got, _ := f.testList(t, n, size, plus); strings.Join(got, "/") != strings.Join(want, "/") {
					t.Errorf("%s with buffers of %d bytes: %d entries, want %d", dir, size, len(got), len(want))
				}
			}
		}
	}
}

func TestReadDirOffsets(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	n, _ := f.walk(t, "store/"+string(manyPath))
	for _, off := range []uint64{3002, 3003, 1 << 31, 1 << 63, 1<<64 - 1} {
		list := fuse.NewDirEntryList(make([]byte, 4096), off)
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(n)}, Offset: off}
		if status := f.ReadDir(nil, in, list); !status.Ok() || len(list.Bytes()) != 0 {
			t.Errorf("offset %d: %d bytes, %v", off, len(list.Bytes()), status)
		}
	}
}

func TestDotAndDotDot(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	for dir, want := range map[string]string{
		"store":    "",
		"releases": "", "releases/demo": "releases", "releases/demo/demo-1.0": "releases/demo",
		"exports": "", "exports/store": "exports", "exports/releases": "exports", "exports/releases/demo": "exports/releases",
		"store/" + string(samplePath):                      "store",
		"store/" + string(samplePath) + "/lib":             "store/" + string(samplePath),
		"store/" + string(samplePath) + "/lib/a/b":         "store/" + string(samplePath) + "/lib/a",
		"releases/demo/demo-1.0/" + string(samplePath):     "releases/demo/demo-1.0",
		"exports/store/" + string(samplePath) + ".closure": "exports/store",
		"exports/releases/demo/demo-1.0.closure":           "exports/releases/demo",
	} {
		n, _ := f.walk(t, dir)
		up := nodeRoot
		if want != "" {
			up, _ = f.walk(t, want)
		}
		self, status := f.testLookup(n, ".")
		if node(self.NodeId) != n || !status.Ok() {
			t.Errorf(`%s: "." is node %#x, %v`, dir, self.NodeId, status)
		}
		parent, status := f.testLookup(n, "..")
		if node(parent.NodeId) != up || !status.Ok() {
			t.Errorf(`%s: ".." is node %#x (%v), want %#x`, dir, parent.NodeId, status, up)
		}
	}
	if out, status := f.testLookup(nodeRoot, ".."); node(out.NodeId) != nodeRoot || !status.Ok() {
		t.Errorf(`root: ".." is node %d, %v`, out.NodeId, status)
	}
}

func TestAbsentNames(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }})
	for _, c := range []struct{ dir, name string }{
		{"store", "x"},
		{"store", string(path(99, "absent"))},
		{"store", string(samplePath) + ".closure"},
		{"store/" + string(samplePath), "x"},
		{"store/" + string(samplePath) + "/bin", "Hello"},
		{"releases", "x"},
		{"releases/demo", "x"},
		{"releases/demo/demo-1.0", string(manyPath)},
		{"exports", "x"},
		{"exports/store", string(samplePath)},
		{"exports/store", "x.closure"},
		{"exports/releases/demo", "demo-1.0"},
		{"exports/releases/demo", ".closure"},
	} {
		n, _ := f.walk(t, c.dir)
		out, status := f.testLookup(n, c.name)
		if !status.Ok() || out.NodeId != 0 || out.EntryTimeout() != keep(n) {
			t.Errorf("%s/%s: node %#x, kept for %v, %v", c.dir, c.name, out.NodeId, out.EntryTimeout(), status)
		}
	}
	n, _ := f.walk(t, "store/"+string(samplePath))
	if _, status := f.testLookup(n, strings.Repeat("n", 256)); status != fuse.Status(syscall.ENAMETOOLONG) {
		t.Errorf("a name of 256 bytes: %v", status)
	}
}
