package fusefs

import (
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread/storepath"
)

// A jobKey names what is below jobs/<project>/<name>/: a directory, with link
// "", or a link in it. The target is part of it, because the kernel keeps the
// target of a node's link.
type jobKey struct {
	dir, link string
	target    storepath.Path
}

// A jobTree is what is below jobs/<project>/<name>/ of one release.
type jobTree struct {
	source[Job]
	names *table[jobKey] // of entries

	now *jobNames // guarded by source.mu
}

// jobNames is a state of a jobTree. It is never modified.
type jobNames struct {
	root *members         // the directories
	dirs map[int]*members // the links in them
}

// jobTrees are the jobs of all releases that were looked at.
type jobTrees struct {
	lister JobLister
	cat    *catalogue

	mu   sync.Mutex
	byID map[int]*jobTree // guarded by mu: by release
}

// tree returns the tree of a release, made at its first use.
func (j *jobTrees) tree(release int) (*jobTree, ReleaseID, error) {
	id, ok := j.cat.releases.key(release)
	if !ok {
		return nil, id, errNoNode
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	t, ok := j.byID[release]
	if !ok {
		t = &jobTree{names: newTable[jobKey]("jobs of a release", maxEntry), now: &jobNames{root: none}}
		t.read = func() ([]Job, error) { return j.lister.Jobs(id) }
		t.source.now = j.cat.clock.now
		j.byID[release] = t
	}
	return t, id, nil
}

// names returns the tree of a release and what it has now.
func (j *jobTrees) names(release int) (*jobTree, *jobNames, error) {
	t, id, err := j.tree(release)
	if err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed, err := t.changed()
	if err != nil {
		return nil, nil, j.cat.orGone(err, func() bool { return j.cat.releaseGone(id, release) })
	}
	if changed {
		if err := t.update(&j.cat.clock); err != nil {
			t.failed()
			return nil, nil, err
		}
	}
	return t, t.now, nil
}

// update makes the names anew. Needs mu.
func (t *jobTree) update(c *clock) error {
	next := &jobNames{dirs: make(map[int]*members)}
	var dirs []int
	for dir, links := range JobDirs(t.raw) {
		num, err := t.names.intern([]jobKey{{dir: dir}})
		if err != nil {
			return err
		}
		var keys []jobKey
		for name, target := range links {
			keys = append(keys, jobKey{dir, name, target})
		}
		slices.SortFunc(keys, func(a, b jobKey) int { return strings.Compare(a.link, b.link) })
		nums, err := t.names.intern(keys)
		if err != nil {
			return err
		}
		old, ok := t.now.dirs[num[0]]
		if !ok {
			old = none
		}
		next.dirs[num[0]] = old.next(nums, c)
		dirs = append(dirs, num[0])
	}
	next.root = t.now.root.next(dirs, c)
	t.now = next
	return nil
}

// jobView is jobs/<project>/<name>/ and below: a directory for each job, and in
// it a relative symlink for each output.
type jobView struct {
	f     *fileSystem
	trees *jobTrees
	root  *listDir // the release
	dir   *listDir // a job
}

func (f *fileSystem) jobView(lister JobLister) *jobView {
	v := &jobView{f: f, trees: &jobTrees{lister: lister, cat: f.cat, byID: make(map[int]*jobTree)}}
	child := func(n node, num int) node { return pack(n.view(), n.number(), num) }
	list := listDir{
		child:  func(n node, num int) (node, error) { return child(n, num), nil },
		guess:  child,
		name:   func(n node, num int) string { return v.key(n.number(), num).name() },
		number: v.find,
		self:   v.path,
	}
	root, dir := list, list
	root.up = func(n node) (node, error) {
		up, err := f.projectOf(n.number())
		return pack(viewJobs, up.number(), 0), err
	}
	root.members = func(n node) (*members, error) {
		_, names, err := v.trees.names(n.number())
		if err != nil {
			return nil, err
		}
		return names.root, nil
	}
	root.typ = syscall.S_IFDIR
	dir.up = func(n node) (node, error) { return pack(n.view(), n.number(), 0), nil }
	dir.members = v.outputs
	dir.typ = syscall.S_IFLNK
	v.root, v.dir = &root, &dir
	return v
}

// jobProjectDir is jobs/<project>/: the releases of a project.
func (f *fileSystem) jobProjectDir() *listDir {
	d := f.projectDir()
	d.guess = func(_ node, num int) node { return pack(viewJobReleases, num, 0) }
	d.child = func(n node, num int) (node, error) { return d.guess(n, num), nil }
	d.self = func(n node) string { return "jobs/" + f.projectName(n.number()) }
	return d
}

// name is the last part of its path.
func (k jobKey) name() string {
	if k.link != "" {
		return k.link
	}
	return k.dir
}

func (v *jobView) key(release, entry int) (k jobKey) {
	if t, _, err := v.trees.tree(release); err == nil {
		k, _ = t.names.key(entry)
	}
	return k
}

// outputs returns the links in the directory of a job.
func (v *jobView) outputs(n node) (*members, error) {
	_, names, err := v.trees.names(n.number())
	if err != nil {
		return nil, err
	}
	m, ok := names.dirs[n.entry()]
	if !ok {
		return nil, errNoNode
	}
	return m, nil
}

// find returns the number of a name in a directory.
func (v *jobView) find(n node, name string) (int, bool) {
	t, names, err := v.trees.names(n.number())
	if err != nil {
		return 0, false
	}
	if n.entry() == 0 {
		return t.names.number(jobKey{dir: name})
	}
	m, ok := names.dirs[n.entry()]
	if !ok {
		return 0, false
	}
	for _, num := range m.nums { // as many as a derivation has outputs
		if k, _ := t.names.key(num); k.link == name {
			return num, true
		}
	}
	return 0, false
}

// list returns the directory that n is, errNotDir if it is a link.
func (v *jobView) listDir(n node) (*listDir, error) {
	if n.entry() == 0 {
		return v.root, nil
	}
	switch k := v.key(n.number(), n.entry()); {
	case k.dir == "":
		return nil, errNoNode
	case k.link == "":
		return v.dir, nil
	}
	return nil, errNotDir
}

func (v *jobView) attr(n node, a *fuse.Attr) error {
	d, err := v.listDir(n)
	if err == nil {
		return d.attr(n, a)
	}
	target, err := v.readlink(n)
	if err != nil {
		return err
	}
	fileAttr(a, syscall.S_IFLNK|0777, int64(len(target)))
	return nil
}

func (v *jobView) lookup(n node, name string) (node, error) {
	d, err := v.listDir(n)
	if err != nil {
		return 0, err
	}
	return d.lookup(n, name)
}

func (v *jobView) parent(n node) (node, error) {
	d, err := v.listDir(n)
	if err == nil {
		return d.parent(n)
	}
	k := v.key(n.number(), n.entry())
	t, _, err := v.trees.tree(n.number())
	if err != nil {
		return 0, err
	}
	dir, ok := t.names.number(jobKey{dir: k.dir})
	if !ok {
		return 0, errNoNode
	}
	return pack(n.view(), n.number(), dir), nil
}

func (v *jobView) list(n node, after int, yield func(key int, e dirent) bool) error {
	d, err := v.listDir(n)
	if err != nil {
		return err
	}
	return d.list(n, after, yield)
}

func (v *jobView) read(n node, _ []byte, _ int64) (int, error) {
	if _, err := v.listDir(n); err != errNotDir {
		return 0, cmpErr(err, errIsDir)
	}
	return 0, errNotFile
}

// readlink leads to store/, four directories up and down again.
func (v *jobView) readlink(n node) (string, error) {
	if _, err := v.listDir(n); err != errNotDir {
		return "", cmpErr(err, errNotLink)
	}
	return "../../../../store/" + string(v.key(n.number(), n.entry()).target), nil
}

// cmpErr returns err, or other if there is none.
func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (v *jobView) path(n node) string {
	name := "jobs/" + v.f.releaseName(n.number())
	k := v.key(n.number(), n.entry())
	for _, part := range []string{k.dir, k.link} {
		if part != "" {
			name += "/" + part
		}
	}
	return name
}
