package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "two", ""} {
		if err := WriteFile(OS{}, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := WriteFile(OS{}, filepath.Join(name, "x"), nil); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("in a file: %v", err)
	}
}

// failing is a file system whose files cannot be synced.
type failing struct{ OS }

func (failing) CreateTemp(dir string) (File, error) {
	f, err := OS{}.CreateTemp(dir)
	return failingFile{f}, err
}

type failingFile struct{ File }

func (failingFile) Sync() error { return syscall.EIO }

func TestWriteFileFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(OS{}, name, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(failing{}, name, []byte("new")); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "old" {
		t.Errorf("the file is %q now (%v)", got, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestMkdirAll(t *testing.T) {
	base := t.TempDir()
	for range 2 {
		if err := MkdirAll(OS{}, base, filepath.Join(base, "a", "b", "c")); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(filepath.Join(base, "a", "b", "c")); err != nil || !st.IsDir() {
		t.Errorf("got %v, %v", st, err)
	}
	if err := MkdirAll(OS{}, base, base); err != nil {
		t.Errorf("base itself: %v", err)
	}
	if err := MkdirAll(OS{}, base, filepath.Join(base, "..", "x")); err == nil {
		t.Error("a directory outside was made")
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(OS{}, base, filepath.Join(base, "file", "x")); err == nil {
		t.Error("a directory in a file was made")
	}
}

func TestMkdirAndRemove(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	f, err := OS{}.Append(file)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := (OS{}).Mkdir(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory in place of a file: %v", err)
	}
	for range 2 {
		if err := (OS{}).Remove(file); err != nil {
			t.Error(err)
		}
	}
	if err := (OS{}).SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := (OS{}).SyncDir(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// Temporary files can be told from others.
func TestCreateTemp(t *testing.T) {
	f, err := OS{}.CreateTemp(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base := filepath.Base(f.Name())
	if !strings.HasPrefix(base, TempPrefix) || !strings.HasSuffix(base, TempSuffix) {
		t.Errorf("called %s", base)
	}
	if st, err := os.Stat(f.Name()); err != nil || st.Mode().Perm()&0o400 == 0 {
		t.Errorf("got %v, %v", st, err)
	}
}
