package backuptest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A Scene is a backup with a release to keep and one to forget. They share a
// library, and a content under two names.
type Scene struct {
	*testing.T
	Dir   string
	Store *Store
	Keep  storepath.Path
	Drop  storepath.Path
	Only  storepath.Path // a library of drop alone
}

// NewScene makes it by record, which backs up a release p/name.
func NewScene(t *testing.T, record func(dir string, store *Store, name string, root storepath.Path)) *Scene {
	t.Helper()
	s := &Scene{T: t, Store: NewStore(t), Dir: filepath.Join(t.TempDir(), "backup")}
	lib := s.Store.Add("lib", strings.Repeat("library ", 1000))
	twin := s.Store.Add("twin.txt", "shared content")
	s.Keep = s.Store.Add("keep", "keep", lib, twin)
	s.Only = s.Store.Add("only", strings.Repeat("only ", 1000), lib)
	other := s.Store.Add("other.txt", "shared content", s.Only)
	s.Drop = s.Store.Add("drop", "drop", s.Only, other, lib)
	record(s.Dir, s.Store, "keep", s.Keep)
	record(s.Dir, s.Store, "drop", s.Drop)
	return s
}

// Path returns the path of a file of the backup.
func (s *Scene) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Remove removes a file or directory of the backup.
func (s *Scene) Remove(elem ...string) {
	s.Helper()
	if err := os.RemoveAll(s.Path(elem...)); err != nil {
		s.Fatal(err)
	}
}

// Write writes a file of the backup.
func (s *Scene) Write(text string, elem ...string) {
	s.Helper()
	name := s.Path(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

// NarInfo returns the narinfo of a store path.
func (s *Scene) NarInfo(p storepath.Path) *narinfo.NarInfo {
	s.Helper()
	cache := openCache(s.T, s.Dir)
	defer cache.Close()
	info, err := cache.Lookup(p)
	if err != nil {
		s.Fatal(err)
	}
	return info
}

// SetURL makes a narinfo name another NAR file.
func (s *Scene) SetURL(p storepath.Path, url string) {
	s.Helper()
	info := s.NarInfo(p)
	info.URL = url
	s.Write(string(info.Bytes()), layout.CacheDir, p.Hash()+bincache.NarInfoExt)
}

// Tree returns the names and sizes of all files but locks.
func Tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); base == layout.LocksDir || base == layout.LockFile || base == layout.MutexFile {
			return nil
		}
		info, err := d.Info()
		if err == nil && d.IsDir() {
			files = append(files, name)
		} else if err == nil {
			files = append(files, fmt.Sprint(name, " ", info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func openCache(t testing.TB, dir string) *bincache.Cache {
	t.Helper()
	cache, err := bincache.Open(filepath.Join(dir, layout.CacheDir), bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

// Copy returns the same for another test, with a copy of its backup.
func (s *Scene) Copy(t *testing.T) *Scene {
	t.Helper()
	c := *s
	c.T, c.Dir = t, filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(c.Dir, os.DirFS(s.Dir)); err != nil {
		t.Fatal(err)
	}
	return &c
}

// InMemory runs tests with their temporary files in memory, if that is possible.
func InMemory(m *testing.M) int {
	if dir, err := os.MkdirTemp("/dev/shm", "narvault-backup-test-"); err == nil {
		defer os.RemoveAll(dir)
		os.Setenv("TMPDIR", dir)
	}
	return m.Run()
}
