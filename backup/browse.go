package backup

import (
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"strings"
	"syscall"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A Place is what a PATH argument names: a point in the tree that a mount
// shows. Which fields are set tells what it is:
//
//	Project == "" and Node == nil   the top, releases or store (Dir says which)
//	Project, not Name               the releases of a project
//	Project and Name                a release
//	Node                            a file, directory or symlink in a store path
type Place struct {
	Dir  string // "", "releases" or "store" for the lists
	ID   ReleaseID
	Node *Node
}

// A Node is a file, directory or symlink in an archived store path. Close it.
type Node struct {
	Path    storepath.Path
	Archive *narread.Archive
	Listing *nar.Listing
	Entry   int
}

// A NotFoundError says that there is no such thing. It is fs.ErrNotExist, and says
// no more than that once.
type NotFoundError struct{ text string }

// NotFoundf returns a *NotFoundError with the formatted text.
func NotFoundf(format string, args ...any) error {
	return &NotFoundError{fmt.Sprintf(format, args...)}
}

func (e *NotFoundError) Error() string { return e.text }

// Is reports whether target is fs.ErrNotExist.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// Close closes the archive.
func (n *Node) Close() error { return n.Archive.Close() }

// Name returns the store path and what is below it.
func (n *Node) Name() string {
	return strings.TrimSuffix(string(n.Path)+"/"+n.Listing.Path(n.Entry), "/")
}

// Find finds what a PATH argument names: a path as in the mount (releases/...,
// store/...), an absolute store path, a base name or a hash part, with or
// without a path below it. Symlinks on the way are followed inside the backup,
// the last component only if follow is set. The error is fs.ErrNotExist when
// there is no such thing. The caller closes the Node.
func (b *Backup) Find(path string, follow bool) (*Place, error) {
	place, err := b.find(path, follow)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return place, nil
}

func (b *Backup) find(path string, follow bool) (*Place, error) {
	if strings.HasPrefix(path, "/") {
		inside, ok := belowStore(path, b.Cache.StoreDir())
		if !ok {
			return nil, NotFoundf("is not in the store directory %s", b.Cache.StoreDir())
		}
		return b.findNode(inside, follow)
	}
	for strings.HasPrefix(path, "./") {
		path = strings.TrimLeft(path[2:], "/")
	}
	first, rest, _ := strings.Cut(strings.TrimRight(path, "/"), "/")
	switch first {
	case "", ".":
		return &Place{}, nil
	case "releases":
		return b.findInReleases(rest, follow)
	case "store":
		return b.findNode(strings.Split(rest, "/"), follow)
	}
	if storepath.ValidHash(first) {
		info, err := b.Cache.NarInfo(first)
		if err != nil {
			return nil, err
		}
		return b.findNode(append([]string{string(info.StorePath)}, strings.Split(rest, "/")...), follow)
	}
	return b.findNode(strings.Split(path, "/"), follow)
}

func (b *Backup) findInReleases(rest string, follow bool) (*Place, error) {
	parts := strings.SplitN(rest, "/", 3)
	place := &Place{Dir: "releases", ID: ReleaseID{Project: parts[0]}}
	if len(parts) == 1 {
		return place, nil
	}
	id, err := ParseReleaseID(parts[0] + "/" + parts[1])
	if err != nil {
		return nil, err
	}
	place.ID = id
	if len(parts) == 2 || parts[2] == "" {
		return place, nil
	}
	base, below, _ := strings.Cut(parts[2], "/")
	closure, err := b.Closure(id)
	if err != nil {
		return nil, err
	}
	for _, p := range closure {
		if string(p) == base || p.Hash() == base {
			place, err := b.findNode(append([]string{string(p)}, strings.Split(below, "/")...), follow)
			return place, b.promised(p, err)
		}
	}
	return nil, NotFoundf("release %s has no %s", id, base)
}

// findNode follows the components of a path from the store directory on.
func (b *Backup) findNode(components []string, follow bool) (*Place, error) {
	w := &walk{backup: b, rest: components}
	defer w.drop()
	for len(w.rest) > 0 {
		if err := w.step(follow); err != nil {
			return nil, err
		}
	}
	if w.node == nil {
		return &Place{Dir: "store"}, nil
	}
	place := &Place{Node: w.node}
	w.node = nil
	return place, nil
}

// maxLinks is how many symlinks are followed before they count as a loop, as
// in Linux.
const maxLinks = 40

// A walk follows a path below the store directory, as the kernel would in the
// mount.
type walk struct {
	backup *Backup
	node   *Node // where we are, nil for the store directory itself
	rest   []string
	links  int
}

func (w *walk) drop() {
	if w.node != nil {
		w.node.Close()
		w.node = nil
	}
}

// step takes the next component.
func (w *walk) step(follow bool) error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	switch {
	case name == "" || name == ".":
		return nil
	case name == "..":
		return w.up()
	}
	if err := w.down(name); err != nil {
		return err
	}
	if e := w.node.Listing.Entry(w.node.Entry); e.Type == nar.Symlink && (follow || w.more()) {
		return w.link(e.Target)
	}
	return nil
}

