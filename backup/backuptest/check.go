package backuptest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// CheckWhole checks that a backup is what plain Nix takes for whole: that every
// narinfo has its NAR file and its references, and that releases have all their
// paths.
func CheckWhole(t *testing.T, dir string, releases ...string) {
	t.Helper()
	cache := openCache(t, dir)
	defer cache.Close()
	hashes, err := cache.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	err = cache.Scan(context.Background(), hashes, func(info *narinfo.NarInfo) {
		checkArchived(t, cache, info)
	}, func(d *bincache.DamageError) { t.Error(d) })
	if err != nil {
		t.Error(err)
	}
	for _, name := range releases {
		checkRelease(t, cache, filepath.Join(dir, layout.ReleasesDir, name))
	}
}

// checkRelease checks a release by its files.
func checkRelease(t *testing.T, cache *bincache.Cache, dir string) {
	t.Helper()
	closure, err := os.ReadFile(filepath.Join(dir, layout.ClosureFile))
	if err != nil {
		t.Error(err)
	}
	paths := strings.Fields(string(closure))
	for _, line := range paths {
		p, err := storepath.ParseIn(cache.StoreDir(), line)
		if err == nil {
			_, err = cache.Lookup(p)
		}
		if err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	var record struct{ Paths int }
	ReadJSON(t, filepath.Join(dir, layout.ReleaseFile), &record)
	if len(paths) == 0 || record.Paths != len(paths) {
		t.Errorf("%s: %d paths, its record says %d", dir, len(paths), record.Paths)
	}
}

func checkArchived(t *testing.T, cache *bincache.Cache, info *narinfo.NarInfo) {
	t.Helper()
	for _, ref := range info.References {
		if has, err := cache.Has(ref.Hash()); !has || err != nil {
			t.Errorf("%s refers to %s, which has no narinfo (%v)", info.StorePath, ref, err)
		}
	}
	f, size, err := cache.OpenNAR(info)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil || size != info.FileSize || narinfo.Hash(sum.Sum(nil)).String() != info.FileHash {
		t.Errorf("%s: file hash %s, not %s (%v)", info.URL, narinfo.Hash(sum.Sum(nil)), info.FileHash, err)
	}
}

// CheckNoTemp checks that no temporary file is left.
func CheckNoTemp(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if disk.IsTemp(filepath.Base(name)) {
			t.Errorf("%s is left", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Exists reports whether a path is there at all.
func Exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// ReadJSON reads a file into v.
func ReadJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

// Paths returns the store paths of a backup by their names.
func Paths(t testing.TB, dir string) map[string]storepath.Path {
	t.Helper()
	cache := openCache(t, dir)
	defer cache.Close()
	hashes, err := cache.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]storepath.Path)
	for _, hash := range hashes {
		info, err := cache.NarInfo(hash)
		if err != nil {
			t.Fatal(err)
		}
		paths[info.StorePath.Name()] = info.StorePath
	}
	return paths
}
