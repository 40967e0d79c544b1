package fusefs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/narvault/narvault/narread/storepath"
)

// maxAge is how old a list may be before it is read again for whoever asks.
const maxAge = 500 * time.Millisecond

// closureSuffix ends the names in exports/.
const closureSuffix = ".closure"

// maxName is the longest name that the mount shows, in bytes.
const maxName = 255

// members is what a mutable directory held at one time. It is never modified.
type members struct {
	nums    []int     // ascending, without duplicates
	mtime   time.Time // differs from that of every other state of the directory
	version int       // 0 at first, one more with each change
}

// none is a directory that was never filled.
var none = &members{}

func (m *members) has(num int) bool {
	_, ok := slices.BinarySearch(m.nums, num)
	return ok
}

// next returns the state of the directory when it holds nums: m itself if that
// changes nothing.
func (m *members) next(nums []int, c *clock) *members {
	slices.Sort(nums)
	nums = slices.Compact(nums)
	switch {
	case m == none:
		return &members{nums: nums, mtime: c.stamp()}
	case slices.Equal(nums, m.nums):
		return m
	}
	return &members{nums: nums, mtime: c.stamp(), version: m.version + 1}
}

// A clock gives modification times, no two alike: the kernel sees a change by
// nothing else.
type clock struct {
	now func() time.Time

	mu   sync.Mutex
	last time.Time // guarded by mu
}

func (c *clock) stamp() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.now()
	if !t.After(c.last) {
		t = c.last.Add(1)
	}
	c.last = t
	return t
}

// A source is one list of the Backup. It is read again when it is older than
// maxAge. An error is not kept.
type source[T comparable] struct {
	read func() ([]T, error)
	now  func() time.Time

	// The lock is held while the list is read: others that ask for it wait.
	mu      sync.Mutex
	checked time.Time // guarded by mu
	raw     []T       // guarded by mu
}

// changed reads the list if it is due and reports whether it differs from the
// last one. Needs mu. After an error of the caller, who could not use the list,
// it says so again: see failed.
func (s *source[T]) changed() (bool, error) {
	now := s.now()
	first := s.checked.IsZero()
	if !first && now.Sub(s.checked) < maxAge {
		return false, nil
	}
	raw, err := s.read()
	if err != nil {
		return false, &backupError{err}
	}
	s.checked = now
	if !first && same(raw, s.raw) {
		return false, nil
	}
	s.raw = raw
	return true, nil
}

// failed makes the list new at the next call of changed. Needs mu.
func (s *source[T]) failed() { s.checked, s.raw = time.Time{}, nil }

// expire makes the next call of changed read the list.
func (s *source[T]) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = time.Time{}
}

// same reports whether two lists are equal, at once if they are the same one.
func same[T comparable](a, b []T) bool {
	return len(a) == len(b) && (unsafe.SliceData(a) == unsafe.SliceData(b) || slices.Equal(a, b))
}

// A catalogue is what the mutable directories hold, with the numbers of all
// store paths, releases and projects.
type catalogue struct {
	backup Backup
	clock  clock
	report func(op, object string, err error) // of what is left out

	paths    *table[storepath.Path]
	releases *table[ReleaseID]
	projects *table[string]

	pathList    source[storepath.Path] // its lock also guards changes of held
	held        atomic.Pointer[members]
	retirements atomic.Int64 // how often store paths went away

	releaseList source[ReleaseID]
	projectDir  *members         // guarded by releaseList.mu
	projectDirs map[int]*members // guarded by releaseList.mu: releases by project

	mu       sync.Mutex
	closures map[int]*closure // guarded by mu: by release
}

// A closure is the list of one release.
type closure struct {
	source[storepath.Path]
	dir         *members // guarded by source.mu
	retirements int64    // guarded by source.mu: when dir was made
}

