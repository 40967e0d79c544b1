package fusefs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/zseek"
)

// archived is a backup whose trees are real archives.
type archived struct {
	*memBackup
	compression string
	cache       *narread.Cache
	mu          sync.Mutex
	files       map[storepath.Path][]byte // guarded by mu
}

func newArchived(t *testing.T, b *memBackup, compression string) *archived {
	t.Helper()
	a := &archived{memBackup: b, compression: compression, cache: narread.NewCache(1 << 20), files: make(map[storepath.Path][]byte)}
	pool := zseek.NewPool(2, 3)
	for p, data := range b.nars {
		a.files[p] = data
		if compression == "zstd" {
			var buf bytes.Buffer
			w := zseek.NewWriter(&buf, pool, zseek.WriterOptions{})
			_, err := w.Write(data)
			must(t, err)
			must(t, w.Close())
			a.files[p] = buf.Bytes()
		}
	}
	return a
}

func (a *archived) Open(p storepath.Path) (Tree, error) {
	a.mu.Lock()
	size := int64(len(a.files[p]))
	a.mu.Unlock()
	return narread.Open(archivedFile{a, p}, size, narread.Options{
		Name:        string(p) + ".nar",
		Compression: a.compression,
		NarSize:     int64(len(a.nars[p])),
		NarHash:     narinfo.Hash(sha256.Sum256(a.nars[p])),
		Cache:       a.cache,
	})
}

// archivedFile is the file of one archive as it is at each read.
type archivedFile struct {
	a *archived
	p storepath.Path
}

func (f archivedFile) ReadAt(p []byte, off int64) (int, error) {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	return bytes.NewReader(f.a.files[f.p]).ReadAt(p, off)
}

func TestArchivesInTheMount(t *testing.T) {
	for _, compression := range []string{"none", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			b, oracle := sample(t)
			s := mounted(t, newArchived(t, b, compression), Options{RawLinks: true, Logf: t.Logf})
			for _, p := range []storepath.Path{samplePath, filePath, linkPath} {
				sh(t, `diff -r --no-dereference "$1" "$2"`, filepath.Join(oracle, string(p)), s.Mountpoint()+"/store/"+string(p))
			}
		})
	}
}

// A flipped bit makes errors where it is, and nowhere else, and passes.
func TestDamagedArchive(t *testing.T) {
	b := newMemBackup()
	p := path(1, "x")
	entries := []nar.Header{{Type: nar.Directory}}
	for i := range 8 {
		entries = append(entries, nar.Header{Depth: 1, Name: fmt.Sprintf("f%d", i), Type: nar.Regular, Size: 1 << 20})
	}
	b.pack(t, p, entries...)
	a := newArchived(t, b, "zstd")
	var mu sync.Mutex
	var lines []string
	s := mounted(t, a, Options{Logf: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}})
	const sums = `cd "$1/store/$2"; for f in *; do cat $f 2>/dev/null | cmp -s - f0 && echo $f; done; true`
	sh(t, `cat "$1/store/$2/f0"`, s.Mountpoint(), string(p)) // f0 is in the page cache
	flip := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.files[p][len(a.files[p])/2] ^= 0x10
	}
	flip()
	good := strings.Fields(sh(t, sums, s.Mountpoint(), string(p)))
	if len(good) != 7 && len(good) != 6 { // a frame can reach into two files
		t.Errorf("with one flipped bit these can be read: %q", good)
	}
	mu.Lock()
	if len(lines) == 0 || len(lines) > 2 || !strings.Contains(lines[0], string(p)) {
		t.Errorf("logged %q", lines)
	}
	t.Logf("logged %q", lines)
	mu.Unlock()
	flip()
	if good := strings.Fields(sh(t, sums, s.Mountpoint(), string(p))); len(good) != 8 {
		t.Errorf("after the damage is gone these can be read: %q", good)
	}
}
