// Package blockfs makes small real file systems in files, for tests of media, of
// disks that fail, and of power cuts: Cut takes what is on the disk at an instant,
// without what the kernel has not written there yet, and Mount mounts that, as
// after a restart. It needs root, loop devices, and mkfs.ext4 or exFAT's programs.
package blockfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An FS is a mounted file system. Its methods are not safe for concurrent use.
type FS struct {
	Dir   string // where it is mounted
	image string

	device string // to be detached, "" if the kernel does it
}

// Make makes an ext4 file system of some MiB in a new file, and mounts it on a
// directory, which exists.
func Make(image, dir string, mib int64) (*FS, error) {
	f, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(mib << 20)
	f.Close()
	if err != nil {
		return nil, err
	}
	// All of it at once: what would be done later in the background changes
	// the disk when nobody wrote.
	if err := run("mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return nil, err
	}
	return Mount(image, dir)
}

// MakeExFAT is Make for exFAT, which exfat-fuse mounts.
func MakeExFAT(image, dir string, mib int64) (*FS, error) {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		return nil, err
	}
	if err := run("mkfs.exfat", image); err != nil {
		return nil, err
	}
	device, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		return nil, err
	}
	f := &FS{Dir: dir, image: image, device: strings.TrimSpace(string(device))}
	if err := run("mount.exfat-fuse", f.device, dir); err != nil {
		return nil, errors.Join(err, run("losetup", "--detach", f.device))
	}
	return f, nil
}

// Mount mounts the ext4 file system in a file.
func Mount(image, dir string) (*FS, error) {
	// Nothing reaches the disk for the sake of programs that do not sync, nor
	// because time passes: so much is lost as may be.
	if err := run("mount", "-t", "ext4", "-o", "loop,noauto_da_alloc,commit=600", image, dir); err != nil {
		return nil, err
	}
	return &FS{Dir: dir, image: image}, nil
}

// Image returns the file that it is in.
func (f *FS) Image() string { return f.image }

// Cut writes to a new file what a power cut would leave at this instant. Nobody
// may write to the file system meanwhile.
func (f *FS) Cut(image string) error {
	in, err := os.Open(f.image)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copySparse(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}

// copySparse copies a file without its holes.
func copySparse(out, in *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); ; {
		data, err := unix.Seek(int(in.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no more
			return out.Truncate(st.Size())
		}
		if err != nil {
			return err
		}
		if off, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, off-data)); err != nil {
			return err
		}
	}
}

// Break makes the disk fail under the content of one file: whoever reads it gets
// EIO. All else on the file system can be read.
func (f *FS) Break(name string) error {
	out, err := exec.Command("findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", f.Dir).Output()
	if err != nil {
		return err
	}
	device := strings.TrimSpace(string(out))
	// The last block of the disk, which what is written later must not get, is
	// not kept for ext4's own needs.
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "reserved_clusters"), []byte("0"), 0); err != nil {
		return err
	}
	block, size, err := f.setApart(name)
	if err != nil {
		return fmt.Errorf("break %s: %w", name, err)
	}
	// From here on the disk ends before it.
	if err := os.Truncate(f.image, block*size); err != nil {
		return err
	}
	if err := run("losetup", "--set-capacity", device); err != nil {
		return err
	}
	if err := forget(name); err != nil {
		return err
	}
	if _, err := os.ReadFile(name); !errors.Is(err, unix.EIO) {
		return fmt.Errorf("break %s: reading it gives %v", name, err)
	}
	return nil
}

// setApart moves the content of a file behind that of all others, and returns
// its first block, and the size of a block.
func (f *FS) setApart(name string) (block, size int64, err error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return 0, 0, err
	}
	dir, err := os.MkdirTemp(f.Dir, "apart-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(f.Dir, &st); err != nil {
		return 0, 0, err
	}
	// Copies until the disk is full: one of them is the last on it.
	n := 0
	for ; err == nil; n++ {
		err = os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), content, 0o644)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return 0, 0, err
	}
	if err := f.sync(); err != nil {
		return 0, 0, err
	}
	last := ""
	for i := range n - 1 {
		copied := filepath.Join(dir, strconv.Itoa(i))
		at, err := firstBlock(copied)
		if err != nil {
			return 0, 0, err
		}
		if at > block {
			block, last = at, copied
		}
	}
	return block, st.Bsize, os.Rename(last, name)
}

// forget drops the content of a file, which is on the disk, from memory.
func forget(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// sync lets all reach the disk.
func (f *FS) sync() error {
	dir, err := os.Open(f.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

// firstBlock asks where on the disk a file begins (FIBMAP of linux/fs.h).
func firstBlock(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := int32(0)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 1, uintptr(unsafe.Pointer(&block))); errno != 0 {
		return 0, errno
	}
	return int64(block), nil
}

// Close unmounts it.
func (f *FS) Close() error {
	if err := run("umount", f.Dir); err != nil || f.device == "" {
		return err
	}
	return run("losetup", "--detach", f.device)
}

// Drop unmounts it whoever is using it.
func (f *FS) Drop() error { return run("umount", "--lazy", f.Dir) }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