// more reports whether a real component is left.
func (w *walk) more() bool {
	for _, name := range w.rest {
		if name != "" && name != "." {
			return true
		}
	}
	return false
}

func (w *walk) down(name string) error {
	if w.node == nil {
		p, err := storepath.Parse(name)
		if err != nil {
			return NotFoundf("there is no release and no store path %q", name)
		}
		w.node, err = w.backup.openNode(p)
		return err
	}
	at := w.node.Listing.Entry(w.node.Entry)
	if at.Type != nar.Directory {
		return fmt.Errorf("%s is no directory: %w", w.node.Name(), syscall.ENOTDIR)
	}
	child, found := w.node.Listing.Lookup(w.node.Entry, name)
	if !found {
		return NotFoundf("%s has no %q", w.node.Name(), name)
	}
	w.node.Entry = child
	return nil
}

func (w *walk) up() error {
	switch {
	case w.node == nil:
		return NotFoundf("leads out of the store directory")
	case w.node.Entry == 0:
		w.drop()
	default:
		w.node.Entry = w.node.Listing.Entry(w.node.Entry).Parent
	}
	return nil
}

// link goes on at the target of the symlink where we are.
func (w *walk) link(target string) error {
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("%s: %w", w.node.Name(), syscall.ELOOP)
	}
	if strings.HasPrefix(target, "/") {
		if inside, ok := belowStore(target, w.backup.Cache.StoreDir()); ok {
			w.drop()
			w.rest = append(inside, w.rest...)
			return nil
		}
		return NotFoundf("%s links to %q, which is not in the store directory", w.node.Name(), target)
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return w.up()
}

// belowStore returns the components of an absolute path from the store
// directory on. On the way there "..", "." and double slashes are resolved by
// their text: whatever the directories above the store directory are, they are
// not in the backup.
func belowStore(path, storeDir string) (components []string, ok bool) {
	at := "/"
	rest := strings.Split(path, "/")
	for i, name := range rest {
		if at == storeDir && name != "" && name != "." && name != ".." {
			return rest[i:], true
		}
		at = pathpkg.Join(at, name)
	}
	return nil, at == storeDir
}

// promised makes the absence of a store path that something else names damage.
func (b *Backup) promised(p storepath.Path, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if has, hasErr := b.Cache.Has(p.Hash()); has || hasErr != nil {
		return err
	}
	return &bincache.DamageError{
		File: b.cachePath(p.Hash() + ".narinfo"),
		Err:  fmt.Errorf("narinfo of %s is missing: back it up again", p),
	}
}

func (b *Backup) openNode(p storepath.Path) (*Node, error) {
	info, err := b.Cache.Lookup(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, NotFoundf("%s is not in the backup", p)
	}
	if err != nil {
		return nil, err
	}
	archive, err := b.Cache.Archive(info)
	if err != nil {
		return nil, err
	}
	listing, err := archive.Listing()
	if err != nil {
		return nil, errors.Join(err, archive.Close())
	}
	return &Node{Path: p, Archive: archive, Listing: listing}, nil
}
