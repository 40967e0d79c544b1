package unpack

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
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
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 64<<20))
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("mkfs.exfat", image)
	device := run("losetup", "--find", "--show", image)
	t.Cleanup(func() { run("losetup", "--detach", device) })
	run("mount.exfat-fuse", device, dir)
	t.Cleanup(func() { run("umount", dir) })
	return dir
}
