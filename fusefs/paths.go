package fusefs

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A tree is an open store path.
type tree struct {
	Tree
	l *nar.Listing
}

// openTree opens the store path that key, an entry 0 of viewStore, stands for.
// The cost is the memory of its listing. If that may take long, the error is
// errSlow, and listTree has to follow.
func (f *fileSystem) openTree(key node) (*tree, int64, error) {
	num := key.number()
	p, ok := f.cat.paths.key(num)
	if !ok || !f.cat.current(p, num) {
		return nil, 0, errNoNode
	}
	t, err := f.backup.Open(p)
	if err != nil {
		return nil, 0, f.cat.orGone(&backupError{err}, func() bool { return f.cat.pathGone(p, num) })
	}
	if h, ok := t.(HashedTree); ok && !f.contents.same(num, h.NarHash()) {
		t.Close()
		f.cat.replace(num)
		return nil, 0, errNoNode
	}
	open := &tree{Tree: t}
	if r, ok := t.(RandomTree); ok && !r.RandomAccess() {
		return open, 0, errSlow
	}
	cost, err := open.list()
	if err != nil {
		return nil, 0, err
	}
	return open, cost, nil
}

// listTree is the rest of openTree. It runs on a goroutine of its own.
func (f *fileSystem) listTree(t *tree) (cost int64, err error) {
	err = f.guarded(func() (err error) {
		cost, err = t.list()
		return err
	})
	return cost, err
}

// list sets l, and closes the tree if it cannot.
func (t *tree) list() (cost int64, err error) {
	l, err := t.Listing()
	if err != nil {
		err = &backupError{err}
	} else {
		err = fits(l.Len())
	}
	if err != nil {
		t.Close()
		return 0, err
	}
	t.l = l
	return l.MemSize(), nil
}

// contents remembers which NAR each store path number has stood for. Entry
// numbers, and all that the kernel keeps below a store path, are those of that
// NAR: should the path have another one later (it was repaired, or removed and
// added again while nobody looked), the number must not be used for it.
type contents struct {
	mu sync.Mutex
	// By number the first bytes of the hash, which differ as hashes do; 0 is
	// none yet. There may be a million numbers. Guarded by mu.
	seen []uint64
}

// same remembers the NAR of a number, or compares it.
func (c *contents) same(num int, h narinfo.Hash) bool {
	sum := binary.BigEndian.Uint64(h[:]) | 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if num >= len(c.seen) {
		c.seen = append(c.seen, make([]uint64, num+1-len(c.seen))...)
	}
	if c.seen[num] == 0 {
		c.seen[num] = sum
	}
	return c.seen[num] == sum
}

// sum returns what is remembered of the NAR of a number, 0 if nothing is.
func (c *contents) sum(num int) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if num >= len(c.seen) {
		return 0
	}
	return c.seen[num]
}

// fits refuses a listing with more entries than can be numbered.
func fits(entries int) error {
	if entries > maxEntry+1 {
		return fmt.Errorf("number %d entries: %w", entries, errTooMany)
	}
	return nil
}

// pathView is the inside of store paths, under store/ and releases/.
type pathView struct{ f *fileSystem }

// with runs use with the open store path of n and the entry that n is.
func (v pathView) with(n node, use func(t *tree, i int, e nar.Entry) error) error {
	return v.f.trees.with(pack(viewStore, n.number(), 0), func(t *tree) error {
		if n.entry() >= t.l.Len() {
			return errNoNode
		}
		return use(t, n.entry(), t.l.Entry(n.entry()))
	})
}

// nodeOf returns the node of entry i of the store path of n: in the view of n
// if it is a directory, else the one that all views share.
func nodeOf(n node, i int, e *nar.Entry) node {
	if e.Type == nar.Directory {
		return pack(n.view(), n.number(), i)
	}
	return pack(viewStore, n.number(), i)
}

// pathRoot returns the node of a store path in the view of n.
func (f *fileSystem) pathRoot(n node, num int) (root node, err error) {
	n = pack(n.view(), num, 0)
	err = pathView{f}.with(n, func(_ *tree, i int, e nar.Entry) error {
		root = nodeOf(n, i, &e)
		return nil
	})
	return root, err
}

func (v pathView) attr(n node, a *fuse.Attr) error {
	return v.with(n, func(t *tree, i int, e nar.Entry) error {
		v.f.entryAttr(t.l, i, &e, a)
		return nil
	})
}

