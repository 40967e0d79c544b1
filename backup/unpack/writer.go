package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/narvault/narvault/narread/nar"
)

// Modes and time as in a Nix store.
const (
	modeFile    = 0o444
	modeProgram = 0o555
	modeDir     = 0o555
	modeMaking  = 0o700 // of a directory that is not complete
)

var storeTime = time.Unix(1, 0)

// A writer makes one tree, or compares it with what is there.
type writer struct {
	dir     *Dir
	it      *Item
	name    string // of the tree in dir
	compare bool   // nothing is changed

	open    []openDir // from the root to where we are
	skip    int       // nodes deeper than this are left out with their directory; -1: none
	buf     []byte
	files   []File
	leftOut []string
}

// An openDir is a directory that nodes are being put into.
type openDir struct {
	root  *os.Root
	name  string
	nodes int             // how many it must have
	fresh bool            // it was made by this pass
	names map[string]bool // in lower case, where the file system folds them
}

// A differsError says where a tree that is there is not what it should be.
type differsError struct{ path, what string }

func (e *differsError) Error() string {
	return fmt.Sprintf("%s %s: it is left as it is; move it away to have it restored", e.path, e.what)
}

// An extraError says that a directory has what the archive has not.
type extraError struct{ path string }

func (e *extraError) Error() string {
	return e.path + " holds files that are not in the archive: it is left as it is; move it away to have it restored"
}

// pass has all nodes given to w by run.
func (w *writer) pass(ctx context.Context, run func(context.Context) error) error {
	w.files, w.leftOut, w.skip = nil, nil, -1
	err := run(ctx)
	if err == nil {
		err = w.leave(0)
	}
	for _, d := range w.open {
		d.root.Close()
	}
	w.open = nil
	return err
}

// path names a node for people and in lists, with the name that the tree will
// have.
func (w *writer) path(name string) string {
	if len(w.open) == 0 {
		return w.it.Name
	}
	parts := []string{w.it.Name}
	for _, d := range w.open[1:] {
		parts = append(parts, d.name)
	}
	return strings.Join(append(parts, name), "/")
}

// node takes the next node, whose contents r has. It may come from anywhere: the
// reader of NARs has seen to it that its name is one.
func (w *writer) node(h nar.Header, r io.Reader) error {
	if w.skip >= 0 && h.Depth > w.skip {
		return nil
	}
	w.skip = -1
	if err := w.leave(h.Depth); err != nil {
		return err
	}
	at, name := w.dir.root, w.name
	if h.Depth > 0 {
		top := &w.open[h.Depth-1]
		top.nodes++
		at, name = top.root, h.Name
	}
	err := w.make(at, name, h, r)
	var left *leftOutError
	if errors.As(err, &left) {
		w.leaveOut(h, name, left.reason)
		return nil
	}
	return err
}

func (w *writer) make(at *os.Root, name string, h nar.Header, r io.Reader) error {
	if h.Depth > 0 && w.dir.limits.FoldsCase {
		if err := w.open[h.Depth-1].fold(name); err != nil {
			return err
		}
	}
	switch h.Type {
	case nar.Directory:
		return w.directory(at, name)
	case nar.Symlink:
		return w.symlink(at, name, h)
	}
	return w.file(at, name, h, r)
}

// errFolded is for a name that is there already in the eyes of a file system.
var errFolded = &leftOutError{"another name differs only in case"}

// fold remembers a name where names that differ only in case are one.
func (d *openDir) fold(name string) error {
	if d.names == nil {
		d.names = make(map[string]bool)
	}
	name = strings.ToLower(name)
	if d.names[name] {
		return errFolded
	}
	d.names[name] = true
	return nil
}

// A leftOutError says that the file system cannot hold a node.
type leftOutError struct{ reason string }

func (e *leftOutError) Error() string { return e.reason }

// leaveOut notes a node that is not there.
func (w *writer) leaveOut(h nar.Header, name, reason string) {
	w.leftOut = append(w.leftOut, w.path(name)+": "+reason)
	if h.Depth > 0 {
		w.open[h.Depth-1].nodes--
	}
	if h.Type == nar.Directory {
		w.skip = h.Depth
	}
}

