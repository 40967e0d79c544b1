package fusefs

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fileSystem answers the kernel. It finds the view that a node belongs to, asks
// it, and says how long the answer may be kept; there is nothing else to a
// request, and no state between two of them.
//
// What is short is not interrupted. Requests for what takes long, a listing for
// which an archive has to be decoded as a whole, end when their process is killed
// (patiently). Reading has no such requests: the kernel fills its page cache in the
// background, and whoever waits for a page can be killed while he does.
type fileSystem struct {
	readOnly

	backup   Backup
	o        Options
	cat      *catalogue
	trees    handles[*tree]
	contents contents
	streams  handles[*stream]
	exports  exportVersions
	views    map[int]viewPair // those below viewReleases
	release  viewPair         // all others
	owner    fuse.Owner
	errors   errorLog
	damage   damageList
	count    counters
	answered atomic.Int64 // of the requests that count has
	cache    *cacheView   // nil if the backup does not show its cache

	since     time.Time
	readBytes atomic.Int64
	reclaimer atomic.Pointer[reclaimer] // nil without a kernel
	watcher   atomic.Pointer[watcher]   // nil without a kernel
	waiting   atomic.Int64              // requests that wait for an archive to be decoded
}

// A viewPair is the directory that lists the members of a view, number 0, and
// what its members are.
type viewPair struct{ dir, members view }

// newFileSystem returns the file system of b. It has read the lists of b once.
func newFileSystem(b Backup, o Options) (*fileSystem, error) {
	o = o.withDefaults()
	f := &fileSystem{
		readOnly: readOnly{fuse.NewDefaultRawFileSystem()},
		backup:   b,
		o:        o,
		owner:    fuse.Owner{Uid: uint32(syscall.Getuid()), Gid: uint32(syscall.Getgid())},
		errors:   errorLog{logf: o.Logf},
		damage:   damageList{now: time.Now},
		exports:  exportVersions{now: time.Now},
		since:    time.Now(),
	}
	if r, ok := b.(Replacer); ok {
		r.OnReplace(f.dropOpen)
	}
	if l, ok := b.(Locator); ok {
		f.damage.locate = l.Locate
	}
	f.cat = newCatalogue(b, time.Now, f.errors.add)
	f.trees = handles[*tree]{open: f.openTree, finish: f.listTree, maxN: o.MaxTrees, maxCost: o.MaxListingBytes, minAge: o.reopenAfter}
	f.streams = handles[*stream]{open: f.openStream, maxN: o.MaxStreams, maxCost: math.MaxInt64, idle: streamIdle, minAge: o.reopenAfter}
	f.views = map[int]viewPair{
		viewStore:         {f.storeDir(), pathView{f}},
		viewExportPaths:   {f.exportPathsDir(), streamView{f: f}},
		viewExports:       {f.projectsDir(nodeExports, "exports/releases"), f.exportsDir()},
		viewExportStreams: {members: streamView{f: f}},
		viewProjects:      {f.projectsDir(nodeRoot, "releases"), f.projectDir()},
	}
	f.release = viewPair{f.releaseDir(), pathView{f}}
	if err := f.addOptional(); err != nil {
		return nil, err
	}
	f.views[viewFixed] = viewPair{dir: f.fixed()}
	return f, f.cat.load()
}

// addOptional adds the views that not every Backup has.
func (f *fileSystem) addOptional() error {
	self := f.selfView()
	f.views[viewSelf] = viewPair{self, self}
	if l, ok := f.backup.(JobLister); ok {
		f.views[viewJobs] = viewPair{f.projectsDir(nodeRoot, "jobs"), f.jobProjectDir()}
		f.views[viewJobReleases] = viewPair{members: f.jobView(l)}
	}
	if files, ok := f.backup.(CacheFiles); ok {
		f.cache = f.cacheView(files)
		logs, err := f.logsView(f.cache)
		if err != nil {
			return err
		}
		f.views[viewCache] = viewPair{f.cache, f.cache}
		f.views[viewLogs] = viewPair{dir: logs}
	}
	return nil
}

// fixed makes the directories above the views.
func (f *fileSystem) fixed() fixedDirs {
	dir := func(name string, n node) dirent { return dirent{name: name, node: n, typ: syscall.S_IFDIR} }
	var root []dirent
	for _, d := range []struct {
		name string
		view int
	}{{".narvault", viewSelf}, {"cache", viewCache}, {"jobs", viewJobs}, {"logs", viewLogs}, {"releases", viewProjects}, {"store", viewStore}} {
		if _, ok := f.views[d.view]; ok {
			root = append(root, dir(d.name, pack(d.view, 0, 0)))
		}
	}
	return fixedDirs{
		nodeRoot: {self: ".", up: nodeRoot, entries: append(root, dir("exports", nodeExports))},
		nodeExports: {self: "exports", up: nodeRoot, entries: []dirent{
			dir("releases", pack(viewExports, 0, 0)),
			dir("store", pack(viewExportPaths, 0, 0)),
		}},
	}
}

