// Package blockfs makes small real file systems in files, for tests that cut
// the power: Cut takes what is on the disk at an instant, without what the
// kernel has not written there yet, and Mount mounts that, as after a restart.
// It needs root, mkfs.ext4 and loop devices.
package blockfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// An FS is a mounted file system. Its methods are not safe for concurrent use.
type FS struct {
	Dir   string // where it is mounted
	image string
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
	if err := run("mkfs.ext4", "-q", "-b", "1024", "-J", "size=1", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return nil, err
	}
	return Mount(image, dir)
}

// Mount mounts the file system in a file.
func Mount(image, dir string) (*FS, error) {
	// Nothing reaches the disk for the sake of programs that do not sync, nor
	// because time passes: so much is lost as may be.
	if err := run("mount", "-t", "ext4", "-o", "loop,noauto_da_alloc,commit=600", image, dir); err != nil {
		return nil, err
	}
	return &FS{Dir: dir, image: image}, nil
}

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

// copySparse copies all but zeros.
func copySparse(out *os.File, in io.Reader) error {
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := out.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Truncate(off)
		}
		if err != nil {
			return err
		}
	}
}

// Close unmounts it.
func (f *FS) Close() error { return run("umount", f.Dir) }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
