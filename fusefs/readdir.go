package fusefs

import (
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The offset that telldir(3) returns after an entry: 1 after ".", 2 after "..",
// and after others 2 more than their key.
const dots = 2

// ReadDir is getdents(2) when nobody asked for attributes.
func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, func(off uint64, e dirent) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: e.typ, Ino: uint64(e.node), Off: off})
	})
}

// ReadDirPlus is getdents(2) that saves the kernel a LOOKUP for each entry.
// Where attributes would cost work (the lists of store paths, which would all
// have to be opened), an entry goes without them, and the kernel asks when
// somebody wants them.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := node(in.NodeId)
	return f.readDir(cancel, in, func(off uint64, e dirent) bool {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: e.name, Mode: e.typ, Ino: uint64(e.node), Off: off})
		if entry != nil && e.attr != nil {
			entry.Attr = *e.attr
			f.identify(e.node, &entry.Attr)
			f.entry(n, e.node, entry)
		}
		return entry != nil
	})
}

// readDir adds the entries of a directory from an offset on, until add says that
// no more fit.
func (f *fileSystem) readDir(cancel <-chan struct{}, in *fuse.ReadIn, add func(off uint64, e dirent) bool) fuse.Status {
	n, off := node(in.NodeId), in.Offset
	f.begin(opReadDir, n)
	defer f.end()
	if off > math.MaxInt32 {
		return fuse.OK // beyond the end of any directory
	}
	v, err := f.view(n)
	if err == nil && off < dots {
		err = f.patiently(cancel, in.Caller, func() error { return f.addDots(v, n, &off, add) })
	}
	if err == nil && off >= dots {
		err = f.patiently(cancel, in.Caller, func() error {
			return v.list(n, int(off)-dots, func(key int, e dirent) bool { return add(uint64(key)+dots, e) })
		})
	}
	return f.fail("list", n, "", err)
}

// addDots adds "." and "..", and moves off behind what was added.
func (f *fileSystem) addDots(v view, n node, off *uint64, add func(off uint64, e dirent) bool) error {
	up, err := v.parent(n)
	if err != nil {
		return err
	}
	for i, e := range []dirent{{name: ".", node: n}, {name: "..", node: up}} {
		e.typ = syscall.S_IFDIR
		if *off == uint64(i) && add(*off+1, e) {
			*off++
		}
	}
	return nil
}