// close closes what is open, what is in use when it is no longer.
func (f *fileSystem) close() {
	f.trees.close()
	f.streams.close()
	if r := f.reclaimer.Load(); r != nil {
		r.close()
	}
	if w := f.watcher.Load(); w != nil {
		w.close()
	}
}

// view returns the view that n belongs to. Whether n exists is its business.
func (f *fileSystem) view(n node) (view, error) {
	p, ok := f.views[n.view()]
	if !ok && n.release() > 0 {
		p = f.release
	}
	v := p.members
	if n.number() == 0 {
		v = p.dir
	}
	if v == nil || n>>63 != 0 {
		return nil, errNoNode
	}
	return v, nil
}

// begin is the begin of every request, and end its end. Where a part of an index
// is mapped into memory, reading it from a drive that was pulled is a fault; it
// shall be a panic, which is EIO, and not the end of the process. The setting is
// one of the goroutine, and go-fuse uses some for many requests.
func (f *fileSystem) begin(op int, n node) {
	debug.SetPanicOnFault(true)
	f.count.add(op, n)
}

func (f *fileSystem) end() { f.answered.Add(1) }

// unanswered returns how many requests are being worked on, and how often one
// came or was done with until now.
func (f *fileSystem) unanswered() (n, activity int64) {
	answered := f.answered.Load() // first: n is never below zero
	asked := f.count.total()
	return asked - answered, asked + answered
}

// fail turns an error into what the kernel is told, and logs it if it is news.
func (f *fileSystem) fail(op string, n node, name string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if worthLogging(err) {
		object := f.pathOf(n, name)
		f.errors.add(op, object, err)
		f.damage.add(object, err)
	}
	return errno(err)
}

// dropOpen closes what is open of the backup, as soon as nobody uses it.
func (f *fileSystem) dropOpen() {
	f.trees.drop()
	f.streams.drop()
}

// pathOf names a node, and an entry of it, in messages.
func (f *fileSystem) pathOf(n node, name string) string {
	v, err := f.view(n)
	if err != nil {
		return fmt.Sprintf("node %#x", uint64(n))
	}
	if name != "" {
		return v.path(n) + "/" + name
	}
	return v.path(n)
}

// panicked is told of a panic in a request.
func (f *fileSystem) panicked(reason any) fuse.Status {
	text := fmt.Sprintf("panic: %v", reason)
	f.errors.once(text, "answer the kernel: %s\n%s", text, debug.Stack())
	f.damage.add("", errors.New(text))
	return fuse.EIO
}

// guarded reads the backup on a goroutine that is not go-fuse's: a fault or a panic
// is an error there as well, and not the end of the process.
func (f *fileSystem) guarded(read func() error) (err error) {
	debug.SetPanicOnFault(true)
	defer func() {
		if reason := recover(); reason != nil {
			f.panicked(reason)
			err = errPanicked
		}
	}()
	return read()
}

// String is the name of the file system's type.
func (f *fileSystem) String() string { return fsType }

// Lookup finds an entry of a directory. "." and ".." are asked for by the NFS
// server and open_by_handle_at(2), which know a file by its node only.
func (f *fileSystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n := node(h.NodeId)
	f.begin(opLookup, n)
	defer f.end()
	var child node
	err := f.patiently(cancel, h.Caller, func() (err error) {
		if child, err = f.lookup(n, name); err == nil {
			err = f.attr(child, &out.Attr)
		}
		return err
	})
	if errors.Is(err, errNoName) {
		*out = fuse.EntryOut{} // node 0: the kernel remembers that there is none
		out.SetEntryTimeout(keep(n))
		return fuse.OK
	}
	if err != nil {
		return f.fail("look up", n, name, err)
	}
	f.entry(n, child, out)
	return fuse.OK
}

func (f *fileSystem) lookup(n node, name string) (node, error) {
	v, err := f.view(n)
	switch {
	case err != nil:
		return 0, err
	case name == ".":
		return n, nil
	case name == "..":
		if err := v.attr(n, new(fuse.Attr)); err != nil {
			return 0, err // no such node: its parent says nothing about it
		}
		return v.parent(n)
	case len(name) > maxName:
		return 0, errLongName
	}
	return v.lookup(n, name)
}

