package unpack

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/testenv/blockfs"
)

// On exFAT, what it cannot hold is named, and all else is right.
func TestExFAT(t *testing.T) {
	testenv.Need(t, "root", "mkfs.exfat", "mount.exfat-fuse", "losetup")
	d := open(t, exFAT(t))
	if l := d.Limits(); !l.NoSymlinks || !l.NoModes || !l.FoldsCase || len(l.Warnings()) != 3 {
		t.Errorf("limits: %+v", l)
	}
	n := dump(t, source(t))
	tree := restore(t, d, item(t, "p", n, pack(t, n)))
	var left []string
	for _, l := range tree.LeftOut {
		name, _, _ := strings.Cut(l, ": ")
		left = append(left, name)
	}
	slices.Sort(left)
	want := []string{"p/a:b", "p/dir/absolute", "p/dir/up", "p/line\nbreak\\", "p/program", "p/upper", "p/\xff\xfe"}
	if tree.State != Restored || !slices.Equal(left, want) {
		t.Errorf("%s, left out %q, want %q", tree.State, tree.LeftOut, want)
	}
	for _, f := range tree.Files {
		if st, err := d.root.Stat(f.Path); err != nil || st.Size() != f.Size {
			t.Errorf("%s: %v", f.Path, err)
		}
	}
	again := restore(t, d, item(t, "p", n, pack(t, n)))
	if again.State != Kept || len(again.Files) != len(tree.Files) || len(again.LeftOut) != len(tree.LeftOut) {
		t.Errorf("the second time: %+v", again)
	}
}

// exFAT makes and mounts such a file system.
func exFAT(t *testing.T) string {
	t.Helper()
	disk, err := blockfs.MakeExFAT(filepath.Join(t.TempDir(), "image"), t.TempDir(), 64)
	must(t, err)
	t.Cleanup(func() { must(t, disk.Close()) })
	return disk.Dir
}
