package fusefs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/zseek"
)

// fileBackup is a backup whose archives are files in a directory.
type fileBackup struct {
	*memBackup
	dir string
}

func newFileBackup(t *testing.T, b *memBackup) *fileBackup {
	t.Helper()
	f := &fileBackup{b, t.TempDir()}
	pool := zseek.NewPool(2, 3)
	for p, data := range b.nars {
		file, err := os.Create(f.file(p))
		must(t, err)
		w := zseek.NewWriter(file, pool, zseek.WriterOptions{})
		_, err = w.Write(data)
		must(t, err)
		must(t, w.Close())
		must(t, file.Close())
	}
	return f
}

func (f *fileBackup) file(p storepath.Path) string { return filepath.Join(f.dir, string(p)+".nar.zst") }

func (f *fileBackup) Open(p storepath.Path) (Tree, error) {
	file, err := os.Open(f.file(p))
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return narread.Open(file, st.Size(), narread.Options{
		Name: f.file(p), Compression: "zstd", NarSize: int64(len(f.nars[p])), NarHash: narinfo.Hash(sha256.Sum256(f.nars[p])),
	})
}

// A mount goes on when the file of an archive is damaged, truncated or replaced
// below it, and sees the good one when it is there again.
func TestReplacedFiles(t *testing.T) {
	b := newMemBackup()
	hurt, other := path(1, "hurt"), path(2, "other")
	const size = 8 << 20
	for _, p := range []storepath.Path{hurt, other} {
		b.pack(t, p, nar.Header{Type: nar.Directory},
			nar.Header{Depth: 1, Name: "a", Type: nar.Regular, Size: size},
			nar.Header{Depth: 1, Name: "z", Type: nar.Regular, Size: size})
	}
	for _, c := range []struct {
		name string
		hurt func(file string, good []byte) error
		mend func(file string, good []byte) error
		a    bool // a can be read meanwhile
	}{
		{"truncated", func(file string, good []byte) error { return os.Truncate(file, int64(len(good))*3/4) }, replaceFile, true},
		{"replaced by garbage, in place", func(file string, good []byte) error {
			return os.WriteFile(file, make([]byte, len(good)), 0644)
		}, replaceFile, false},
		{"replaced by another file that is damaged", func(file string, good []byte) error {
			bad := append([]byte(nil), good...)
			bad[len(bad)*3/4] ^= 1
			return os.WriteFile(file, bad, 0644)
		}, func(file string, good []byte) error { return os.WriteFile(file, good, 0644) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFileBackup(t, b)
			s := mounted(t, f, Options{Logf: t.Logf, reopenAfter: time.Nanosecond})
			good, err := os.ReadFile(f.file(hurt))
			must(t, err)
			at := s.Mountpoint() + "/store/" + string(hurt)
			sh(t, `ls -l "$1"`, at) // it is open
			must(t, c.hurt(f.file(hurt), good))
			if got := shFails(t, `cat "$1"/z`, at); !strings.Contains(got, "Input/output error") {
				t.Errorf("cat: %s", got)
			}
			if c.a {
				if got := sh(t, `cat "$1"/a`, at); got != string(content(size)) {
					t.Error("the part before the damage is wrong")
				}
			}
			sh(t, `cat "$1"/*`, s.Mountpoint()+"/store/"+string(other))
			if got := sh(t, `cat "$1"/.narvault/errors`, s.Mountpoint()); !strings.Contains(got, string(hurt)) {
				t.Errorf("errors: %q", got)
			}
			must(t, c.mend(f.file(hurt), good))
			for _, file := range []string{"a", "z"} {
				if got := sh(t, `cat "$1"`, at+"/"+file); got != string(content(size)) {
					t.Errorf("%s is wrong after the file is good again", file)
				}
			}
		})
	}
}

func replaceFile(file string, good []byte) error {
	if err := os.WriteFile(file+".new", good, 0644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// mapped is a backup whose list is in a file that is mapped into memory.
type mapped struct {
	*memBackup
	data []byte
}

func (m mapped) Open(p storepath.Path) (Tree, error) {
	if m.data[len(m.data)-1] != 0 { // SIGBUS when the file is shorter
		return nil, fmt.Errorf("open %s: odd", p)
	}
	return m.memBackup.Open(p)
}

// A drive with a mapped index that is pulled does not end the server.
func TestFaultIsEIO(t *testing.T) {
	testenv.Need(t, "fuse")
	b, _ := sample(t)
	name := filepath.Join(t.TempDir(), "index")
	must(t, os.WriteFile(name, make([]byte, 1<<16), 0644))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	data, err := unix.Mmap(int(file.Fd()), 0, 1<<16, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(data)
	s := mounted(t, mapped{b, data}, Options{Logf: t.Logf})
	must(t, file.Truncate(0))
	if got := shFails(t, `for i in 1 2 3 4 5 6 7 8; do cat "$1" || bad=1; done; test -z "$bad"`, s.Mountpoint()+"/store/"+string(filePath)); strings.Count(got, "Input/output error") != 8 {
		t.Errorf("cat: %q", got)
	}
	if got := sh(t, `cat "$1"/.narvault/errors`, s.Mountpoint()); !strings.Contains(got, "panic: runtime error") {
		t.Errorf("errors: %q", got)
	}
	must(t, file.Truncate(1<<16))
	if got := sh(t, `"$1" x`, s.Mountpoint()+"/store/"+string(filePath)); got != "ran x\n" {
		t.Errorf("after the fault: %q", got)
	}
}

// hugeBackup has streams of any size.
type hugeBackup struct {
	*memBackup
	size int64
}

type zeros struct{ size int64 }

func (z zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }
func (z zeros) Size() int64                           { return z.size }
func (z zeros) Close() error                          { return nil }

func (b hugeBackup) ExportRelease(ReleaseID) (Stream, error) { return zeros{b.size}, nil }

// What is behind the reader of a stream does not fill the page cache.
func TestStreamsLeaveThePageCache(t *testing.T) {
	b, _ := sample(t)
	const size = 256 << 20
	s := mounted(t, hugeBackup{b, size}, Options{Logf: t.Logf})
	file := s.Mountpoint() + "/exports/releases/demo/demo-1.0.closure"
	if got := sh(t, `wc -c < "$1"`, file); strings.TrimSpace(got) != fmt.Sprint(size) {
		t.Fatalf("wc -c: %s", got)
	}
	if got := sh(t, `cat "$1" | cksum`, file); !strings.HasSuffix(got, fmt.Sprintf(" %d\n", size)) {
		t.Fatalf("cksum: %s", got)
	}
	const most = (reclaimStep + 2*reclaimLag) >> 20
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for got := ""; ; time.Sleep(10 * time.Millisecond) { // the last ones go when all was read
		got = child(t, "cached", file)
		var mib int
		if _, err := fmt.Sscanf(got, "%d MiB", &mib); err == nil && mib <= most {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("in the page cache: %s, want at most %d MiB", got, most)
		}
	}
}

// Signals, which Go programs send themselves all the time, are no errors.
func TestSignalStorm(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	if got := child(t, "storm", s.Mountpoint()+"/store/"+string(samplePath)+"/big"); got != "ok\n" {
		t.Error(got)
	}
}
