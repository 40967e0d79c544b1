package fusefs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fsType is the type of our mounts, shown as "fuse.narvault".
const fsType = "narvault"

// Options are how a backup is mounted. The zero value works.
type Options struct {
	// Name of the backup, shown by mount(8) and df(1) as "narvault:NAME".
	Name string
	// RawLinks shows symlinks as they were archived. Without it, those to store
	// paths of the backup are relative and resolve inside the mount.
	RawLinks bool
	// AllowOther lets other users in, too. Unless root mounts, /etc/fuse.conf
	// must have user_allow_other.
	AllowOther bool
	// XAttrs shows what a narinfo says of a store path as extended attributes
	// user.nix.*, if the Backup is a PathInfoReporter. It makes ls -l slow.
	XAttrs bool
	// Avoid are directories that the mountpoint must neither be in nor contain:
	// the backup, its index, caches. A server that waits for itself cannot even
	// be killed.
	Avoid []string
	// Logf is told of errors, each once, and of what happens to the mount. By
	// default nobody is.
	Logf func(format string, args ...any)

	// MaxTrees bounds how many archives are kept open, 128 by default: each may
	// hold a file descriptor.
	MaxTrees int
	// MaxListingBytes bounds the memory of their listings, 16 MiB by default,
	// about 200,000 entries.
	MaxListingBytes int64
	// MaxStreams bounds how many streams of exports/ are kept open, 8 by default.
	MaxStreams int
	// Linger is how long nobody must have asked for anything before Wait gives
	// up on who has a file of the mount open, or a copy of the mount, after it
	// was taken away: 5 s by default. Who still waits for an answer is given up on
	// after ten times as long.
	Linger time.Duration

	reopenAfter time.Duration // handles.minAge: 1 s by default
}

func (o Options) withDefaults() Options {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.MaxTrees <= 0 {
		o.MaxTrees = 128
	}
	if o.MaxListingBytes <= 0 {
		o.MaxListingBytes = 16 << 20
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 8
	}
	if o.Linger <= 0 {
		o.Linger = 5 * time.Second
	}
	if o.reopenAfter <= 0 {
		o.reopenAfter = time.Second
	}
	return o
}

// streamIdle is how long a stream stays open that nobody reads.
const streamIdle = 30 * time.Second

// Mount shows b at mountpoint, an existing empty directory, and returns when
// the kernel has its first answer. A mount of ours whose server died is taken
// away first. The caller calls Wait.
//
// The process must not use files below mountpoint itself, nor have its working
// directory there.
func Mount(b Backup, mountpoint string, o Options) (*Server, error) {
	o = o.withDefaults()
	dir, err := prepare(mountpoint, o)
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", mountpoint, err)
	}
	f, err := newFileSystem(b, o)
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", mountpoint, err)
	}
	fs, err := fuse.NewServer(f, dir, mountOptions(f, o))
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %s", mountpoint, strings.TrimSpace(err.Error()))
	}
	s := &Server{fs: f, dir: dir, o: o, ended: make(chan struct{}), cut: make(chan struct{})}
	f.reclaimer.Store(newReclaimer(notifier(fs)))
	f.watcher.Store(f.newWatcher(entryNotifier(fs)))
	go func() {
		fs.Serve()
		f.close()
		close(s.ended)
	}()
	if err := fs.WaitMount(); err != nil {
		s.detach()
		return nil, fmt.Errorf("mount on %s: wait for the kernel: %w", mountpoint, err)
	}
	s.mount, err = mountAt(dir)
	if err != nil {
		s.detach()
		return nil, fmt.Errorf("mount on %s: %w", mountpoint, err)
	}
	return s, nil
}

