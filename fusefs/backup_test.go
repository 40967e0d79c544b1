package fusefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// memBackup is a backup in memory.
type memBackup struct {
	mu       sync.Mutex
	nars     map[storepath.Path][]byte
	releases map[ReleaseID][]storepath.Path
	fault    func(p storepath.Path, off int64, n int) error // of reading from a NAR
	openErr  error
	listErr  error
	panics   bool // Paths does
	opens    map[storepath.Path]int
	open     int // trees and streams that are open now
	lists    int // how often Paths was called
}

func newMemBackup() *memBackup {
	return &memBackup{
		nars:     make(map[storepath.Path][]byte),
		releases: make(map[ReleaseID][]storepath.Path),
		opens:    make(map[storepath.Path]int),
	}
}

// do runs change with the lock.
func (b *memBackup) do(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *memBackup) StoreDir() string { return "/nix/store" }

func (b *memBackup) Paths() (all []storepath.Path, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lists++
	if b.panics {
		panic("oops")
	}
	for p := range b.nars {
		all = append(all, p)
	}
	slices.Sort(all)
	return all, b.listErr
}

func (b *memBackup) Releases() (all []ReleaseID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.releases {
		all = append(all, id)
	}
	return all, b.listErr
}

func (b *memBackup) Closure(id ReleaseID) ([]storepath.Path, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.releases[id]
	if !ok {
		return nil, fmt.Errorf("closure of %s: %w", id, fs.ErrNotExist)
	}
	return c, nil
}

func (b *memBackup) Open(p storepath.Path) (Tree, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opens[p]++
	if b.openErr != nil {
		return nil, b.openErr
	}
	data, ok := b.nars[p]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
	}
	b.open++
	return &memFile{b: b, p: p, Reader: bytes.NewReader(data)}, nil
}

func (b *memBackup) ExportRelease(id ReleaseID) (Stream, error) {
	c, err := b.Closure(id)
	if err != nil {
		return nil, err
	}
	return b.stream(exportText(c)), nil
}

func (b *memBackup) ExportPath(p storepath.Path) (Stream, error) {
	return b.stream(exportText([]storepath.Path{p})), nil
}

func (b *memBackup) stream(text string) *memFile {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open++
	return &memFile{b: b, Reader: bytes.NewReader([]byte(text))}
}

// exportText stands for the stream of some paths: above the size of a read-ahead.
func exportText(paths []storepath.Path) string {
	return strings.Repeat(fmt.Sprintln(paths), 20000)
}

// memFile is a Tree or a Stream.
type memFile struct {
	b *memBackup
	p storepath.Path
	*bytes.Reader
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.b.mu.Lock()
	fault := f.b.fault
	f.b.mu.Unlock()
	if fault != nil {
		if err := fault(f.p, off, len(p)); err != nil {
			return 0, err
		}
	}
	return f.Reader.ReadAt(p, off)
}

func (f *memFile) Listing() (*nar.Listing, error) { return nar.ReadListing(f.Reader, f.Reader.Size()) }

// NarHash makes a memFile a HashedTree.
func (f *memFile) NarHash() narinfo.Hash {
	data := make([]byte, f.Reader.Size())
	f.Reader.ReadAt(data, 0) // it is in memory
	return sha256.Sum256(data)
}

func (f *memFile) Close() error {
	f.b.do(func() { f.b.open-- })
	return nil
}

// path makes the n-th store path.
func path(n int, name string) storepath.Path {
	return storepath.Path(fmt.Sprintf("%032d-%s", n, name))
}

// add archives a file of this machine.
func (b *memBackup) add(t testing.TB, p storepath.Path, file string) {
	t.Helper()
	var buf bytes.Buffer
	if _, _, err := nar.Dump(context.Background(), &buf, file); err != nil {
		t.Fatal(err)
	}
	b.do(func() { b.nars[p] = buf.Bytes() })
}

