package repair

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/testenv/blockfs"
)

// TestUnreadable lets the disk fail under one file (EIO): it may be all right, on
// another machine or the next day. So it is called unreadable, not damaged, and
// without a source it stays where it is; with one it is mended.
func TestUnreadable(t *testing.T) {
	testenv.Need(t, "root", "mkfs.ext4", "losetup")
	for name, c := range map[string]struct {
		file func(s *scene) string
		by   source
		// itself is whether the backup knows what has to be there.
		itself bool
	}{
		"NAR file":                {file: func(s *scene) string { return s.nar(s.top) }, by: copied},
		"narinfo":                 {file: func(s *scene) string { return narInfo(s.lib) }, itself: true},
		"narinfo, and no index":   {file: func(s *scene) string { s.remove("index"); return narInfo(s.lib) }, by: store},
		"listing":                 {file: func(s *scene) string { return "cache/" + s.top.Hash() + bincache.ListingExt }, itself: true},
		"closure.txt":             {file: func(*scene) string { return one + "closure.txt" }, itself: true},
		"release.json":            {file: func(*scene) string { return one + "release.json" }, itself: true},
		"closure.txt from before": {file: func(*scene) string { return one + "previous/closure.txt" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			file := c.file(s)
			s.onBrokenDisk(file)
			before, err := os.Lstat(s.path(file))
			must(t, err)
			r := s.repair(s.options(itself))
			if !c.itself {
				now, err := os.Lstat(s.path(file))
				if err != nil || !os.SameFile(now, before) {
					t.Fatalf("what could not be read is not there any more (%v): %+v", err, r.RepairResult)
				}
				s.mustRemain(r, file)
			} else if len(r.Remaining) > 0 {
				t.Errorf("%+v remains", r.Remaining)
			}
			if trash, _ := filepath.Glob(s.path("trash/*")); len(trash) > 0 || len(r.Quarantined) > 0 {
				t.Errorf("quarantined: %+v, %v", r.Quarantined, trash)
			}
			if c.by != 0 {
				if r := s.repair(s.options(c.by)); len(r.Remaining) > 0 {
					t.Errorf("with a source, %+v remains", r.Remaining)
				}
				s.read(file)
			}
		})
	}
}

// onBrokenDisk puts the backup on a disk that fails under one of its files.
func (s *scene) onBrokenDisk(file string) {
	s.Helper()
	disk, err := blockfs.Make(filepath.Join(s.TempDir(), "disk"), s.TempDir(), 10)
	must(s, err)
	s.Cleanup(func() { must(s, disk.Close()) })
	to := filepath.Join(disk.Dir, "backup")
	must(s, os.CopyFS(to, os.DirFS(s.dir)))
	s.dir = to
	must(s, disk.Break(s.path(file)))
}

// mustRemain checks that a file is among what remains, as unreadable.
func (s *scene) mustRemain(r *Report, file string) {
	s.Helper()
	for _, f := range r.Remaining {
		if f.File == file && f.Severity == check.Unreadable && strings.Contains(f.Message, "input/output error") {
			return
		}
	}
	s.Errorf("%s is not said to be unreadable: %+v", file, r.Remaining)
}

// A disk that fails under what says whose cache it is stops a repair before it
// changes anything.
func TestUnreadableCacheInfo(t *testing.T) {
	testenv.Need(t, "root", "mkfs.ext4", "losetup")
	s := newScene(t)
	s.onBrokenDisk("cache/nix-cache-info")
	if _, err := Run(t.Context(), s.dir, s.options(copied)); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "cache/nix-cache-info: ") {
		t.Errorf("got %v", err)
	}
	if trash, _ := filepath.Glob(s.path("trash/*")); len(trash) > 0 {
		t.Errorf("quarantined: %v", trash)
	}
}
