package backup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/testenv/blockfs"
)

var fat = mediumByType(unix.MSDOS_SUPER_MAGIC)

func TestMediumByType(t *testing.T) {
	if fat.maxFile != 4<<30-1 || !strings.Contains(fat.refuses, ":") {
		t.Errorf("FAT: %+v", fat)
	}
	if m := mediumByType(unix.EXFAT_SUPER_MAGIC); m.maxFile != 0 || !strings.Contains(m.refuses, ":") {
		t.Errorf("exFAT: %+v", m)
	}
	for _, magic := range []int64{unix.EXT4_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.TMPFS_MAGIC, 0} {
		if m := mediumByType(magic); m != (medium{}) {
			t.Errorf("%x: %+v", magic, m)
		}
	}
	if m := mediumOf(filepath.Join(t.TempDir(), "new"), true); m.kind != "" {
		t.Errorf("the temporary directory is on %+v", m)
	}
}

// mediumRunner is about to back up release p/r with store paths of these sizes.
func mediumRunner(t *testing.T, dir string, name string, sizes ...int64) *runner {
	store := backuptest.NewStore(t)
	r := &runner{dir: dir, store: store, req: &Request{Release: ReleaseID{"p", name}}}
	for i, size := range sizes {
		r.infos = append(r.infos, nixstore.PathInfo{Path: sp(string(rune('a' + i))), NarSize: size})
	}
	return r
}

// What FAT cannot hold is refused, with its name, before anything is written.
func TestLargeFileOnFAT(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backup")
	r := mediumRunner(t, dir, "r", 4<<30-1, 4<<30, 5<<30)
	_, err := r.checkMedium(fat)
	var refused *MediumError
	if !errors.As(err, &refused) || len(refused.Names) != 2 || !strings.Contains(err.Error(), string(sp("b"))+" (4294967296 bytes), "+string(sp("c"))) {
		t.Errorf("got %v", err)
	}
	if backuptest.Exists(dir) {
		t.Error("something was written")
	}
	if _, err := r.checkMedium(medium{}); err != nil {
		t.Errorf("on another file system: %v", err)
	}
	if _, err := mediumRunner(t, dir, "r", 4<<30-1).checkMedium(fat); err != nil {
		t.Errorf("what just fits: %v", err)
	}
}

// What is archived already need not be written.
func TestLargeFileThatIsThere(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	r := &runner{dir: dir, store: store, req: &Request{Release: ReleaseID{"p", "r"}}}
	r.infos = []nixstore.PathInfo{{Path: top, NarSize: 5 << 30}}
	if _, err := r.checkMedium(fat); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestNamesOnFAT(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backup")
	_, err := mediumRunner(t, dir, "nixos:trunk").checkMedium(fat)
	var refused *MediumError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "p/nixos:trunk") {
		t.Errorf("got %v", err)
	}
	if _, err := mediumRunner(t, dir, "nixos-trunk").checkMedium(fat); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := mediumRunner(t, dir, "nixos:trunk").checkMedium(medium{}); err != nil {
		t.Errorf("got %v", err)
	}
}

// A content-addressed output whose derivation does not know its path has a
// realisation, which FAT cannot hold.
func TestRealisationsOnFAT(t *testing.T) {
	r := mediumRunner(t, t.TempDir(), "r", 1, 1, 1)
	r.store = &floatingStore{Store: backuptest.NewStore(t)}
	r.infos[0].CA, r.infos[0].Deriver = "fixed:r:sha256:x", "floating.drv"
	r.infos[1].CA, r.infos[1].Deriver = "fixed:r:sha256:x", "fixed.drv"
	r.infos[2].CA = "text:sha256:x"
	warnings, err := r.checkMedium(fat)
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], string(r.infos[0].Path)) || !strings.Contains(warnings[0], "realisations/sha256:") {
		t.Errorf("%q, %v", warnings, err)
	}
	if warnings, err := r.checkMedium(medium{}); err != nil || len(warnings) != 0 {
		t.Errorf("on another file system: %q, %v", warnings, err)
	}
}

// A floatingStore knows two derivations.
type floatingStore struct{ *backuptest.Store }

func (s *floatingStore) Derivation(p storepath.Path) (*nixstore.Derivation, error) {
	output := storepath.Path("")
	if p == "fixed.drv" {
		output = sp("x")
	}
	return &nixstore.Derivation{Outputs: map[string]storepath.Path{"out": output}}, nil
}

