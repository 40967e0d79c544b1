package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A mountEntry is a line of /proc/self/mountinfo (see proc_pid_mountinfo(5)).
type mountEntry struct {
	id     string // of the mount, in this namespace
	parent string // id of the mount that it lies on
	dev    string // "major:minor"
	point  string
	fsType string
	source string
}

// ours reports whether it is a mount of narvault.
func (m *mountEntry) ours() bool { return m.fsType == "fuse."+fsType }

// connection returns the number of the FUSE connection, the name of its
// directory in /sys/fs/fuse/connections.
func (m *mountEntry) connection() string {
	major, minor, _ := strings.Cut(m.dev, ":")
	a, aerr := strconv.ParseUint(major, 10, 32)
	i, ierr := strconv.ParseUint(minor, 10, 32)
	if aerr != nil || ierr != nil {
		return ""
	}
	// The kernel's own encoding of device numbers, of which FUSE prints one.
	return strconv.FormatUint(a<<20|i, 10)
}

// errNotMounted is returned by mountAt.
var errNotMounted = errors.New("nothing is mounted there")

// mountAt returns the topmost mount at point.
func mountAt(point string) (*mountEntry, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].point == point {
			return &all[i], nil
		}
	}
	return nil, errNotMounted
}

// mounts returns the mounts of this process, those on top of others last.
func mounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) (all []mountEntry, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		m, ok := parseMount(s.Text())
		if !ok {
			return nil, fmt.Errorf("read mountinfo: line %q", s.Text())
		}
		all = append(all, m)
	}
	return all, s.Err()
}

// parseMount reads a line such as
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMount(line string) (m mountEntry, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	a, b := strings.Split(left, " "), strings.Split(right, " ")
	if !ok || len(a) < 6 || len(b) < 2 {
		return m, false
	}
	return mountEntry{
		id:     a[0],
		parent: a[1],
		dev:    a[2],
		point:  unescapeMount(a[4]),
		fsType: unescapeMount(b[0]),
		source: unescapeMount(b[1]),
	}, true
}

// unescapeMount undoes the kernel's \ooo for space, tab, newline and backslash.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
