package namespace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts puts the store paths where they belong.
func (c Command) mounts() error {
	// Whatever is mounted from now on is ours alone.
	if err := c.private(); err != nil {
		return err
	}
	if st, err := os.Stat(c.StoreDir); err == nil && st.IsDir() {
		return mount(c.Store, c.StoreDir, unix.MS_BIND|unix.MS_REC)
	}
	return c.newRoot()
}

// private keeps what is mounted in this namespace from being mounted in others.
func (c Command) private() error {
	const flags = unix.MS_REC | unix.MS_PRIVATE
	err := mount("", "/", flags)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// The root is a directory of a rescue system's chroot(8), not a mount. Those it
	// is in are beyond it: ".." leads there when the root is no parent of where we
	// are.
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Chroot(c.Root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := unix.Chdir(strings.Repeat("../", unix.PathMax/4)); err != nil {
		return fmt.Errorf("find the root of the namespace: %w", err)
	}
	if err := mount("", ".", flags); err != nil {
		return err
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return fmt.Errorf("chdir to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return nil
}

// newRoot makes a root that is like the old one, with the store directory.
func (c Command) newRoot() error {
	if err := unix.Mount("narvault", c.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", c.Root, err)
	}
	names := strings.Split(strings.Trim(path.Clean(c.StoreDir), "/"), "/")
	if err := mirror("/", c.Root, names); err != nil {
		return err
	}
	at := c.Root + path.Clean(c.StoreDir)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := mount(c.Store, at, unix.MS_BIND|unix.MS_REC); err != nil {
		return err
	}
	return enterRoot(c.Root)
}

// mirror binds all that is in a directory into another one, but for what is on
// the way along names: those directories are made, so that the last can be.
func mirror(from, to string, names []string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		old, new := path.Join(from, e.Name()), path.Join(to, e.Name())
		onTheWay := e.Name() == names[0]
		switch {
		case onTheWay && e.IsDir() && len(names) > 1:
			if err = os.Mkdir(new, 0o755); err == nil {
				err = mirror(old, new, names[1:])
			}
		case onTheWay:
			continue // a symlink that leads nowhere, or a file
		case e.IsDir():
			err = bindDir(old, new)
		case e.Type()&os.ModeSymlink != 0:
			err = copyLink(old, new)
		default:
			err = bindFile(old, new)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func bindDir(old, new string) error {
	if err := os.Mkdir(new, 0o755); err != nil {
		return err
	}
	return skippable(mount(old, new, unix.MS_BIND|unix.MS_REC))
}

func bindFile(old, new string) error {
	if err := os.WriteFile(new, nil, 0o644); err != nil {
		return err
	}
	return skippable(mount(old, new, unix.MS_BIND))
}

func copyLink(old, new string) error {
	target, err := os.Readlink(old)
	if err != nil {
		return err
	}
	return os.Symlink(target, new)
}

// skippable passes over what this user may not see anyway, such as the mount of
// another one.
func skippable(err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// enterRoot makes a mount the root, and lets go of the old one.
func enterRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("chdir to %s: %w", root, err)
	}
	// pivot_root(2): with both the same, the old root is mounted over the new one.
	err := unix.PivotRoot(".", ".")
	switch {
	case err == nil:
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let go of the old root: %w", err)
		}
	case errors.Is(err, unix.EINVAL): // the old root is an initramfs, which cannot be moved
		if err := mount(".", "/", unix.MS_MOVE); err != nil {
			return err
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
	default:
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Chdir("/")
}

func mount(from, to string, flags uintptr) error {
	if err := unix.Mount(from, to, "", flags, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}
