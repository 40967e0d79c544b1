package fusefs

import (
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A view answers for the nodes of one part of the tree. A new part of the mount
// is a new view, with its own range of view numbers (node.go).
type view interface {
	// attr sets what stat(2) shows, except number and owner.
	attr(n node, a *fuse.Attr) error
	// lookup returns the entry of a directory, errNoName if it has none of that name.
	lookup(n node, name string) (node, error)
	// parent returns the directory that n is in, itself for the root.
	parent(n node) (node, error)
	// list yields the entries of a directory whose key is above after, in
	// ascending order of keys, until yield says no. Keys begin at 1 and, as
	// long as an entry exists, stay the same: they are what telldir(3) returns.
	list(n node, after int, yield func(key int, e dirent) bool) error
	// read reads from a regular file; like io.ReaderAt, but the end is no error.
	read(n node, p []byte, off int64) (int, error)
	// readlink returns the target of a symlink.
	readlink(n node) (string, error)
	// path returns the name of n from the root of the mount, for messages.
	path(n node) string
}

// A dirent is an entry of a directory. In a list of store paths, whose types
// are not known without opening them, typ is 0 and node is a guess: most are
// directories. The kernel takes node from readdir(3) for d_ino only.
type dirent struct {
	name string
	node node
	typ  uint32     // syscall.S_IFDIR, S_IFREG, S_IFLNK, or 0
	attr *fuse.Attr // nil: not known without work. Valid while yield runs.
}

// fileOnly is the part of a view that has nothing but regular files.
type fileOnly struct{}

func (fileOnly) lookup(node, string) (node, error)                  { return 0, errNotDir }
func (fileOnly) list(node, int, func(key int, e dirent) bool) error { return errNotDir }
func (fileOnly) readlink(node) (string, error)                      { return "", errNotLink }

// fixedDirs are the directories that never change.
type fixedDirs map[node]*fixedDir

// A fixedDir is one of them.
type fixedDir struct {
	self    string // its path
	up      node
	entries []dirent
}

func (fixedDirs) read(node, []byte, int64) (int, error) { return 0, errIsDir }
func (fixedDirs) readlink(node) (string, error)         { return "", errNotLink }

// get returns the directory that n is, or an empty one and an error.
func (d fixedDirs) get(n node) (*fixedDir, error) {
	if dir, ok := d[n]; ok {
		return dir, nil
	}
	return &fixedDir{}, errNoNode
}

func (d fixedDirs) attr(n node, a *fuse.Attr) error {
	dir, err := d.get(n)
	dirAttr(a, len(dir.entries)+2)
	return err
}

func (d fixedDirs) lookup(n node, name string) (node, error) {
	dir, err := d.get(n)
	if err != nil {
		return 0, err
	}
	for _, e := range dir.entries {
		if e.name == name {
			return e.node, nil
		}
	}
	return 0, errNoName
}

func (d fixedDirs) parent(n node) (node, error) {
	dir, err := d.get(n)
	return dir.up, err
}

func (d fixedDirs) list(n node, after int, yield func(key int, e dirent) bool) error {
	dir, err := d.get(n)
	for i, e := range dir.entries {
		if i+1 > after && !yield(i+1, e) {
			break
		}
	}
	return err
}

func (d fixedDirs) path(n node) string {
	dir, _ := d.get(n)
	return dir.self
}

// A listDir is a kind of mutable directory: its members are numbers of one
// table.
type listDir struct {
	up      func(n node) (node, error)
	members func(n node) (*members, error)
	name    func(n node, num int) string          // of a member, without suffix
	number  func(n node, name string) (int, bool) // the reverse of name
	suffix  string                                // of all names
	child   func(n node, num int) (node, error)
	guess   func(n node, num int) node // child, without opening anything
	typ     uint32                     // of all members; 0 when they differ
	absent  func(name string) error    // nil: what is no member is not there
	self    func(n node) string        // path of the directory itself
}

func (d *listDir) attr(n node, a *fuse.Attr) error {
	m, err := d.members(n)
	if err != nil {
		return err
	}
	links := 1 // "not counted", as btrfs has it: 2 would say that there are no directories
	switch d.typ {
	case syscall.S_IFDIR:
		links = 2 + len(m.nums)
	case syscall.S_IFREG, syscall.S_IFLNK:
		links = 2
	}
	dirAttr(a, links)
	setTime(a, m.mtime)
	return nil
}

func (d *listDir) lookup(n node, name string) (node, error) {
	m, err := d.members(n)
	if err != nil {
		return 0, err
	}
	if name, ok := strings.CutSuffix(name, d.suffix); ok {
		if num, ok := d.number(n, name); ok && m.has(num) {
			child, err := d.child(n, num)
			if errors.Is(err, errNoNode) {
				err = errNoName // it went away after the list was read
			}
			return child, err
		}
		if d.absent != nil {
			return 0, cmpErr(d.absent(name), errNoName)
		}
	}
	return 0, errNoName
}

func (d *listDir) parent(n node) (node, error) { return d.up(n) }

// list goes by number, not by place: numbers neither shift nor come back, so a
// listing that is under way when the directory changes has every member that
// was there all the time exactly once.
func (d *listDir) list(n node, after int, yield func(key int, e dirent) bool) error {
	m, err := d.members(n)
	if err != nil {
		return err
	}
	for _, num := range m.nums[m.after(after):] {
		if !yield(num, dirent{name: d.name(n, num) + d.suffix, node: d.guess(n, num), typ: d.typ}) {
			break
		}
	}
	return nil
}

func (d *listDir) read(node, []byte, int64) (int, error) { return 0, errIsDir }
func (d *listDir) readlink(node) (string, error)         { return "", errNotLink }

func (d *listDir) path(n node) string { return d.self(n) }
