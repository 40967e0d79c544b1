package check

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread"
)

// What cannot be read is not called damaged. The kernel refuses to read where a
// process has no memory.
func TestUnreadable(t *testing.T) {
	s := newScene(t)
	c := &checker{o: &Options{}, table: newTable(nil)}
	c.o.applyDefaults()
	b, err := backup.Open(s.dir, openOptions())
	must(t, err)
	defer b.Close()
	c.b, c.cache = b, b.Cache
	info, err := b.Cache.Lookup(s.lib)
	must(t, err)
	mem, err := os.Open("/proc/self/mem")
	must(t, err)
	defer mem.Close()
	e := &examination{c: c, n: &narFile{url: "nar/x"}, claim: claim{"zstd", info.FileHash, info.FileSize, info.NarHash, info.NarSize}, file: "nar/x"}
	e.run(t.Context(), mem, info.FileSize)
	if len(e.out) != 1 || e.out[0].Severity != Unreadable || !strings.Contains(e.out[0].Message, "input/output error") {
		t.Errorf("%+v", e.out)
	}
	for err, want := range map[error]Severity{
		&fs.PathError{Err: syscall.EIO}: Unreadable, &fs.PathError{Err: syscall.EACCES}: Unreadable, syscall.ESTALE: Unreadable,
		&fs.PathError{Err: syscall.EISDIR}: Damage, syscall.ELOOP: Damage, errors.New("path escapes from parent"): Damage,
		&narread.DamageError{Err: io.ErrUnexpectedEOF}: Damage,
	} {
		if got := severityOf(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// TestSource reads a file in every order of its pieces: the hash is that of the
// file, and each byte is counted once.
func TestSource(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	data := bytes.Repeat([]byte("0123456789"), 100)
	must(t, os.WriteFile(name, data, 0o644))
	h, _ := newFileHash("")
	h.Write(data)
	want := h.Sum(nil)
	for _, order := range [][]int64{{0, 250, 500, 750}, {750, 0, 500, 250}, {500, 250}, {}, {0, 0, 250, 750, 750, 100}, {900, 100, 1}} {
		f, err := os.Open(name)
		must(t, err)
		read := 0
		h, _ := newFileHash("")
		s := newSource(f, int64(len(data)), h, func(n int) { read += n })
		for _, off := range order {
			p := make([]byte, 250)
			if n, err := s.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
				t.Errorf("read at %d: %d, %v", off, n, err)
			}
		}
		must(t, s.finish())
		if !bytes.Equal(h.Sum(nil), want) || read != len(data) || s.held != 0 {
			t.Errorf("%v: hash %x, read %d bytes, held %d", order, h.Sum(nil), read, s.held)
		}
		must(t, f.Close())
	}
}