func newCatalogue(b Backup, now func() time.Time, report func(op, object string, err error)) *catalogue {
	c := &catalogue{
		backup:      b,
		clock:       clock{now: now},
		report:      report,
		paths:       newTable[storepath.Path]("store paths", maxNumber),
		releases:    newTable[ReleaseID]("releases", maxRelease),
		projects:    newTable[string]("projects", maxNumber),
		pathList:    source[storepath.Path]{read: b.Paths, now: now},
		releaseList: source[ReleaseID]{read: b.Releases, now: now},
		projectDir:  none,
		projectDirs: make(map[int]*members),
		closures:    make(map[int]*closure),
	}
	c.paths.compare = cmp.Compare
	c.held.Store(none)
	return c
}

// load reads the lists for the first time, which gives an unchanged backup the
// same numbers in every mount.
func (c *catalogue) load() error {
	if _, err := c.store(); err != nil {
		return err
	}
	_, err := c.projectNames()
	return err
}

// store returns the members of store/: the numbers of all store paths.
func (c *catalogue) store() (*members, error) {
	c.pathList.mu.Lock()
	defer c.pathList.mu.Unlock()
	changed, err := c.pathList.changed()
	if err != nil || !changed {
		return c.held.Load(), err
	}
	nums, err := c.paths.intern(c.pathList.raw)
	if err != nil {
		c.pathList.failed()
		return nil, err
	}
	old := c.held.Load()
	cur := old.next(nums, &c.clock)
	c.held.Store(cur)
	if gone := missing(old.nums, cur); len(gone) > 0 {
		c.paths.retire(gone)
		c.retirements.Add(1)
	}
	return cur, nil
}

// missing returns which of nums are not in cur.
func missing(nums []int, cur *members) (gone []int) {
	for _, n := range nums {
		if !cur.has(n) {
			gone = append(gone, n)
		}
	}
	return gone
}

// holds reports whether the backup held p, good or damaged, when store was last
// called.
func (c *catalogue) holds(p storepath.Path) bool {
	n, ok := c.paths.number(p)
	return ok && c.held.Load().has(n) || c.absent(p) != nil
}

// absent returns nil if p, which is not in store/, is not in the backup, and an
// error if that cannot be told.
func (c *catalogue) absent(p storepath.Path) error {
	prover, ok := c.backup.(AbsenceProver)
	if !ok {
		return nil
	}
	if err := prover.Absent(p); err != nil {
		return &backupError{err}
	}
	return nil
}

// projectNames returns the members of releases/: the numbers of all projects.
func (c *catalogue) projectNames() (*members, error) {
	c.releaseList.mu.Lock()
	defer c.releaseList.mu.Unlock()
	if err := c.readReleases(); err != nil {
		return nil, err
	}
	return c.projectDir, nil
}

// project returns the numbers of the releases of a project, errNoNode when it
// has none.
func (c *catalogue) project(num int) (*members, error) {
	c.releaseList.mu.Lock()
	defer c.releaseList.mu.Unlock()
	if err := c.readReleases(); err != nil {
		return nil, err
	}
	m, ok := c.projectDirs[num]
	if !ok {
		return nil, errNoNode
	}
	return m, nil
}

// readReleases brings projectDir and projectDirs up to date. Needs releaseList.mu.
func (c *catalogue) readReleases() error {
	changed, err := c.releaseList.changed()
	if err != nil || !changed {
		return err
	}
	byProject, err := c.numberReleases(c.releaseList.raw)
	if err != nil {
		c.releaseList.failed()
		return err
	}
	var projects []int
	for p, releases := range byProject {
		old, ok := c.projectDirs[p]
		if !ok {
			old = none
		}
		c.projectDirs[p] = old.next(releases, &c.clock)
		projects = append(projects, p)
	}
	for p := range c.projectDirs {
		if byProject[p] == nil {
			delete(c.projectDirs, p)
		}
	}
	c.projectDir = c.projectDir.next(projects, &c.clock)
	return nil
}