// drop takes away a node that could not be completed.
func (w *writer) drop(h nar.Header) error {
	at, name := w.dir.root, w.name
	if h.Depth > 0 {
		at, name = w.open[h.Depth-1].root, h.Name
		w.open[h.Depth-1].nodes--
	}
	err := at.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// held turns the errors of a file system that cannot hold a name into
// leftOutError.
func (w *writer) held(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist) && w.dir.limits.FoldsCase:
		return errFolded
	case cannotName(err):
		return &leftOutError{"the file system cannot hold the name"}
	}
	return err
}

// directory enters a directory, and makes it if need be.
func (w *writer) directory(at *os.Root, name string) error {
	fresh := false
	if w.compare {
		if err := w.mustBe(at, name, fs.ModeDir); err != nil {
			return err
		}
	} else {
		err := at.Mkdir(name, modeMaking)
		if errors.Is(err, fs.ErrExist) && !w.dir.limits.FoldsCase {
			err = w.reuse(at, name)
		} else {
			fresh = err == nil
		}
		if err != nil {
			return w.held(err)
		}
	}
	root, err := at.OpenRoot(name)
	if err != nil {
		return err
	}
	w.open = append(w.open, openDir{root: root, name: name, fresh: fresh})
	return nil
}

// reuse makes what is called name in a temporary tree a directory that can be
// written into.
func (w *writer) reuse(at *os.Root, name string) error {
	st, err := at.Lstat(name)
	if err == nil && !st.IsDir() {
		if err = at.Remove(name); err == nil {
			err = at.Mkdir(name, modeMaking)
		}
	}
	if err == nil {
		err = at.Chmod(name, modeMaking)
	}
	return err
}

// mustBe finds out whether what is there under its name has the right type.
func (w *writer) mustBe(at *os.Root, name string, typ fs.FileMode) error {
	st, err := at.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && w.dir.canName(name):
		return &differsError{w.path(name), "is missing"}
	case err != nil:
		return w.held(err)
	case st.Mode().Type() != typ:
		return &differsError{w.path(name), "is of another type"}
	}
	return nil
}

// leave ends the directories below a depth: what is in them is complete.
func (w *writer) leave(depth int) error {
	for len(w.open) > depth {
		last := w.open[len(w.open)-1]
		path := w.path("")
		w.open = w.open[:len(w.open)-1]
		if err := w.complete(last, strings.TrimSuffix(path, "/")); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) complete(d openDir, path string) error {
	defer d.root.Close()
	if !d.fresh {
		names, err := readNames(d.root)
		if err != nil {
			return err
		}
		if len(names) != d.nodes {
			return &extraError{path}
		}
	}
	if w.compare {
		return nil
	}
	at := w.dir.root
	if len(w.open) > 0 {
		at = w.open[len(w.open)-1].root
	}
	if err := at.Chmod(d.name, modeDir); err != nil && !w.dir.limits.NoModes {
		return err
	}
	return at.Chtimes(d.name, storeTime, storeTime)
}

// symlink makes a symlink.
func (w *writer) symlink(at *os.Root, name string, h nar.Header) error {
	if w.dir.limits.NoSymlinks {
		return &leftOutError{"symlink to " + h.Target}
	}
	target := h.Target
	if w.it.Relink != nil {
		target = w.it.Relink(target, h.Depth)
	}
	if w.compare {
		if err := w.mustBe(at, name, fs.ModeSymlink); err != nil {
			return err
		}
		if is, err := at.Readlink(name); err != nil || is != target {
			return errors.Join(err, &differsError{w.path(name), "is a symlink to " + is})
		}
		return nil
	}
	err := at.Symlink(target, name)
	if errors.Is(err, fs.ErrExist) && !w.dir.limits.FoldsCase {
		if err = removeAll(at, name); err == nil {
			err = at.Symlink(target, name)
		}
	}
	return w.held(err)
}