// entry completes the answer about child, an entry of dir whose attributes out
// has.
func (f *fileSystem) entry(dir, child node, out *fuse.EntryOut) {
	out.NodeId = uint64(child)
	out.Generation = f.generation(child)
	out.SetEntryTimeout(f.keepName(dir, child))
	out.SetAttrTimeout(keep(child))
}

// generation goes with a node number, also in file handles (NFS,
// open_by_handle_at): those of another mount must not lead to another file. In a
// mount a number is never used for another file. In the next one it may be, when
// the backup has changed, so the generation stands for what the number is of: a
// project, a release, a store path and its content. The kernel keeps 32 bits.
func (f *fileSystem) generation(n node) uint64 {
	switch {
	case n.volatile():
		return uint64(f.since.UnixNano())
	case n.number() == 0 && n.release() == 0:
		return generation
	}
	sum := fnvOffset
	if num := n.release(); num != 0 {
		sum = fnv(sum, f.releaseName(num))
	}
	switch {
	case n.inPath():
		// The sum of the content is random in all its bits.
		sum = fnv(sum, f.pathName(n.number())) ^ uint32(f.contents.sum(n.number())>>32)
	case n.number() != 0:
		sum = fnv(sum, f.projectName(n.number()))
	}
	return uint64(sum)
}

// fnvOffset is the FNV-1a hash of nothing.
const fnvOffset uint32 = 2166136261

// fnv adds s to an FNV-1a hash, without the allocations of hash/fnv: it is
// needed for each entry of a listing.
func fnv(sum uint32, s string) uint32 {
	for i := range len(s) {
		sum = (sum ^ uint32(s[i])) * 16777619
	}
	return sum
}

// attr sets all attributes of n.
func (f *fileSystem) attr(n node, a *fuse.Attr) error {
	v, err := f.view(n)
	if err != nil {
		return err
	}
	*a = fuse.Attr{}
	if err := v.attr(n, a); err != nil {
		return err
	}
	f.identify(n, a)
	return nil
}

// identify sets what all views have in common.
func (f *fileSystem) identify(n node, a *fuse.Attr) {
	a.Ino = uint64(n)
	a.Owner = f.owner
	a.Blksize = blockSize
}

// GetAttr is stat(2).
func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := node(in.NodeId)
	f.begin(opGetAttr, n)
	defer f.end()
	if err := f.patiently(cancel, in.Caller, func() error { return f.attr(n, &out.Attr) }); err != nil {
		return f.fail("stat", n, "", err)
	}
	out.SetTimeout(keep(n))
	return fuse.OK
}

// Readlink is readlink(2).
func (f *fileSystem) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := node(h.NodeId)
	f.begin(opReadlink, n)
	defer f.end()
	v, err := f.view(n)
	if err != nil {
		return nil, f.fail("read link", n, "", err)
	}
	var target string
	err = f.patiently(cancel, h.Caller, func() (err error) {
		target, err = v.readlink(n)
		return err
	})
	return []byte(target), f.fail("read link", n, "", err)
}

// Open makes the kernel open and close files without us (package comment).
func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	f.begin(opOpen, node(in.NodeId))
	defer f.end()
	return fuse.ENOSYS
}

// OpenDir does the same for directories.
func (f *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	f.begin(opOpen, node(in.NodeId))
	defer f.end()
	return fuse.ENOSYS
}

// Flush does the same for close(2).
func (f *fileSystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	f.begin(opOpen, node(in.NodeId))
	defer f.end()
	return fuse.ENOSYS
}

// Read is pread(2). It fills buf or fails, except at the end of the file.
func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := node(in.NodeId)
	f.begin(opRead, n)
	defer f.end()
	v, err := f.view(n)
	if err != nil {
		return nil, f.fail("read", n, "", err)
	}
	var got int
	err = f.patiently(cancel, in.Caller, func() (err error) {
		got, err = v.read(n, buf[:min(len(buf), int(in.Size))], int64(in.Offset))
		return err
	})
	if err != nil {
		return nil, f.fail("read", n, "", err)
	}
	f.readBytes.Add(int64(got))
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// StatFs is statfs(2). A full file system: nothing can be added.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: maxName}
	out.Files = uint64(len(f.cat.held.Load().nums))
	if r, ok := f.backup.(UsageReporter); ok {
		if u, err := r.Usage(); err == nil {
			out.Blocks = uint64(max(u.Bytes, 0)+blockSize-1) / blockSize
			out.Files = max(out.Files, uint64(max(u.Files, 0)))
		}
	}
	return fuse.OK
}
