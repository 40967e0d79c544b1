package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/zseek"
)

type storePath = storepath.Path

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	f := newFakeCache(t, 3)
	dir := filepath.Join(t.TempDir(), "index")
	f.build(dir, BuildOptions{})
	must(t, filepath.WalkDir(filepath.Join(dir, "gen-1"), func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o644)
		if d.IsDir() {
			want = 0o755
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
		return nil
	}))
	info, err := os.Stat(filepath.Join(dir, currentFile))
	must(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("CURRENT has mode %v", info.Mode().Perm())
	}
}

// An index that root built serves a user, who cannot build in its place.
func TestOtherUser(t *testing.T) {
	testenv.Need(t, "root")
	f := newFakeCache(t, 20)
	top, err := os.MkdirTemp("", "narvault-index")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(top) })
	must(t, os.Chmod(top, 0o755))
	dir := filepath.Join(top, "index")
	f.build(dir, BuildOptions{})
	must(t, os.CopyFS(filepath.Join(top, "cache"), os.DirFS(f.dir)))
	self, err := os.Executable()
	must(t, err)
	copied := filepath.Join(top, "child")
	copyFile(t, self, copied)

	cmd := child(t, "user", dir, filepath.Join(top, "cache"))
	cmd.Path, cmd.Dir = copied, top
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	must(t, err)
	if want := "20 records; build: permission denied; suits: permission denied\n"; string(out) != want {
		t.Errorf("the user has %q, want %q", out, want)
	}
}

// childIsUser says what an ordinary user can do with the index.
func childIsUser(dir, cacheDir string) {
	ix, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	n := 0
	for _, e := range ix.Paths() {
		if _, err := ix.Record(e.Path); err != nil {
			panic(err)
		}
		n++
	}
	c, err := bincache.Open(cacheDir, bincache.Options{})
	if err != nil {
		panic(err)
	}
	_, err = Build(context.Background(), dir, c, BuildOptions{})
	fmt.Printf("%d records; build: %v; suits: %v\n", n, cause(err), cause(Suits(dir, true)))
	os.Exit(0)
}

func cause(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
}

func TestReadOnlyFileSystem(t *testing.T) {
	medium := testenv.Tmpfs(t, "size=200m")
	f := newFakeCache(t, 20)
	dir := filepath.Join(medium, "index")
	f.build(dir, BuildOptions{})
	must(t, unix.Mount("", medium, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	f.check(dir)
	f.add("x")
	if _, err := Build(t.Context(), dir, f.open(), BuildOptions{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Build: %v", err)
	}
	must(t, Suits(dir, false))
	if err := Suits(dir, true); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Suits: %v", err)
	}
}

// Badger would die of a full disk.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(testenv.Tmpfs(t, "size=80m"), "index")
	f := newFakeCache(t, 20)
	f.build(dir, BuildOptions{})
	huge := hugeListing(t)
	f.add("x")
	// Records that fill what is left.
	o := BuildOptions{Listing: func(context.Context, *narinfo.NarInfo) (*nar.Listing, error) { return huge, nil }}
	for range 20 {
		p := f.add("x")
		info, err := narinfo.Parse(f.want[p].file)
		must(t, err)
		info.NarSize = huge.NarSize()
		f.write(p, info.Bytes())
	}
	if _, err := Build(t.Context(), dir, f.open(), o); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Build: %v", err)
	}
	if got := generations(t, dir); len(got) != 1 {
		t.Errorf("generations %v", got)
	}
}

// hugeListing has some 2 MB that do not compress.
func hugeListing(t testing.TB) *nar.Listing {
	t.Helper()
	var b nar.Builder
	must(t, b.Add(nar.Header{Type: nar.Directory}))
	f := newFakeCache(t, 0)
	for i := range 40_000 {
		name := fmt.Sprintf("%05d%s%s", i, randomHash(f.rnd), strings.Repeat(randomHash(f.rnd), 1))
		must(t, b.Add(nar.Header{Depth: 1, Name: name, Type: nar.Regular, Size: f.rnd.Int64N(1 << 20)}))
	}
	l, err := b.Listing()
	must(t, err)
	return l
}

// A record of many pieces comes back as it was.
func TestLargeRecord(t *testing.T) {
	f := newFakeCache(t, 3)
	dir := t.TempDir()
	huge := hugeListing(t)
	p := f.paths()[1]
	info, err := narinfo.Parse(f.want[p].file)
	must(t, err)
	info.NarSize = huge.NarSize()
	f.write(p, info.Bytes())
	f.want[p].listing = describeListing(huge)
	c := f.open()
	f.build(dir, BuildOptions{Listing: func(ctx context.Context, info *narinfo.NarInfo) (*nar.Listing, error) {
		if info.StorePath == p {
			return huge, nil
		}
		l, _, err := readContents(ctx, c, info, false)
		return l, err
	}})
	f.check(dir)
	f.add("x")
	if s := f.build(dir, BuildOptions{}); s.Reused != 3 {
		t.Errorf("%+v", s)
	}
	f.check(dir)
}

func TestListingOption(t *testing.T) {
	f := newFakeCache(t, 3)
	dir := t.TempDir()
	none := func(context.Context, *narinfo.NarInfo) (*nar.Listing, error) { return nil, nil }
	warn := func(err error) { t.Error(err) }
	if s := f.build(dir, BuildOptions{Listing: none, Warn: warn}); s.NoListing != 3 || s.Entries != 0 {
		t.Errorf("left out: %+v", s)
	}
	checkNoListing(t, dir, f.paths()[0])
	if s := f.build(dir, BuildOptions{Listing: none}); !s.Unchanged {
		t.Errorf("left out again: %+v", s)
	}
	if s := f.build(dir, BuildOptions{}); s.NoListing != 0 || s.Unchanged || s.Entries == 0 {
		t.Errorf("made later: %+v", s)
	}
	f.check(dir)
}

