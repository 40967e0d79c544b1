package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/narvault/narvault/narread/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content returns a NAR, as far as the spool cares.
func content(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>3 + i>>16 + seed)
	}
	return b
}

func keyOf(b []byte) Key { return Key{Hash: sha256.Sum256(b), Size: int64(len(b))} }

// put decodes b into w.
func put(w *Writer, b []byte) (*File, error) {
	var sums Sums
	for p := b; len(p) > 0; {
		n := min(len(p), BlockSize)
		if _, err := w.Write(p[:n]); err != nil {
			return nil, err
		}
		sums = append(sums, xxhash.Sum64(p[:n]))
		p = p[n:]
	}
	return w.Commit(sums), nil
}

// get returns b from d, decoding it if it is not there.
func get(d *Dir, b []byte) (f *File, decoded bool, err error) {
	f, w, err := d.Acquire(context.Background(), keyOf(b))
	if w != nil {
		f, err = put(w, b)
	}
	return f, w != nil, err
}

// use is get, and compares and closes.
func use(t testing.TB, d *Dir, b []byte) (decoded bool) {
	t.Helper()
	f, decoded, err := get(d, b)
	must(t, err)
	if err := verify(f, b); err != nil {
		t.Error(err)
	}
	must(t, f.Close())
	return decoded
}

// twice is use, two times, and returns how often it was decoded.
func twice(t testing.TB, d *Dir, b []byte) (n int) {
	t.Helper()
	for range 2 {
		if use(t, d, b) {
			n++
		}
	}
	return n
}

func verify(f *File, b []byte) error {
	got := make([]byte, len(b))
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return errors.New("another content")
	}
	for i, sum := range f.Sums() {
		if xxhash.Sum64(b[i*BlockSize:min(len(b), (i+1)*BlockSize)]) != sum {
			return errors.New("wrong sum")
		}
	}
	if _, err := f.ReadAt(make([]byte, 2), int64(len(b))-1); err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read behind the end: %v", err)
	}
	return nil
}

func names(t testing.TB, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range list {
		_, name, _ := strings.Cut(e.Name(), "-")
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there", "yet")
	for _, size := range []int{1, BlockSize - 1, BlockSize, BlockSize + 1, 3*BlockSize + 7} {
		b := content(1, size)
		for i := range 3 { // each time as after a restart
			if decoded := use(t, New(dir, 1<<30), b); decoded != (i == 0) {
				t.Errorf("%d bytes, time %d: decoded %v", size, i, decoded)
			}
		}
		if got := New(dir, 1<<30).Sums(keyOf(b)); len(got) != (size+BlockSize-1)/BlockSize {
			t.Errorf("%d bytes: %d sums", size, len(got))
		}
	}
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

// A key with another size or hash is another NAR.
func TestOtherKeys(t *testing.T) {
	d := New(t.TempDir(), 1<<30)
	b := content(1, 1000)
	use(t, d, b)
	for _, k := range []Key{{keyOf(b).Hash, 999}, {keyOf(b).Hash, 1001}, {sha256.Sum256(nil), 1000}} {
		if d.Open(k) != nil || d.Sums(k) != nil {
			t.Errorf("%v is there", k)
		}
	}
}

func TestNilDir(t *testing.T) {
	var d *Dir
	b := content(1, BlockSize+5)
	if twice(t, d, b) != 2 || d.Open(keyOf(b)) != nil || d.Sums(keyOf(b)) != nil {
		t.Error("something was kept")
	}
}

// TestLeastRecentlyUsed keeps within the limit, and what is in use.
func TestLeastRecentlyUsed(t *testing.T) {
	dir := t.TempDir()
	d := New(dir, 3500)
	nar := func(i int) []byte { return content(i, 1000+i) }
	at := time.Now().Add(-time.Hour)
	for i := range 3 {
		use(t, d, nar(i))
		must(t, os.Chtimes(d.path(keyOf(nar(i)), narExt), at, at.Add(time.Duration(i)*time.Minute)))
	}
	use(t, d, nar(0)) // 1 is now the oldest
	held, _, err := get(d, nar(1))
	must(t, err)
	must(t, os.Chtimes(d.path(keyOf(nar(1)), narExt), at, at))
	use(t, d, nar(3)) // 1 is held, so 2 goes
	must(t, verify(held, nar(1)))
	for i, want := range []bool{true, true, false, true} {
		f := d.Open(keyOf(nar(i)))
		if (f != nil) != want {
			t.Errorf("%d is there: %v", i, f != nil)
		}
		if f != nil {
			f.Close()
		}
		if i != 2 && d.Sums(keyOf(nar(i))) == nil {
			t.Errorf("sums of %d are gone", i)
		}
	}
	must(t, held.Close())
	before := names(t, dir)
	if !use(t, d, content(9, 4000)) || strings.ReplaceAll(names(t, dir), " 4000.sums", "") != before {
		t.Errorf("one that is too large is kept, or takes the others away: %s, before %s", names(t, dir), before)
	}
}

// All that fits is in use: then a new one gets a temporary file.
func TestAllInUse(t *testing.T) {
	d := New(t.TempDir(), 2500)
	a, b, c := content(1, 1000), content(2, 1001), content(3, 1002)
	fa, _, err := get(d, a)
	must(t, err)
	fb, _, err := get(d, b)
	must(t, err)
	if twice(t, d, c) != 2 {
		t.Error("more is kept than may be")
	}
	if d.Sums(keyOf(c)) == nil {
		t.Error("the sums of a temporary file are not kept")
	}
	must(t, errors.Join(fa.Close(), fb.Close()))
	if twice(t, d, c) != 1 {
		t.Error("room was not made")
	}
}

// Never more than half of what is free.
func TestHalfOfWhatIsFree(t *testing.T) {
	dir := testenv.Tmpfs(t, "size=4m")
	d := New(dir, 1<<40)
	for i := range 5 {
		use(t, d, content(i, 1<<20))
	}
	nars, _, err := d.scan()
	must(t, err)
	if n := total(nars); n < 1<<20 || n > 2<<20 {
		t.Errorf("%d bytes of 4 MiB", n)
	}
}

// TestNoDirectory has no place: then there are temporary files, or an error that
// says what to do.
func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	b := content(1, 5000)
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/none"} {
		d := New(dir, 1<<30)
		if twice(t, d, b) != 2 {
			t.Errorf("%s: something is kept", dir)
		}
	}
	t.Setenv("TMPDIR", filepath.Join(file, "none"))
	if _, _, err := get(New(file, 1<<30), b); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("%v", err)
	}
}

