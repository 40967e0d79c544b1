package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Holder keeps a mount busy.
type Holder struct {
	PID     int    // 0: not a process, but another mount
	Command string // the process's name, or where the other mount is
	How     string // "cwd", "root", "open file", "mapped file", "mount"
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "the mount on " + h.Command
	}
	return fmt.Sprintf("%s (process %d, %s)", h.Command, h.PID, h.How)
}

// A BusyError says who keeps a mount busy, as far as that can be seen. It is
// ErrBusy.
type BusyError struct {
	Dir     string
	Holders []Holder
}

func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return fmt.Sprintf("%v; by whom cannot be seen (another user, or the kernel)", ErrBusy)
	}
	const most = 10
	var names []string
	for _, h := range e.Holders[:min(len(e.Holders), most)] {
		names = append(names, h.String())
	}
	if n := len(e.Holders) - most; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("%v by %s", ErrBusy, strings.Join(names, ", "))
}

// Is makes it ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// holdersTime bounds the search for holders.
const holdersTime = 2 * time.Second

// holders returns who uses the mount m, at most for holdersTime. No file of the
// mount is touched: whoever asks may be its server, or the server may be dead.
func holders(m *mountEntry) []Holder {
	deadline := time.Now().Add(holdersTime)
	all := submounts(m)
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return all
	}
	slices.Sort(pids)
	for _, proc := range pids {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if how := m.heldBy(proc); how != "" {
			all = append(all, Holder{pid, command(proc), how})
		}
		if time.Now().After(deadline) {
			break
		}
	}
	return all
}

// submounts returns the mounts that lie on top of files of m.
func submounts(m *mountEntry) (all []Holder) {
	others, err := mounts()
	if err != nil {
		return nil
	}
	for _, o := range others {
		if o.parent == m.id {
			all = append(all, Holder{Command: o.point, How: "mount"})
		}
	}
	return all
}

// command returns the name of a process.
func command(proc string) string {
	name, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return "?" // it has just ended
	}
	return strings.TrimSuffix(string(name), "\n")
}

// heldBy returns how a process uses m, "" if it does not or may not be asked.
func (m *mountEntry) heldBy(proc string) string {
	for _, link := range []string{"cwd", "root"} {
		if m.has(proc + "/" + link) {
			return link
		}
	}
	if fds, err := os.ReadDir(proc + "/fd"); err == nil && slices.ContainsFunc(fds, func(fd fs.DirEntry) bool {
		return m.has(proc + "/fd/" + fd.Name())
	}) {
		return "open file"
	}
	if m.has(proc+"/exe") || m.mapped(proc+"/maps") {
		return "mapped file"
	}
	return ""
}

// has reports whether the file that a link in /proc leads to is in m. With
// DONT_SYNC the kernel says what it knows without asking the server.
func (m *mountEntry) has(link string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && m.dev == fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor)
}

// mapped looks for the device in a line such as
//
//	7f1c00000000-7f1c00001000 r--p 00000000 00:2d 1234   /mnt/store/...
func (m *mountEntry) mapped(maps string) bool {
	f, err := os.Open(maps)
	if err != nil {
		return false
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 {
			continue
		}
		major, minor, _ := strings.Cut(fields[3], ":")
		a, aerr := strconv.ParseUint(major, 16, 32)
		i, ierr := strconv.ParseUint(minor, 16, 32)
		if aerr == nil && ierr == nil && m.dev == fmt.Sprintf("%d:%d", a, i) {
			return true
		}
	}
	return false
}

// busy adds to ErrBusy who uses the mount.
func busy(err error, dir string, m *mountEntry) error {
	if !errors.Is(err, ErrBusy) {
		return err
	}
	return &BusyError{Dir: dir, Holders: holders(m)}
}

// ErrNotOurs is returned by Unmount for a directory where no backup is mounted.
var ErrNotOurs = errors.New("no backup is mounted there")

// Unmount takes away the mount at mountpoint, whoever serves it and also if
// nobody does any more. While it is in use that is a *BusyError, unless detach is
// set: then it goes at once, and who uses it can go on for a while.
func Unmount(mountpoint string, detach bool) error {
	dir, err := realMountpoint(mountpoint)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	m, err := mountAt(dir)
	switch {
	case errors.Is(err, errNotMounted):
		return fmt.Errorf("unmount %s: %w", mountpoint, ErrNotOurs)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	case !m.ours():
		return fmt.Errorf("unmount %s: %w, but %s of type %s", mountpoint, ErrNotOurs, m.source, m.fsType)
	}
	if err := busy(unmount(dir, detach), dir, m); err != nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	return nil
}
