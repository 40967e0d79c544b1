package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// The names in the directory of releases.

// A release is one with a closure.txt, damaged or not.
type release struct {
	id    backup.ReleaseID
	paths []int32 // of its closure, those that are there
}

const remedyRelease = "back the release up again"

// readReleases checks what releases/ holds.
func (c *checker) readReleases(context.Context) error {
	if c.b.Foreign() {
		return nil
	}
	for _, project := range c.readDir(layout.ReleasesDir) {
		at := path.Join(layout.ReleasesDir, project.Name())
		if !project.IsDir() {
			c.oddFile(at)
			continue
		}
		for _, name := range c.readDir(at) {
			c.checkPlace(project.Name()+"/"+name.Name(), name)
		}
	}
	return nil
}

// readDir lists a directory of the backup; one that is not there is empty.
func (c *checker) readDir(dir string) []fs.DirEntry {
	entries, err := os.ReadDir(filepath.Join(c.b.Dir(), dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.add(trouble(Release, dir, err, "make it a directory again"))
	}
	return entries
}

// oddFile reports a file where there should be none.
func (c *checker) oddFile(name string) {
	kind, message := Orphan, "belongs to no release"
	if backup.Temporary(path.Base(name)) {
		kind, message = Leftover, "is a temporary file that somebody left"
	}
	st, err := os.Lstat(filepath.Join(c.b.Dir(), name))
	if err == nil && c.start.Sub(st.ModTime()) >= settled {
		c.add(Finding{Kind: kind, Severity: Note, File: name, Message: message})
	}
}

// checkPlace checks what should be the directory of a release.
func (c *checker) checkPlace(name string, entry fs.DirEntry) {
	at := path.Join(layout.ReleasesDir, name)
	id, err := backup.ParseReleaseID(name)
	if err != nil || !entry.IsDir() {
		c.oddFile(at)
		return
	}
	entries := c.readDir(at)
	has := make(map[string]bool)
	for _, e := range entries {
		has[e.Name()] = true
		if backup.Temporary(e.Name()) {
			c.oddFile(path.Join(at, e.Name()))
		}
	}
	switch {
	case has[layout.ClosureFile]:
		c.checkRelease(id)
	case has[layout.ReleaseFile], has[layout.PreviousDir]:
		c.badRelease(id, layout.ClosureFile, errors.New("is missing"))
	default:
		c.oddFile(at)
	}
	if has[layout.PreviousDir] {
		c.checkPrevious(id)
	}
}

// badRelease reports an error met with a file of a release.
func (c *checker) badRelease(id backup.ReleaseID, file string, err error) {
	f := trouble(Release, path.Join(layout.ReleasesDir, id.String(), file), err, remedyRelease)
	f.Releases = []backup.ReleaseID{id}
	c.add(f)
}

// checkRelease checks the record of a release against the cache. One that is
// removed meanwhile is forgotten.
func (c *checker) checkRelease(id backup.ReleaseID) {
	closure, err := c.b.Closure(id)
	if errors.Is(err, backup.ErrNoRelease) {
		return
	}
	r := release{id: id}
	if err != nil {
		c.releases = append(c.releases, r)
		c.badRelease(id, layout.ClosureFile, err)
		return
	}
	missing := c.resolve(&r, closure)
	if len(missing) > 0 {
		if again, err := c.b.Closure(id); err != nil || !slices.Equal(again, closure) {
			return // it is another one by now
		}
	}
	c.releases = append(c.releases, r)
	for _, p := range missing {
		f := Finding{Kind: ReleasePath, Severity: Damage, File: path.Join(layout.ReleasesDir, id.String(), layout.ClosureFile),
			Message: fmt.Sprintf("names %s, which has no narinfo", p), Remedy: remedyRelease}
		f.StorePaths, f.Releases = []storepath.Path{p}, []backup.ReleaseID{id}
		c.add(f)
	}
	c.checkHydra(id)
	c.checkClosed(id, &r)
	c.checkRecord(id, &r, closure)
}

// checkHydra looks whether the rows of Hydra's database can be read, if there
// are any.
func (c *checker) checkHydra(id backup.ReleaseID) {
	text, err := c.b.Hydra(id)
	if err == nil && text != nil && !json.Valid(text) {
		err = errors.New("is no JSON")
	}
	if err != nil {
		c.badRelease(id, layout.HydraFile, err)
	}
}

// resolve sets the numbers of the store paths of a closure, and returns those
// that are not in the cache.
func (c *checker) resolve(r *release, closure []storepath.Path) (missing []storepath.Path) {
	for _, p := range closure {
		i, found := c.table.number(p.Hash())
		if found && !c.table.paths[i].gone {
			if e := &c.table.paths[i]; e.path == "" {
				e.path = p // its narinfo is damaged, and this is what it is called
			} else if e.path != p {
				missing = append(missing, p)
				continue
			}
			r.paths = append(r.paths, i)
			continue
		}
		if _, err := c.cache.Lookup(p); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}

// checkClosed reports a closure that lacks store paths which others in it refer
// to: an export of the release could not be imported.
func (c *checker) checkClosed(id backup.ReleaseID, r *release) {
	in := make(map[int32]bool, len(r.paths))
	for _, i := range r.paths {
		in[i] = true
	}
	for _, i := range r.paths {
		for _, ref := range c.table.paths[i].refs {
			if in[ref] {
				continue
			}
			in[ref] = true // once
			f := Finding{Kind: ReleaseClosed, Severity: Damage, File: path.Join(layout.ReleasesDir, id.String(), layout.ClosureFile),
				Message: fmt.Sprintf("lacks %s, which %s refers to", c.table.name(ref), c.table.name(i)), Remedy: remedyRelease}
			f.Releases = []backup.ReleaseID{id}
			c.add(f, ref)
		}
	}
}

// checkRecord checks release.json against closure.txt and the narinfos. A
// backup replaces one after the other, so whatever does not fit is read again.
func (c *checker) checkRecord(id backup.ReleaseID, r *release, closure []storepath.Path) {
	if _, err := os.Lstat(filepath.Join(c.b.Dir(), layout.ReleasesDir, id.String(), layout.ReleaseFile)); errors.Is(err, fs.ErrNotExist) {
		if c.b.Config().Version != 0 && c.recorded(id) {
			c.badRelease(id, layout.ReleaseFile, errors.New("is missing"))
		}
		return // hydra-backup wrote none
	}
	record, err := c.b.Release(id)
	if err != nil {
		c.badRelease(id, layout.ReleaseFile, err)
		return
	}
	if problems := c.recordProblems(id, record); len(problems) > 0 {
		c.badRelease(id, layout.ReleaseFile, errors.New(strings.Join(problems, "; ")))
	}
	problems := c.closureProblems(r, record, closure)
	if len(problems) == 0 {
		return
	}
	again, closureErr := c.b.Closure(id)
	recordAgain, recordErr := c.b.Release(id)
	if errors.Join(closureErr, recordErr) != nil || !slices.Equal(again, closure) || !reflect.DeepEqual(recordAgain, record) {
		return // a backup is replacing them
	}
	if c.interrupted(id, record) {
		f := Finding{Kind: Release, Severity: Warning, File: path.Join(layout.ReleasesDir, id.String(), layout.ReleaseFile),
			Message: "is older than " + layout.ClosureFile + ": a backup was interrupted between the two", Remedy: remedyRelease}
		f.Releases = []backup.ReleaseID{id}
		c.add(f)
		return
	}
	c.badRelease(id, layout.ReleaseFile, errors.New(strings.Join(problems, "; ")))
}

// interrupted reports whether a backup replaced closure.txt and did not come to
// release.json: that is then the one that was kept with the closure before.
func (c *checker) interrupted(id backup.ReleaseID, record *backup.Release) bool {
	before, err := c.b.PreviousRelease(id)
	closure, closureErr := c.b.PreviousClosure(id)
	return err == nil && closureErr == nil && len(closure) == record.Paths && reflect.DeepEqual(before, record)
}

// recorded reports whether a release was backed up by narvault before.
func (c *checker) recorded(id backup.ReleaseID) bool {
	_, err := os.Lstat(filepath.Join(c.b.Dir(), layout.ReleasesDir, id.String(), layout.PreviousDir, layout.ReleaseFile))
	return err == nil
}

// recordProblems says what is wrong with a release.json by itself.
func (c *checker) recordProblems(id backup.ReleaseID, record *backup.Release) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !record.Intact() {
		problem("its checksum is wrong: it was changed")
	}
	if record.Version < 1 {
		problem("has no version")
	}
	if record.Project != id.Project || record.Name != id.Name {
		problem("is of %s/%s", record.Project, record.Name)
	}
	if record.StoreDir != c.cache.StoreDir() {
		problem("storeDir is %s", record.StoreDir)
	}
	if _, err := backup.ParseMethod(string(record.Method)); err != nil {
		problem("%v", err)
	}
	if record.Created.IsZero() {
		problem("has no time of creation")
	}
	if len(record.Roots) == 0 {
		problem("has no roots")
	}
	for _, root := range record.Roots {
		for _, p := range []storepath.Path{root.StorePath, root.DrvPath} {
			if _, err := storepath.Parse(string(p)); err != nil && p != "" {
				problem("root %v", err)
			}
		}
	}
	return problems
}

// closureProblems says what in a release.json contradicts closure.txt.
func (c *checker) closureProblems(r *release, record *backup.Release, closure []storepath.Path) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if record.Paths != len(closure) {
		problem("says %d store paths, %s has %d", record.Paths, layout.ClosureFile, len(closure))
	}
	if size, known := c.narSize(r, len(closure)); known && size != record.NarSize {
		problem("narSize is %d, of the store paths together it is %d", record.NarSize, size)
	}
	for _, root := range record.Roots {
		if _, found := slices.BinarySearch(closure, root.StorePath); !found {
			problem("its root %s is not in %s", root.StorePath, layout.ClosureFile)
		}
	}
	return problems
}

// narSize adds up the NARs of a release, if all are known.
func (c *checker) narSize(r *release, paths int) (sum int64, known bool) {
	for _, i := range r.paths {
		e := &c.table.paths[i]
		if e.nar == nil || len(e.nar.claims) != 1 {
			return 0, false
		}
		sum += e.nar.claims[0].narSize
	}
	return sum, len(r.paths) == paths
}

// checkPrevious checks that the record before can be read. What it names may be
// gone.
func (c *checker) checkPrevious(id backup.ReleaseID) {
	_, closureErr := c.b.PreviousClosure(id)
	record, releaseErr := c.b.PreviousRelease(id)
	if releaseErr == nil && !record.Intact() {
		releaseErr = errors.New("its checksum is wrong: it was changed")
	}
	for name, err := range map[string]error{layout.ClosureFile: closureErr, layout.ReleaseFile: releaseErr} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f := trouble(Release, path.Join(layout.ReleasesDir, id.String(), layout.PreviousDir, name), err, "remove it: it is the record before the last change, kept for undo")
		f.Releases = []backup.ReleaseID{id}
		c.add(f)
	}
}