// On a file system that ignores case, Demo/x would replace demo/x.
func TestFolded(t *testing.T) {
	names := []string{"demo", "other"}
	ignoresCase := func(name string) bool { return slices.Contains(names, strings.ToLower(name)) }
	heedsCase := func(name string) bool { return slices.Contains(names, name) }
	if got := folded(names, "Demo", ignoresCase); got != "demo" {
		t.Errorf("got %q", got)
	}
	for _, part := range []string{"demo", "new"} {
		if got := folded(names, part, ignoresCase); got != "" {
			t.Errorf("%s is %q", part, got)
		}
	}
	if got := folded(names, "Demo", heedsCase); got != "" {
		t.Errorf("where case matters: %q", got)
	}
}

// What cannot be known of a file system that a program makes is found out by
// trying: here of a real exFAT. What it cannot hold is refused before the first
// byte, and all else works on it: locks, backup, restoring.
func TestOnExFAT(t *testing.T) {
	testenv.Need(t, "root", "mkfs.exfat", "mount.exfat-fuse", "losetup")
	disk, err := blockfs.MakeExFAT(filepath.Join(t.TempDir(), "image"), t.TempDir(), 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk.Dir, "backup")
	if m := mediumOf(dir, true); m.kind == "" || m.refuses != fatNames {
		t.Errorf("it is taken for %+v", m)
	}
	store := backuptest.NewStore(t)
	top := store.Add("top", "top", store.Add("lib", strings.Repeat("library", 10_000)))
	var refused *MediumError
	if _, err := Run(t.Context(), dir, store, request("a:b", top)); !errors.As(err, &refused) || backuptest.Exists(dir) {
		t.Errorf("a name with a colon: %v", err)
	}
	if left, err := os.ReadDir(disk.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Run(t.Context(), dir, store, request("r", top)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ReleaseID{{"P", "r"}, {"p", "R"}} {
		_, err := Run(t.Context(), dir, store, Request{Release: id, Roots: []storepath.Path{top}})
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "ignores case") {
			t.Errorf("%s beside p/r: %v", id, err)
		}
	}
	held, err := lock.Take(t.Context(), dir, lock.Excluding, lock.Options{})
	if err != nil {
		t.Fatalf("there are no locks: %v", err)
	}
	if _, err := Run(t.Context(), dir, store, request("r", top)); err == nil {
		t.Error("a backup beside gc")
	}
	held.Close()
	backuptest.CheckWhole(t, dir, "p/r")
	backuptest.CheckNoTemp(t, dir)
	if r, err := unpackAll(t, dir, filepath.Join(disk.Dir, "to")); err != nil || states(r) != "top restored, lib restored" {
		t.Errorf("restored: %s, %v", states(r), err)
	}
}

// A file that would be too large is known by trying, without writing it.
func TestTooLarge(t *testing.T) {
	testenv.Need(t, "root", "mkfs.ext4", "losetup")
	disk, err := blockfs.Make(filepath.Join(t.TempDir(), "image"), t.TempDir(), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	if tooLarge(disk.Dir, fatMax+1) || !tooLarge(disk.Dir, 1<<62) {
		t.Error("ext4 holds files of 16 TiB")
	}
	if left, err := os.ReadDir(disk.Dir); err != nil || len(left) > 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What could not be restored everywhere is said when it is backed up: which
// path, which file, which Nix. Also when its content is there already.
func TestWarningsAtBackup(t *testing.T) {
	store := backuptest.NewStore(t)
	p, twin := store.Add("p", "x"), store.Add("twin", "x")
	for _, path := range []storepath.Path{p, twin} {
		deep := filepath.Join(store.RealPath(path), strings.Repeat("d/", 63))
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{filepath.Join(store.RealPath(path), "Content"), filepath.Join(deep, "file")} {
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		store.Register(path, nil)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	for i, path := range []storepath.Path{p, twin} {
		real := store.RealPath(path)
		r := mustRun(t, dir, store, request("r", path))
		if i == 1 && r.Shared.Paths != 1 {
			t.Errorf("the content is not shared: %+v", r.Estimate)
		}
		if len(r.Warnings) != 2 ||
			!strings.HasPrefix(r.Warnings[0], real+`/Content: differs from "content" in case only: Nix on macOS restores one of them under another name`) ||
			!strings.HasPrefix(r.Warnings[1], real+strings.Repeat("/d", 63)+"/file: nested 64 deep: Nix from 2.28.7, ") {
			t.Errorf("got %q", r.Warnings)
		}
	}
}