// entryAttr is what Nix gives an entry of the store.
func (f *fileSystem) entryAttr(l *nar.Listing, i int, e *nar.Entry, a *fuse.Attr) {
	switch e.Type {
	case nar.Directory:
		dirAttr(a, 2+subdirectories(l, e))
	case nar.Symlink:
		fileAttr(a, syscall.S_IFLNK|0777, int64(len(f.target(l, i, e))))
	default:
		mode := uint32(syscall.S_IFREG | 0444)
		if e.Executable {
			mode |= 0111
		}
		fileAttr(a, mode, e.Size)
	}
}

func subdirectories(l *nar.Listing, dir *nar.Entry) (n int) {
	for i := dir.First; i < dir.First+dir.N; i++ {
		if l.Entry(i).Type == nar.Directory {
			n++
		}
	}
	return n
}

// target returns the target of a symlink as the mount shows it.
func (f *fileSystem) target(l *nar.Listing, i int, e *nar.Entry) string {
	if f.o.RawLinks {
		return e.Target
	}
	depth := 0
	for ; i != 0; i = l.Entry(i).Parent {
		depth++
	}
	return storepath.Relink(e.Target, f.backup.StoreDir(), depth, f.cat.holds)
}

func (v pathView) lookup(n node, name string) (child node, err error) {
	err = v.with(n, func(t *tree, dir int, e nar.Entry) error {
		if e.Type != nar.Directory {
			return errNotDir
		}
		i, ok := t.l.Lookup(dir, name)
		if !ok {
			return errNoName
		}
		e = t.l.Entry(i)
		child = nodeOf(n, i, &e)
		return nil
	})
	return child, err
}

func (v pathView) parent(n node) (up node, err error) {
	if n.entry() == 0 {
		return pack(n.view(), 0, 0), nil
	}
	err = v.with(n, func(_ *tree, _ int, e nar.Entry) error {
		up = pack(n.view(), n.number(), e.Parent)
		return nil
	})
	return up, err
}

// list uses the place in the directory as key: it never changes.
func (v pathView) list(n node, after int, yield func(key int, e dirent) bool) error {
	return v.with(n, func(t *tree, _ int, dir nar.Entry) error {
		if dir.Type != nar.Directory {
			return errNotDir
		}
		var a fuse.Attr
		for k := after; k < dir.N; k++ {
			i := dir.First + k
			e := t.l.Entry(i)
			a = fuse.Attr{}
			v.f.entryAttr(t.l, i, &e, &a)
			if !yield(k+1, dirent{name: e.Name, node: nodeOf(n, i, &e), typ: a.Mode & syscall.S_IFMT, attr: &a}) {
				break
			}
		}
		return nil
	})
}

func (v pathView) read(n node, p []byte, off int64) (got int, err error) {
	err = v.with(n, func(t *tree, _ int, e nar.Entry) error {
		switch e.Type {
		case nar.Directory:
			return errIsDir
		case nar.Symlink:
			return errNotFile
		}
		got, err = readWithin(t, p, off, e.Offset, e.Size)
		return err
	})
	return got, err
}

// readWithin reads the bytes off and following of the size bytes that begin at
// base. It returns less than p only at their end: the kernel would take a short
// answer for a shorter file, so everything else is an error.
func readWithin(r io.ReaderAt, p []byte, off, base, size int64) (int, error) {
	if off < 0 || off >= size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-off)]
	n, err := r.ReadAt(p, base+off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, &backupError{err}
}

func (v pathView) readlink(n node) (target string, err error) {
	err = v.with(n, func(t *tree, i int, e nar.Entry) error {
		if e.Type != nar.Symlink {
			return errNotLink
		}
		target = v.f.target(t.l, i, &e)
		return nil
	})
	return target, err
}

func (v pathView) path(n node) string {
	name := "store/" + v.f.pathName(n.number())
	// Only if it is open anyway: a message must not cause the next error.
	h := v.f.trees.acquireOpen(pack(viewStore, n.number(), 0))
	if h == nil {
		return name
	}
	defer v.f.trees.release(h)
	if i := n.entry(); i != 0 && i < h.v.l.Len() {
		name += "/" + h.v.l.Path(i)
	}
	return name
}
