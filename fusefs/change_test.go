package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/storepath"
)

// These tests are about what goes wrong and what changes, without a kernel.

func TestDamage(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	b, _ := sample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}})
	n, _ := f.walk(t, "store/"+string(samplePath)+"/big")
	b.do(func() { b.fault = failing(samplePath, 1<<20, 1<<20+1) })
	for range 3 {
		if _, status := f.testRead(n, 1<<20-4096, 8192); status != fuse.EIO {
			t.Errorf("read of a damaged block: %v", status)
		}
	}
	if got, status := f.testRead(n, 2<<20, 4096); !status.Ok() || !bytes.Equal(got, content(3 << 20)[2<<20:2<<20+4096]) {
		t.Errorf("read of a good block: %v", status)
	}
	b.do(func() { b.fault = nil })
	if got, status := f.testRead(n, 1<<20, 4096); !status.Ok() || len(got) != 4096 {
		t.Errorf("read after the damage is gone: %v", status)
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "store/"+string(samplePath)+"/big") || !strings.Contains(lines[0], "block 1048576") {
		t.Errorf("logged: %q", lines)
	}
}

func TestLostNARIsNotAbsence(t *testing.T) {
	b, _ := sample(t)
	logged := 0
	f := testFS(t, b, Options{Logf: func(string, ...any) { logged++ }})
	store, _ := f.walk(t, "store")
	for _, err := range []error{errors.New("no route"), fmt.Errorf("open nar: %w", fs.ErrNotExist)} {
		b.do(func() { b.openErr = err })
		if _, status := f.testLookup(store, string(samplePath)); status != fuse.EIO {
			t.Errorf("%v: %v", err, status)
		}
	}
	b.do(func() { b.openErr = nil })
	f.walk(t, "store/"+string(samplePath))
	if logged != 2 {
		t.Errorf("%d log lines", logged)
	}
	if n := b.opens[samplePath]; n != 3 {
		t.Errorf("opened %d times", n)
	}
}

func TestRemovedPathIsAbsent(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{Logf: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }})
	store, _ := f.walk(t, "store")
	b.do(func() { delete(b.nars, manyPath) }) // within maxAge: the list still has it
	if out, status := f.testLookup(store, string(manyPath)); !status.Ok() || out.NodeId != 0 {
		t.Errorf("node %#x, %v", out.NodeId, status)
	}
}

func TestStreams(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{MaxStreams: 1})
	for name, paths := range map[string][]storepath.Path{
		"exports/store/" + string(filePath) + ".closure": {filePath},
		"exports/releases/demo/demo-1.0.closure":         b.releases[sampleRelease],
	} {
		want := exportText(paths)
		n, a := f.walk(t, name)
		if a.Mode != syscall.S_IFREG|0444 || a.Size != uint64(len(want)) {
			t.Errorf("%s: mode %o, size %d, want %d", name, a.Mode, a.Size, len(want))
		}
		if got, status := f.testRead(n, 100, len(want)); !status.Ok() || string(got) != want[100:] {
			t.Errorf("%s: %d bytes, %v", name, len(got), status)
		}
	}
	if n, _ := f.streams.size(); n != 1 {
		t.Errorf("%d streams are open", n)
	}
}

func TestStreamOfChangedRelease(t *testing.T) {
	b, _ := sample(t)
	f := testFS(t, b, Options{})
	const name = "exports/releases/demo/demo-1.0.closure"
	old, _ := f.walk(t, name)
	b.do(func() { b.releases[sampleRelease] = []storepath.Path{filePath} })
	f.cat.closure(1, sampleRelease).expire()
	cur, a := f.walk(t, name)
	want := exportText([]storepath.Path{filePath})
	if cur == old || a.Size != uint64(len(want)) {
		t.Errorf("node %#x as before, size %d", cur, a.Size)
	}
	if got, status := f.testRead(old, 0, 10); !status.Ok() || string(got) != exportText([]storepath.Path{samplePath, filePath, linkPath})[:10] {
		t.Errorf("who reads the old stream gets %q, %v", got, status)
	}
	f.streams.close()
	if _, status := f.testRead(old, 0, 10); status != fuse.Status(syscall.ESTALE) {
		t.Errorf("the old stream cannot be made again, but: %v", status)
	}
}