func TestBuildIsInterrupted(t *testing.T) {
	f := newFakeCache(t, 100)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	o := BuildOptions{Progress: func(done, _ int) {
		if done == 50 {
			cancel()
		}
	}}
	if _, err := Build(ctx, dir, f.open(), o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := generations(t, dir); len(got) != 0 {
		t.Errorf("generations %v", got)
	}
	f.build(dir, BuildOptions{})
	f.check(dir)
}

func TestLocation(t *testing.T) {
	c := newFakeCache(t, 0).open()
	byID, err := Identity(c, "9b2d")
	must(t, err)
	byDir, err := Identity(c, "")
	must(t, err)
	again, err := Identity(newFakeCache(t, 0).open(), "")
	must(t, err)
	if byID != "id-9b2d" || !strings.HasPrefix(byDir, "dir-") || again == byDir {
		t.Errorf("%s, %s, %s", byID, byDir, again)
	}
	if dir, err := UserDir(byDir, "/c"); err != nil || dir != "/c/narvault/index/"+byDir {
		t.Errorf("%s, %v", dir, err)
	}
	t.Setenv("XDG_CACHE_HOME", "/d")
	if dir, err := UserDir(byID, ""); err != nil || dir != "/d/narvault/index/id-9b2d" {
		t.Errorf("%s, %v", dir, err)
	}
	for _, bad := range []string{"", "../x", "a\x00"} {
		if dir, err := UserDir(bad, "/c"); err == nil {
			t.Errorf("%q: %s", bad, dir)
		}
	}
	must(t, Suits(filepath.Join(t.TempDir(), "not", "yet"), true))
	for magic, want := range map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, unix.SQUASHFS_MAGIC: false, unix.CIFS_SUPER_MAGIC: false, unix.MSDOS_SUPER_MAGIC: false} {
		if got := unsuited(magic) == ""; got != want {
			t.Errorf("%x suits: %v", magic, got)
		}
	}
	if err := suits("/", false); err != nil {
		t.Log(err) // wherever the tests run
	}
}

// The layout of an archive is kept, and opens it; a shallow build reads none
// that it would have to decode as a whole.
func TestLayoutAndShallow(t *testing.T) {
	f := newFakeCache(t, 2)
	p := f.paths()[0]
	packed := storepath.Path(randomHash(f.rnd) + "-packed")
	archive := f.randomNAR()
	f.put(packed, archive)
	info, err := narinfo.Parse(f.want[packed].file)
	must(t, err)
	var out bytes.Buffer
	w := zseek.NewWriter(&out, zseek.NewPool(1, 3), zseek.WriterOptions{})
	_, err = w.Write(archive)
	must(t, errors.Join(err, w.Close()))
	must(t, os.WriteFile(filepath.Join(f.dir, info.URL), out.Bytes(), 0o644))
	info.Compression, info.FileSize = "zstd", int64(out.Len())
	listing := f.want[packed].listing
	f.write(packed, info.Bytes())
	f.want[packed].listing = listing

	dir := t.TempDir()
	if s := f.build(dir, BuildOptions{Shallow: true}); s.NoListing != 2 {
		t.Errorf("shallow: %+v", s)
	}
	checkNoListing(t, dir, p)
	if s := f.build(dir, BuildOptions{}); s.NoListing != 0 || s.Reused != 1 {
		t.Errorf("deep: %+v", s)
	}
	if s := f.build(dir, BuildOptions{Shallow: true}); !s.Unchanged {
		t.Errorf("shallow again: %+v", s)
	}
	f.check(dir)
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	r, err := ix.Record(packed)
	must(t, err)
	a, err := narread.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), narread.Options{
		Compression: "zstd", NarSize: info.NarSize, NarHash: info.NarHash, Layout: r.Layout,
	})
	must(t, err)
	defer a.Close()
	if got, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size())); err != nil || !bytes.Equal(got, archive) || len(r.Layout) == 0 {
		t.Errorf("opened by a layout of %d bytes: %v", len(r.Layout), err)
	}
}

// What another user owns, may write to, or leads to, is not taken for the user's
// own cache directory.
func TestOwnCache(t *testing.T) {
	testenv.Need(t, "root")
	const nobody = 65534
	for what, make := range map[string]struct {
		make func(dir string) error
		ok   bool
	}{
		"not there": {func(string) error { return nil }, true},
		"own":       {func(dir string) error { return os.Mkdir(dir, 0o755) }, true},
		"another's": {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody)) }, false},
		"for all":   {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777)) }, false},
		"own link":  {func(dir string) error { return os.Symlink(t.TempDir(), dir) }, true},
		"another's link": {func(dir string) error {
			return errors.Join(os.Symlink(t.TempDir(), dir), os.Lchown(dir, nobody, nobody))
		}, false},
		"link to another's": {func(dir string) error {
			to := t.TempDir()
			return errors.Join(os.Chown(to, nobody, nobody), os.Symlink(to, dir))
		}, false},
	} {
		user := t.TempDir()
		must(t, make.make(filepath.Join(user, "narvault")))
		dir, err := OwnCache(user)
		if (err == nil) != make.ok || err == nil && dir != filepath.Join(user, "narvault") {
			t.Errorf("%s: %s, %v", what, dir, err)
		}
		if _, err := UserDir("id-x", user); (err == nil) != make.ok {
			t.Errorf("%s: index: %v", what, err)
		}
	}
}
