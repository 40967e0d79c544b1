package backup

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// backedUp makes a backup of a few paths; it returns its directory and the
// path at the top.
func backedUp(t *testing.T, compression string) (dir string, store *backuptest.Store, top storepath.Path) {
	t.Helper()
	return backedUpSized(t, compression, 640_000)
}

// backedUpSized is backedUp with a file of n bytes.
func backedUpSized(t *testing.T, compression string, n int) (dir string, store *backuptest.Store, top storepath.Path) {
	t.Helper()
	store = backuptest.NewStore(t)
	lib := store.Add("lib", strings.Repeat("library ", 100))
	twin := store.Add("twin.txt", "short", lib)
	top = store.Add("top", strings.Repeat("0123456789abcdef", n/16), lib, twin)
	dir = filepath.Join(t.TempDir(), "backup")
	req := request("r", top)
	req.Compression = compression
	if _, err := run(t.Context(), backuptest.Memory{}, dir, store, req); err != nil {
		t.Fatal(err)
	}
	return dir, store, top
}

// openExport prepares the stream of everything in a backup.
func openExport(t *testing.T, dir string) (*Export, error) {
	t.Helper()
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { b.Close() })
	paths, damage, err := b.Paths(t.Context())
	if err := errors.Join(damage, err); err != nil {
		return nil, err
	}
	e, err := b.NewExport(paths)
	if err == nil {
		t.Cleanup(func() { e.Close() })
	}
	return e, err
}

func stream(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	e, err := openExport(t, dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	n, err := e.WriteTo(&b)
	if n != int64(b.Len()) || err == nil && n != e.Size() {
		t.Errorf("wrote %d bytes, said %d, and that there are %d", b.Len(), n, e.Size())
	}
	return b.Bytes(), err
}

// Reading at random, from several goroutines, gives what WriteTo gives.
func TestExportReadAt(t *testing.T) {
	for _, compression := range []string{"zstd", "xz", "bzip2", "none"} {
		dir, _, _ := backedUp(t, compression)
		want, err := stream(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		e, err := openExport(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for reader := range 8 {
			rng := rand.New(rand.NewPCG(1, uint64(reader)))
			wg.Go(func() {
				for range 100 {
					off, n := rng.IntN(len(want)), rng.IntN(300_000)
					readAtEquals(t, e, want, off, n)
				}
			})
		}
		wg.Wait()
		for off := len(want) - 700; off < len(want); off++ {
			readAtEquals(t, e, want, off, 20)
		}
		if n, err := e.ReadAt(make([]byte, 1), e.Size()); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
		if _, err := e.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("a negative offset was read")
		}
	}
}

func readAtEquals(t *testing.T, e *Export, want []byte, off, n int) {
	p := make([]byte, n)
	got, err := e.ReadAt(p, int64(off))
	expect := want[off:min(off+n, len(want))]
	if !bytes.Equal(p[:got], expect) || (err == io.EOF) != (got < n) || err != nil && err != io.EOF {
		t.Errorf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
}

func TestExportIncomplete(t *testing.T) {
	dir, _, top := backedUp(t, "zstd")
	b := mustOpen(t, dir)
	if _, err := b.NewExport([]storepath.Path{top}); err == nil || !strings.Contains(err.Error(), "not in the closure") {
		t.Errorf("a list without its references: %v", err)
	}
	var damage *bincache.DamageError
	if _, err := b.NewExport([]storepath.Path{sp("absent")}); !errors.As(err, &damage) {
		t.Errorf("an absent path: %v", err)
	}
}

// Whatever bit of a NAR file flips, what is served of contents is an error or
// right; and the error comes before the record is complete, so that an import
// does not take the path.
func TestExportDamagedNAR(t *testing.T) {
	for _, compression := range []string{"zstd", "xz", "bzip2", "none"} {
		size := 640_000
		if compression != "zstd" {
			size /= 10 // that is one block, as ten times as much is
		}
		dir, _, _ := backedUpSized(t, compression, size)
		want, err := stream(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, layout.CacheDir, bincache.NARDir, "*"))
		if err != nil || len(files) != 3 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			forEachFlip(t, file, 50, func(offset int) {
				got, err := stream(t, dir)
				if err == nil && !bytes.Equal(got, want) {
					t.Errorf("%s: with byte %d flipped, the stream is wrong", file, offset)
				}
				if err != nil && len(got) == len(want) {
					t.Errorf("%s: with byte %d flipped, the stream is complete in spite of %v", file, offset, err)
				}
			})
		}
	}
}

// Whatever bit of a narinfo flips, the NAR that is served is right or an error.
func TestExportDamagedNarInfo(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	sum := store.Valid[top].NarHash
	forEachFlip(t, filepath.Join(dir, layout.CacheDir, top.Hash()+".narinfo"), 1000, func(offset int) {
		b := mustOpen(t, dir)
		info, err := b.Cache.Lookup(top)
		if err != nil {
			return
		}
		archive, err := b.Cache.Archive(info)
		if err != nil {
			return
		}
		defer archive.Close()
		got := newSum()
		if _, err := archive.WriteTo(got); err == nil && got.sum() != sum {
			t.Errorf("with byte %d flipped, another NAR is served: %+v", offset, info)
		}
	})
}

// forEachFlip flips bits of a file one after the other, at most count of them,
// and always those at both ends.
func forEachFlip(t *testing.T, file string, count int, check func(offset int)) {
	t.Helper()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	step := max(1, len(good)/count)
	for offset := range good {
		if offset%step != 0 && offset > 30 && offset < len(good)-30 {
			continue
		}
		damaged := bytes.Clone(good)
		damaged[offset] ^= 1 << (offset % 8)
		if err := os.WriteFile(file, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		check(offset)
	}
	if err := os.WriteFile(file, good, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestExportTrailer(t *testing.T) {
	info := &narinfo.NarInfo{StoreDir: "/s", StorePath: "p12", References: []storepath.Path{"r1", "r2"}, Deriver: "d"}
	got := string(exportTrailer(info))
	const word = "\x00\x00\x00\x00\x00\x00\x00"
	want := "NIXE\x00\x00\x00\x00" +
		"\x06" + word + "/s/p12\x00\x00" +
		"\x02" + word + "\x05" + word + "/s/r1\x00\x00\x00" + "\x05" + word + "/s/r2\x00\x00\x00" +
		"\x04" + word + "/s/d\x00\x00\x00\x00" +
		"\x00" + word
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
