package fusefs

import (
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/storepath"
)

// What a narinfo says of a store path, as extended attributes of it. They are
// there only when asked for: else nearly all requests of ls -l would be about
// them. The kernel shows them on files and directories, not on symlinks.
const (
	xattrHash       = "user.nix.narHash"
	xattrReferences = "user.nix.references" // absolute, with spaces between them
	xattrDeriver    = "user.nix.deriver"
)

// xattrs says whether the mount has extended attributes.
func (f *fileSystem) xattrs() bool {
	_, ok := f.backup.(PathInfoReporter)
	return ok && f.o.XAttrs
}

// attributes returns the extended attributes of n: none unless it is a store path.
func (f *fileSystem) attributes(n node) (map[string]string, error) {
	r, ok := f.backup.(PathInfoReporter)
	if !ok || !n.inPath() || n.entry() != 0 {
		return nil, nil
	}
	p, ok := f.cat.paths.key(n.number())
	if !ok || !f.cat.current(p, n.number()) {
		return nil, errNoNode
	}
	info, err := r.PathInfo(p)
	if err != nil {
		return nil, f.cat.orGone(&backupError{err}, func() bool { return f.cat.pathGone(p, n.number()) })
	}
	dir := f.backup.StoreDir()
	var references []string
	for _, ref := range info.References {
		references = append(references, ref.In(dir))
	}
	all := map[string]string{xattrHash: info.NarHash, xattrReferences: strings.Join(references, " ")}
	if info.Deriver != storepath.Path("") {
		all[xattrDeriver] = info.Deriver.In(dir)
	}
	return all, nil
}

// GetXAttr is getxattr(2). It returns the size also when dest is too small.
func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := node(h.NodeId)
	f.begin(opXAttr, n)
	defer f.end()
	if !strings.HasPrefix(name, "user.nix.") {
		return 0, fuse.ENODATA // system.posix_acl_access and the like: asked for by every ls -l
	}
	all, err := f.attributes(n)
	if err != nil {
		return 0, f.fail("read attributes of", n, "", err)
	}
	value, ok := all[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return fillXAttr(value, dest)
}

// ListXAttr is listxattr(2).
func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := node(h.NodeId)
	f.begin(opXAttr, n)
	defer f.end()
	all, err := f.attributes(n)
	if err != nil {
		return 0, f.fail("list attributes of", n, "", err)
	}
	var names strings.Builder
	for _, name := range []string{xattrDeriver, xattrHash, xattrReferences} {
		if _, ok := all[name]; ok {
			names.WriteString(name + "\x00")
		}
	}
	return fillXAttr(names.String(), dest)
}

// maxXAttr is the largest value that Linux handles (XATTR_SIZE_MAX).
const maxXAttr = 64 << 10

func fillXAttr(value string, dest []byte) (uint32, fuse.Status) {
	switch {
	case len(value) > maxXAttr:
		return 0, fuse.Status(syscall.E2BIG)
	case len(value) > len(dest):
		return uint32(len(value)), fuse.ERANGE
	}
	copy(dest, value)
	return uint32(len(value)), fuse.OK
}
