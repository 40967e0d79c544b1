package bincache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

const (
	hash = "sh8025fhmz1wq27663bakmq915a2pf79"
	base = hash + "-x"
	sum  = "sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl"
)

// narInfo returns a narinfo, with a field changed.
func narInfo(changes ...string) string {
	fields := [][2]string{
		{"StorePath", "/nix/store/" + base}, {"URL", "nar/x.nar"}, {"Compression", "none"},
		{"FileSize", "5"}, {"NarHash", sum}, {"NarSize", "112"}, {"References", ""},
	}
	var b strings.Builder
	for _, f := range fields {
		for i := 0; i < len(changes); i += 2 {
			if changes[i] == f[0] {
				f[1] = changes[i+1]
			}
		}
		fmt.Fprintf(&b, "%s: %s\n", f[0], f[1])
	}
	return b.String()
}

// newCache makes a cache directory from names and contents, beside a file that
// no cache may reach, and opens it.
func newCache(t *testing.T, files map[string]string) *Cache {
	t.Helper()
	outer := t.TempDir()
	dir := filepath.Join(outer, "cache")
	write(t, filepath.Join(outer, "secret"), "12345")
	write(t, filepath.Join(dir, "nar", "x.nar"), "12345")
	write(t, filepath.Join(dir, InfoFile), "StoreDir: /nix/store\n")
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	c, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name, info string
		storeDir   string // "" is an error
	}{
		{"plain", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n", "/nix/store"},
		{"empty", "", DefaultStoreDir},
		{"other store", "StoreDir:/gnu/store  \n", "/gnu/store"},
		{"unknown lines", "hello\nX: y\nStoreDir: /a/b", "/a/b"},
		{"carriage returns", "StoreDir: /nix/store\r\n", "/nix/store"},
		{"relative store", "StoreDir: nix/store\n", ""},
		{"trailing slash", "StoreDir: /nix/store/\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, InfoFile), c.info)
			cache, err := Open(dir, Options{})
			if c.storeDir == "" {
				var damage *DamageError
				if !errors.As(err, &damage) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer cache.Close()
			if cache.StoreDir() != c.storeDir {
				t.Errorf("store directory %q, want %q", cache.StoreDir(), c.storeDir)
			}
		})
	}
	if _, err := Open(t.TempDir(), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestNarInfo(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // in the error, "" for none
	}{
		{"good", narInfo(), ""},
		{"not a narinfo", "hello", "no colon"},
		{"of another path", narInfo("StorePath", "/nix/store/00000000000000000000000000000000-x"), "another store path"},
		{"of another store", narInfo("StorePath", "/gnu/store/"+base), "store directory of the cache"},
		{"URL leads out", narInfo("URL", "../secret"), "leads out"},
		{"URL leads out later", narInfo("URL", "nar/../../secret"), "leads out"},
		{"URL absolute", narInfo("URL", "/etc/passwd"), "leads out"},
		{"URL elsewhere", narInfo("URL", "https://example.org/x.nar"), "not a file of this cache"},
		{"URL the cache", narInfo("URL", "."), "leads out"},
		{"too large", narInfo() + strings.Repeat("X: y\n", maxNarInfo/5), "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := newCache(t, map[string]string{hash + ".narinfo": c.text})
			info, err := cache.NarInfo(hash)
			if c.want == "" {
				if err != nil || info.StorePath != base {
					t.Errorf("got %v, %v", info, err)
				}
				return
			}
			var damage *DamageError
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(damage.File, hash+".narinfo") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	cache := newCache(t, map[string]string{hash + ".narinfo": narInfo()})
	if _, err := cache.Lookup(base); err != nil {
		t.Error(err)
	}
	for _, p := range []storepath.Path{hash + "-y", "00000000000000000000000000000000-x"} {
		if _, err := cache.Lookup(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, bad := range []string{"", "..", "../secret", strings.Repeat("e", 32)} {
		if _, err := cache.NarInfo(bad); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOpenNAR(t *testing.T) {
	cache := newCache(t, nil)
	if err := os.Symlink("circle", filepath.Join(cache.Dir(), "nar", "circle")); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(cache.Dir(), "nar", "outside")
	if err := os.Symlink("../../secret", outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x.nar", filepath.Join(cache.Dir(), "nar", "inside")); err != nil {
		t.Fatal(err)
	}
	// A pipe, which nobody writes to, must not make anybody wait.
	if err := syscall.Mkfifo(filepath.Join(cache.Dir(), "nar", "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url string
		size      int64
		want      string // in the error
		damage    bool
	}{
		{"good", "nar/x.nar", 5, "", false},
		{"size not said", "nar/x.nar", 0, "", false},
		{"link inside", "nar/inside", 5, "", false},
		{"truncated", "nar/x.nar", 6, "has 5 bytes, its narinfo says 6", true},
		{"longer", "nar/x.nar", 4, "has 5 bytes, its narinfo says 4", true},
		{"missing", "nar/y.nar", 5, "NAR file of " + base + " is missing", true},
		{"directory", "nar", 0, "not a regular file", true},
		{"pipe", "nar/pipe", 0, "not a regular file", true},
		{"link outside", "nar/outside", 5, "escapes", true},
		{"link to itself", "nar/circle", 5, "too many levels", true},
		{"dots", "../secret", 5, "leads out", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, size, err := cache.OpenNAR(&narinfo.NarInfo{StorePath: base, URL: c.url, FileSize: c.size})
			if c.want == "" {
				if err != nil || size != 5 {
					t.Fatalf("got %d, %v", size, err)
				}
				f.Close()
				return
			}
			var damage *DamageError
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &damage) != c.damage {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestURLs opens the NAR under every URL that is known of binary caches.
func TestURLs(t *testing.T) {
	hash, hex := strings.Repeat("0", 52), strings.Repeat("ab", 32)
	for url, file := range map[string]string{
		"nar/" + hash + ".nar.xz":                      "",                            // Nix since 2.0
		hash + ".nar.xz":                               "",                            // nix-push 1.x
		base[:32] + ".nar":                             "",                            // S3Backup
		"nar/" + hex + ".nar.zst":                      "",                            // cachix
		"nar/" + base:                                  "",                            // Hydra
		"nar/" + base[:32] + "-" + hash + ".nar":       "",                            // nix-serve
		"nar/" + hash + ".nar?hash=" + base[:32]:       "nar/" + hash + ".nar",        // harmonia, copied to files
		"nar/" + hash + ".nar?hash=" + base[:31] + "x": "",                            // the same, by who keeps the query
		"nar/tvix-castore/CgsKAWEQAQ?narsize=5":        "nar/tvix-castore/CgsKAWEQAQ", // nar-bridge
		"nar/" + hash + ".nar":                         "",                            // of 2021, whatever the compression
		"nar/a%20b.nar":                                "",
	} {
		if file == "" {
			file = url
		}
		cache := newCache(t, map[string]string{file: "12345"})
		f, size, err := cache.OpenNAR(&narinfo.NarInfo{StorePath: base, URL: url, FileSize: 5})
		if err != nil || size != 5 {
			t.Errorf("%s: %d bytes, error %v", url, size, err)
			continue
		}
		f.Close()
	}
}

func TestScan(t *testing.T) {
	other := strings.Repeat("0", 32)
	cache := newCache(t, map[string]string{
		hash + ".narinfo":                       narInfo(),
		other + ".narinfo":                      "broken",
		"short.narinfo":                         narInfo(),
		strings.Repeat("e", 32) + ".narinfo":    narInfo(),
		strings.Repeat("1", 32) + ".ls":         "{}",
		".narvault-x.tmp":                       narInfo(),
		strings.Repeat("2", 32) + ".narinfo.xz": narInfo(),
	})
	directory, outside := strings.Repeat("4", 32), strings.Repeat("5", 32)
	if err := os.Mkdir(filepath.Join(cache.Dir(), directory+".narinfo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(cache.Dir(), outside+".narinfo")); err != nil {
		t.Fatal(err)
	}
	hashes, err := cache.Hashes()
	if err != nil || !slices.Equal(hashes, []string{other, directory, outside, hash}) {
		t.Fatalf("got %v, %v", hashes, err)
	}
	var good, bad []string
	vanished := strings.Repeat("3", 32)
	err = cache.Scan(t.Context(), append(hashes, vanished),
		func(info *narinfo.NarInfo) { good = append(good, string(info.StorePath)) },
		func(d *DamageError) { bad = append(bad, filepath.Base(d.File)) })
	slices.Sort(bad)
	if err != nil || !slices.Equal(good, []string{base}) || !slices.Equal(bad, []string{other + ".narinfo", directory + ".narinfo", outside + ".narinfo"}) {
		t.Errorf("good %v, bad %v, %v", good, bad, err)
	}
}

// What Nix itself puts into a cache is read as Nix wrote it.
func TestNixCache(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content")
	path := strings.TrimSpace(testenv.Run(t, dir, "nix-store", "--store", dir+"/s", "--add", "file"))
	testenv.Run(t, dir, "nix", "copy", "--from", dir+"/s", "--to", "file://"+dir+"/cache?compression=zstd", path)
	cache, err := Open(dir+"/cache", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	p, err := storepath.ParseIn(cache.StoreDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := cache.Lookup(p)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := cache.Archive(info)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	got, err := io.ReadAll(io.NewSectionReader(archive, 0, archive.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if want := testenv.Run(t, dir, "nix-store", "--store", dir+"/s", "--dump", dir+"/s"+path); string(got) != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

// A directory without nix-cache-info is a binary cache if it has a narinfo,
// which tells the store directory.
func TestOpenWithoutInfo(t *testing.T) {
	dir := t.TempDir()
	if Is(dir) {
		t.Error("an empty directory is a cache")
	}
	write(t, filepath.Join(dir, hash+".narinfo"), narInfo("StorePath", "/gnu/store/"+base))
	write(t, filepath.Join(dir, strings.Repeat("0", 32)+".narinfo"), "damaged")
	if !Is(dir) {
		t.Error("it is no cache")
	}
	c, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.StoreDir() != "/gnu/store" || c.StoreDirKnown() {
		t.Errorf("store directory %s", c.StoreDir())
	}
	if err := c.Present(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, hash+".narinfo")); err != nil {
		t.Fatal(err)
	}
	if err := c.Present(); err == nil {
		t.Error("a cache of which nothing is left is present")
	}
}

func TestOpenDamaged(t *testing.T) {
	for _, c := range []struct{ info, want, message string }{
		{"StoreDir: /nix/store\n", "/nix/store", ""},
		{"StoreDir: nix/store\n", "/nix/store", "not an absolute path"},
		{"StoreDir: /gnu/store\n", "/nix/store", "StoreDir is /gnu/store, but " + hash + ".narinfo and others are of /nix/store"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, InfoFile), c.info)
		write(t, filepath.Join(dir, hash+".narinfo"), narInfo())
		cache, damage, err := OpenDamaged(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		if cache.StoreDir() != c.want || (damage == nil) != (c.message == "") || damage != nil && !strings.Contains(damage.Error(), c.message) {
			t.Errorf("%q: %s, %v", c.info, cache.StoreDir(), damage)
		}
	}
}