// TestFullDisk fills the file system while a NAR is being decoded.
func TestFullDisk(t *testing.T) {
	dir := testenv.Tmpfs(t, "size=1m")
	t.Setenv("TMPDIR", dir)
	b := content(1, 3<<20)
	_, _, err := get(New(filepath.Join(dir, "spool"), 1<<30), b)
	var we *WriteError
	if !errors.As(err, &we) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "XDG_CACHE_HOME") {
		t.Errorf("%v", err)
	}
}

// TestDamagedSums flips every byte of a file of sums, and cuts it everywhere.
func TestDamagedSums(t *testing.T) {
	d := New(t.TempDir(), 1<<30)
	b := content(1, 2*BlockSize)
	k := keyOf(b)
	use(t, d, b)
	name := d.path(k, sumsExt)
	good, err := os.ReadFile(name)
	must(t, err)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		for _, bad := range [][]byte{bad, good[:i], append(bytes.Clone(good), good[:i+1]...)} {
			must(t, os.WriteFile(name, bad, 0o600))
			if d.Sums(k) != nil {
				t.Fatalf("byte %d of %d: damage is not seen", i, len(good))
			}
		}
	}
	if !use(t, d, b) || use(t, d, b) {
		t.Error("a NAR without sums was used, or was not decoded anew")
	}
}

// TestOddFiles are in the place of those of the spool.
func TestOddFiles(t *testing.T) {
	for _, ext := range []string{narExt, sumsExt, partExt} {
		for what, make := range map[string]func(string) error{
			"directory": func(name string) error { return os.Mkdir(name, 0o700) },
			"pipe":      func(name string) error { return syscall.Mkfifo(name, 0o600) },
			"symlink":   func(name string) error { return os.Symlink("/etc/passwd", name) },
			"empty":     func(name string) error { return os.WriteFile(name, nil, 0o600) },
		} {
			d := New(t.TempDir(), 1<<30)
			b := content(1, 1000)
			must(t, make(d.path(keyOf(b), ext)))
			t.Logf("%s as %s", what, ext)
			if d.Sums(keyOf(b)) != nil {
				t.Error("there are sums")
			}
			use(t, d, b)
			use(t, d, b)
		}
	}
}

// TestDiscard removes what is bad, and nothing that took its place.
func TestDiscard(t *testing.T) {
	d := New(t.TempDir(), 1<<30)
	b := content(1, 1000)
	f, _, err := get(d, b)
	must(t, err)
	again := d.Open(keyOf(b))
	f.Discard()
	if d.Open(keyOf(b)) != nil {
		t.Error("it is still there")
	}
	if !use(t, d, b) {
		t.Error("it was not decoded anew")
	}
	again.Discard()
	if use(t, d, b) {
		t.Error("the new one was removed")
	}
	must(t, errors.Join(f.Close(), again.Close()))
}

// FuzzSums: no panic, and what is taken for sums is what is written for them.
func FuzzSums(f *testing.F) {
	k := Key{Hash: sha256.Sum256(nil), Size: 3*BlockSize - 1}
	f.Add(encodeSums(k, Sums{1, 2, 1 << 63}), k.Size)
	f.Add(encodeSums(Key{k.Hash, 1}, Sums{7}), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		k := Key{k.Hash, size}
		sums, err := decodeSums(k, b)
		if err == nil && !bytes.Equal(encodeSums(k, sums), b) {
			t.Errorf("%d sums", len(sums))
		}
	})
}