// pack archives what no file of this machine need be.
func (b *memBackup) pack(t testing.TB, p storepath.Path, headers ...nar.Header) {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Type == nar.Regular {
			if _, err := w.Write(content(h.Size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.do(func() { b.nars[p] = buf.Bytes() })
}

// content is what pack writes into a file: text in which every place of the
// first 4 MiB is known, and then again.
func content(size int64) []byte {
	block := knownText()
	out := make([]byte, 0, size)
	for int64(len(out)) < size {
		out = append(out, block[:min(int64(len(block)), size-int64(len(out)))]...)
	}
	return out
}

var knownText = sync.OnceValue(func() []byte {
	out := make([]byte, 4<<20)
	for i := range out {
		out[i] = "0123456789abcdef"[i>>(4*(5-i%6))&15]
		if i%64 == 63 {
			out[i] = '\n'
		}
	}
	return out
})

// The store paths of the sample.
var (
	samplePath = path(1, "sample") // a directory with everything
	filePath   = path(2, "script") // a file
	linkPath   = path(3, "alias")  // a symlink to samplePath
	manyPath   = path(4, "many")   // a directory with 3000 entries
)

var (
	sampleRelease = ReleaseID{"demo", "demo-1.0"}
	otherRelease  = ReleaseID{"demo", "demo-1.1"}
)

// sample makes a backup, and the same files in a directory as oracle (but not
// those of manyPath, which only cost time).
func sample(t testing.TB) (b *memBackup, oracle string) {
	t.Helper()
	b, oracle = newMemBackup(), t.TempDir()
	root := filepath.Join(oracle, string(samplePath))
	writeSample(t, root)
	script := filepath.Join(oracle, string(filePath))
	write(t, script, "#!/bin/sh\necho ran \"$@\"\n", 0555)
	alias := filepath.Join(oracle, string(linkPath))
	must(t, os.Symlink("/nix/store/"+string(samplePath), alias))
	for _, p := range []storepath.Path{samplePath, filePath, linkPath} {
		b.add(t, p, filepath.Join(oracle, string(p)))
	}
	many := []nar.Header{{Type: nar.Directory}}
	for i := range manyEntries {
		many = append(many, nar.Header{Depth: 1, Name: manyName(i), Type: nar.Regular, Size: int64(i % 5)})
	}
	b.pack(t, manyPath, many...)
	b.releases[sampleRelease] = []storepath.Path{samplePath, filePath, linkPath}
	b.releases[otherRelease] = []storepath.Path{samplePath, manyPath}
	return b, oracle
}

// manyEntries is how many entries manyPath has.
const manyEntries = 3000

func manyName(i int) string { return fmt.Sprintf("entry-%04d-%s", i, strings.Repeat("x", i%50)) }

func writeSample(t testing.TB, root string) {
	for _, dir := range []string{"", "bin", "empty", "lib/a/b/c", "lib/z"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0755))
	}
	write(t, root+"/bin/hello", "#!/bin/sh\necho hello \"$@\"\n", 0555)
	write(t, root+"/empty-file", "", 0444)
	write(t, root+"/one", "1", 0444)
	write(t, root+"/big", string(content(3<<20+17)), 0444)
	write(t, root+"/lib/a/b/c/deep", "deep\n", 0444)
	write(t, root+"/na\xffme", "not UTF-8", 0444)
	write(t, root+"/new\nline", "newline", 0444)
	write(t, root+"/back\\slash space", "odd", 0555)
	write(t, root+"/"+strings.Repeat("n", 255), "longest name", 0444)
	for link, target := range map[string]string{
		"relative":         "bin/hello",
		"to-store":         "/nix/store/" + string(filePath),
		"lib/a/to-store":   "/nix/store/" + string(samplePath) + "/bin/hello",
		"to-nowhere":       "/nix/store/" + string(path(99, "absent")),
		"to-store-dir":     "/nix/store",
		"not-utf8-\xff":    "tar\xffget",
		"lib/a/b/c/to-dir": "/nix/store/" + string(samplePath) + "/lib/",
	} {
		must(t, os.Symlink(target, filepath.Join(root, link)))
	}
}

func write(t testing.TB, file, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.WriteFile(file, []byte(text), 0644))
	must(t, os.Chmod(file, mode))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// failing returns a fault for reads of p that touch [from, to) of the NAR.
func failing(p storepath.Path, from, to int64) func(storepath.Path, int64, int) error {
	return func(q storepath.Path, off int64, n int) error {
		if p == q && off < to && off+int64(n) > from {
			return fmt.Errorf("read block %d of %s: %w", from, p, syscall.EIO)
		}
		return nil
	}
}