// numberReleases returns the numbers of releases by the number of their project.
func (c *catalogue) numberReleases(ids []ReleaseID) (map[int][]int, error) {
	ids = slices.Clone(ids)
	ids = slices.DeleteFunc(ids, func(id ReleaseID) bool {
		bad := !validName(id.Project) || !validName(id.Name) || !validName(id.Name+closureSuffix)
		if bad {
			c.report("show", fmt.Sprintf("release %q of project %q", id.Name, id.Project), errBadName)
		}
		return bad
	})
	slices.SortFunc(ids, func(a, b ReleaseID) int {
		if d := strings.Compare(a.Project, b.Project); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	nums, err := c.releases.intern(ids)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.Project
	}
	projects, err := c.projects.intern(names)
	if err != nil {
		return nil, err
	}
	byProject := make(map[int][]int)
	for i, p := range projects {
		byProject[p] = append(byProject[p], nums[i])
	}
	return byProject, nil
}

// release returns the numbers of the store paths of a release.
func (c *catalogue) release(num int) (*members, error) {
	id, ok := c.releases.key(num)
	if !ok {
		return nil, errNoNode
	}
	l := c.closure(num, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := c.store(); err != nil {
		return nil, err
	}
	retirements := c.retirements.Load()
	changed, err := l.changed()
	if err != nil {
		return nil, c.orGone(err, func() bool { return c.releaseGone(id, num) })
	}
	if !changed && l.retirements == retirements {
		return l.dir, nil
	}
	nums, err := c.paths.intern(l.raw)
	if err != nil {
		l.failed()
		return nil, err
	}
	if slices.ContainsFunc(nums, func(n int) bool { return !c.held.Load().has(n) }) {
		// The release is newer than the list of store paths. Links to them are
		// told by that list, and the kernel keeps what it is told.
		c.pathList.expire()
		if _, err := c.store(); err != nil {
			l.failed()
			return nil, err
		}
	}
	l.dir, l.retirements = l.dir.next(nums, &c.clock), retirements
	return l.dir, nil
}

// closure returns the list of a release, made at its first use.
func (c *catalogue) closure(num int, id ReleaseID) *closure {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.closures[num]
	if !ok {
		l = &closure{dir: none}
		l.read = func() ([]storepath.Path, error) { return c.backup.Closure(id) }
		l.now = c.clock.now
		c.closures[num] = l
	}
	return l
}

// orGone returns err, which the Backup returned for a member of one of its
// lists, or errNoNode when that member was taken out meanwhile: only the list
// tells a thing that was removed from one that lost its file.
func (c *catalogue) orGone(err error, gone func() bool) error {
	if errors.Is(err, fs.ErrNotExist) && gone() {
		return errNoNode
	}
	return err
}

// pathGone reports whether a number no longer stands for its store path.
func (c *catalogue) pathGone(p storepath.Path, num int) bool {
	c.pathList.expire()
	_, err := c.store()
	return err == nil && !c.current(p, num)
}

// replace retires the number of a store path whose content is another one than
// when it got the number: the kernel keeps what it knows of the old one. The
// path gets a new number when a list is read next.
func (c *catalogue) replace(num int) {
	c.pathList.mu.Lock()
	defer c.pathList.mu.Unlock()
	c.paths.retire([]int{num})
	c.pathList.failed()
	c.retirements.Add(1)
}

// current reports whether num was not retired.
func (c *catalogue) current(p storepath.Path, num int) bool {
	n, ok := c.paths.number(p)
	return ok && n == num
}

// releaseGone reports whether a release is no longer listed.
func (c *catalogue) releaseGone(id ReleaseID, num int) bool {
	project, ok := c.projects.number(id.Project)
	if !ok {
		return true
	}
	c.releaseList.expire()
	m, err := c.project(project)
	return errors.Is(err, errNoNode) || err == nil && !m.has(num)
}

// validName reports whether a directory can have an entry of that name.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName && !strings.ContainsAny(name, "/\x00")
}

// after returns the place of the first member above num.
func (m *members) after(num int) int {
	i, ok := slices.BinarySearch(m.nums, num)
	if ok {
		i++
	}
	return i
}
