package fusefs

import (
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
)

// The mutable directories of the mount.

// storeDir is store/: all store paths.
func (f *fileSystem) storeDir() *listDir {
	return &listDir{
		up:      func(node) (node, error) { return nodeRoot, nil },
		members: func(node) (*members, error) { return f.cat.store() },
		name:    func(_ node, num int) string { return f.pathName(num) },
		number:  f.pathNumber,
		child:   f.pathRoot,
		guess:   func(n node, num int) node { return pack(n.view(), num, 0) },
		absent:  func(name string) error { return f.cat.absent(storepath.Path(name)) },
		self:    func(node) string { return "store" },
	}
}

// releaseDir is releases/<project>/<name>/: the store paths of one release.
func (f *fileSystem) releaseDir() *listDir {
	d := f.storeDir()
	d.absent = nil
	d.up = func(n node) (node, error) { return f.projectOf(n.release()) }
	d.members = func(n node) (*members, error) { return f.cat.release(n.release()) }
	d.self = func(n node) string { return "releases/" + f.releaseName(n.release()) }
	return d
}

// exportPathsDir is exports/store/: a stream for each store path.
func (f *fileSystem) exportPathsDir() *listDir {
	d := f.storeDir()
	d.up = func(node) (node, error) { return nodeExports, nil }
	d.child = func(_ node, num int) (node, error) { return f.currentStream(viewExportPaths, num) }
	d.guess = func(_ node, num int) node { return f.lastStream(viewExportPaths, num) }
	d.suffix, d.typ = closureSuffix, syscall.S_IFREG
	d.self = func(node) string { return "exports/store" }
	return d
}

// projectsDir is releases/ or exports/releases/: all projects.
func (f *fileSystem) projectsDir(up node, path string) *listDir {
	guess := func(n node, num int) node { return pack(n.view(), num, 0) }
	return &listDir{
		up:      func(node) (node, error) { return up, nil },
		members: func(node) (*members, error) { return f.cat.projectNames() },
		name:    func(_ node, num int) string { return f.projectName(num) },
		number:  func(_ node, name string) (int, bool) { return f.cat.projects.number(name) },
		child:   func(n node, num int) (node, error) { return guess(n, num), nil },
		guess:   guess,
		typ:     syscall.S_IFDIR,
		self:    func(node) string { return path },
	}
}

// projectDir is releases/<project>/: the releases of one project.
func (f *fileSystem) projectDir() *listDir {
	guess := func(_ node, num int) node { return pack(viewReleases+num, 0, 0) }
	return &listDir{
		up:      func(n node) (node, error) { return pack(n.view(), 0, 0), nil },
		members: func(n node) (*members, error) { return f.cat.project(n.number()) },
		name:    func(_ node, num int) string { id, _ := f.cat.releases.key(num); return id.Name },
		number: func(n node, name string) (int, bool) {
			return f.cat.releases.number(ReleaseID{f.projectName(n.number()), name})
		},
		child: func(n node, num int) (node, error) { return guess(n, num), nil },
		guess: guess,
		typ:   syscall.S_IFDIR,
		self:  func(n node) string { return "releases/" + f.projectName(n.number()) },
	}
}

// exportsDir is exports/releases/<project>/: a stream for each release.
func (f *fileSystem) exportsDir() *listDir {
	d := f.projectDir()
	d.child = func(_ node, num int) (node, error) { return f.currentStream(viewExportStreams, num) }
	d.guess = func(_ node, num int) node { return f.lastStream(viewExportStreams, num) }
	d.suffix, d.typ = closureSuffix, syscall.S_IFREG
	d.self = func(n node) string { return "exports/releases/" + f.projectName(n.number()) }
	return d
}

// projectOf returns the directory below releases/ that a release is in.
func (f *fileSystem) projectOf(release int) (node, error) {
	id, ok := f.cat.releases.key(release)
	if !ok {
		return 0, errNoNode
	}
	num, ok := f.cat.projects.number(id.Project)
	if !ok {
		return 0, errNoNode
	}
	return pack(viewProjects, num, 0), nil
}

func (f *fileSystem) pathName(num int) string {
	p, _ := f.cat.paths.key(num)
	return string(p)
}

func (f *fileSystem) pathNumber(_ node, name string) (int, bool) {
	// A name that is no store path is simply not in the table.
	return f.cat.paths.number(storepath.Path(name))
}

func (f *fileSystem) projectName(num int) string {
	p, _ := f.cat.projects.key(num)
	return p
}

func (f *fileSystem) releaseName(num int) string {
	id, _ := f.cat.releases.key(num)
	return id.String()
}