func mountOptions(f *fileSystem, o Options) *fuse.MountOptions {
	const flags = syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV
	return &fuse.MountOptions{
		// default_permissions: the kernel compares modes and does not ask us.
		Options:    []string{"ro", "nodev", "nosuid", "default_permissions"},
		FsName:     fsType + ":" + o.Name,
		Name:       fsType,
		AllowOther: o.AllowOther,
		// Root needs no fusermount3; where mount(2) is forbidden to it, go-fuse
		// tries fusermount3 next.
		DirectMount:      os.Geteuid() == 0,
		DirectMountFlags: flags,
		// Requests of up to 1 MiB less two pages. With exactly 1 MiB, header and
		// data do not fit into the largest pipe.
		MaxWrite: 1040384,
		// Read-ahead requests under way at once: blocks are decoded in parallel.
		MaxBackground: 64,
		// All data comes from memory: there is no file to splice from.
		DisableSplice: true,
		// Nearly all requests of ls -l would be for attributes that no NAR has.
		DisableXAttrs:        !f.xattrs(),
		EnableSymlinkCaching: true,
		// Node numbers outlive both caches and the server, so that they can be
		// file handles (NFS, open_by_handle_at).
		ExtraCapabilities: fuse.CAP_EXPORT_SUPPORT,
		PanicHandler:      f.panicked,
		Logger:            log.New(logWriter(o.Logf), "", 0),
	}
}

// logWriter passes lines of a log.Logger on.
type logWriter func(format string, args ...any)

func (w logWriter) Write(p []byte) (int, error) {
	w("fuse: %s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// prepare returns the real path of a mountpoint after it has found that it can
// be used.
func prepare(mountpoint string, o Options) (string, error) {
	dir, err := realMountpoint(mountpoint)
	if err != nil {
		return "", err
	}
	if err := clearDead(dir, o.Logf); err != nil {
		return "", err
	}
	// Before anything looks inside: it may be this process that serves it.
	if m, err := mountAt(dir); err == nil && m.ours() {
		return "", fmt.Errorf("%s is mounted there already", m.source)
	}
	for _, avoid := range o.Avoid {
		if err := overlap(dir, avoid); err != nil {
			return "", err
		}
	}
	return dir, mustBeEmpty(dir)
}

// errNoDir is os.ErrNotExist, said without the name, which whoever calls adds.
var errNoDir = noDirError{}

type noDirError struct{}

func (noDirError) Error() string { return "there is no such directory" }

func (noDirError) Is(target error) bool { return target == os.ErrNotExist }

// realMountpoint resolves symlinks, without a look at a file system that may be
// mounted there if it can be avoided: its server may be dead.
func realMountpoint(mountpoint string) (string, error) {
	abs, err := filepath.Abs(mountpoint)
	if err != nil {
		return "", err
	}
	if _, err := mountAt(abs); err == nil {
		return abs, nil
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) {
		return "", errNoDir
	}
	if err == nil || !errors.Is(err, syscall.ENOTCONN) {
		return real, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(parent, filepath.Base(abs)), err
}

// clearDead takes away mounts of ours at dir whose server is gone.
func clearDead(dir string, logf func(string, ...any)) error {
	for range 10 { // they stack
		// Not stat(2): the kernel may still know the attributes.
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); !errors.Is(err, syscall.ENOTCONN) {
			return nil
		}
		m, err := mountAt(dir)
		if err != nil {
			return err
		}
		if !m.ours() {
			return fmt.Errorf("a dead mount is there (%s, type %s): take it away with fusermount3 -u", m.source, m.fsType)
		}
		logf("%s: taking away a mount whose server is gone", dir)
		if err := unmount(dir, true); err != nil {
			return err
		}
	}
	return errors.New("dead mounts keep being there")
}

// overlap returns an error if one of two directories is, or is in, the other.
func overlap(dir, avoid string) error {
	if avoid == "" {
		return nil
	}
	avoid, err := filepath.Abs(avoid)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(avoid); err == nil {
		avoid = real
	}
	if isIn(dir, avoid) || isIn(avoid, dir) {
		return fmt.Errorf("it overlaps %s, which the server needs", avoid)
	}
	return nil
}

// isIn reports whether dir is a directory or in it, by name or, because of bind
// mounts, by identity.
func isIn(dir, other string) bool {
	o, err := os.Stat(other)
	for {
		if dir == other {
			return true
		}
		if d, derr := os.Stat(dir); err == nil && derr == nil && os.SameFile(d, o) {
			return true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return false
		}
		dir = up
	}
}

// mustBeEmpty refuses what is no empty directory: a mount would hide its files.
func mustBeEmpty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if errors.Is(err, syscall.ENOTDIR) {
		return errors.New("that is no directory")
	}
	if len(names) > 0 {
		return errors.New("the directory is not empty")
	}
	if err == io.EOF {
		return nil
	}
	return err
}
