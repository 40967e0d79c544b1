package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/narread/storepath"
)

// jobsDir is where the mount shows builds by what they are called.
const jobsDir = "jobs"

// find finds what an argument names: a release or something in a store path.
// The caller closes the Node.
func find(b *backup.Backup, name string) (*backup.Place, error) {
	if id, isRelease := releaseArgument(b, name); isRelease {
		return &backup.Place{Dir: "releases", ID: id}, nil
	}
	place, err := findPath(b, name, false)
	if first, _, _ := strings.Cut(name, "/"); errors.Is(err, fs.ErrNotExist) && first != "" && !startsPath(first) {
		return nil, fmt.Errorf("%w; releases are given as PROJECT/NAME", err)
	}
	if err != nil {
		return nil, err
	}
	if place.Node == nil && place.ID.Name == "" {
		return nil, usageErrorf("%s is no release and no store path", name)
	}
	return place, nil
}

// findPath is Backup.Find for all that the mount shows, jobs as well, and for
// paths in a mount.
func findPath(b *backup.Backup, name string, follow bool) (*backup.Place, error) {
	inside, err := insideMount(b, name)
	if err == nil {
		inside, err = throughJob(b, inside)
	}
	if err != nil {
		return nil, err
	}
	return b.Find(inside, follow)
}

// releaseArgument reports whether an argument is PROJECT/NAME, not a path:
// because there is such a release, or because it cannot be a path.
func releaseArgument(b *backup.Backup, name string) (backup.ReleaseID, bool) {
	id, err := backup.ParseReleaseID(strings.TrimSuffix(name, "/"))
	if err != nil {
		return id, false
	}
	if _, err := b.ReleaseTime(id); err == nil {
		return id, true
	}
	if _, inMount := mountedAs(name); inMount {
		return id, false
	}
	return id, !startsPath(id.Project)
}

// startsPath reports whether a name is the first one of a path in the mount, or
// a store path or the hash part of one.
func startsPath(name string) bool {
	_, err := storepath.Parse(name)
	return err == nil || storepath.ValidHash(name) || slices.Contains([]string{"releases", "store", jobsDir}, name)
}

// wholePaths returns the store paths that an argument names without naming
// something in them: one, or all outputs of a job. Their archives, which may be
// damaged, are not opened. There are none if it names something else, or what
// the backup has not.
func wholePaths(b *backup.Backup, name string) []storepath.Path {
	inside, err := insideMount(b, strings.TrimRight(name, "/"))
	if err != nil {
		return nil
	}
	if parts := strings.Split(inside, "/"); len(parts) == 4 && parts[0] == jobsDir {
		outputs, err := jobOutputs(b, parts[1], parts[2], parts[3])
		if err != nil {
			return nil
		}
		return slices.Compact(slices.Sorted(maps.Values(outputs)))
	}
	if inside, err = throughJob(b, inside); err != nil {
		return nil
	}
	dir, base := path.Split(inside)
	if dir != "" && dir != "store/" && dir != b.Cache.StoreDir()+"/" {
		return nil
	}
	hash := base
	if p, err := storepath.Parse(base); err == nil {
		hash = p.Hash()
	}
	info, err := b.Cache.NarInfo(hash)
	if err != nil || hash != base && string(info.StorePath) != base {
		return nil
	}
	return []storepath.Path{info.StorePath}
}

// insideMount returns what a path in a mount is called in the backup, and
// PROJECT/NAME/... in full; what is no such path stays as it is.
func insideMount(b *backup.Backup, name string) (string, error) {
	if rel, err := filepath.Rel(b.Cache.StoreDir(), name); err == nil && filepath.IsLocal(rel) {
		return name, nil
	}
	first, _, _ := strings.Cut(name, "/")
	if name == "" || name == "." || startsPath(first) {
		return name, nil
	}
	if belowRelease(b, name) {
		return "releases/" + name, nil
	}
	inside, ok := mountedAs(name)
	if !ok {
		return name, nil
	}
	if first, _, _ := strings.Cut(inside, "/"); inside != "." && !startsPath(first) {
		return "", fmt.Errorf("%s is not among the store paths of the mount: give a path in releases, jobs or store", name)
	}
	return inside, nil
}

// belowRelease reports whether a path begins with PROJECT/NAME of a release, and
// goes on.
func belowRelease(b *backup.Backup, name string) bool {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 3 || parts[2] == "" {
		return false
	}
	id, err := backup.ParseReleaseID(parts[0] + "/" + parts[1])
	if err == nil {
		_, err = b.ReleaseTime(id)
	}
	return err == nil
}

// mountedAs returns where a path is in the mount of a backup, if it is in one.
func mountedAs(name string) (string, bool) {
	at, err := filepath.Abs(name)
	if err != nil {
		return "", false
	}
	if _, err := os.Lstat(at); err != nil {
		return "", false
	}
	for dir := at; ; dir = filepath.Dir(dir) {
		if st, err := os.Lstat(filepath.Join(dir, ".narvault", "status.json")); err == nil && st.Mode().IsRegular() {
			inside, err := filepath.Rel(dir, at)
			return filepath.ToSlash(inside), err == nil
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}

// throughJob follows the link that jobs/PROJECT/NAME/JOB.SYSTEM/OUTPUT is in the
// mount; other paths stay as they are.
func throughJob(b *backup.Backup, name string) (string, error) {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	parts := strings.SplitN(strings.TrimRight(name, "/"), "/", 6)
	if parts[0] != jobsDir {
		return name, nil
	}
	if len(parts) < 5 {
		return "", usageErrorf("%s is a list; \"narvault ls\" shows what is in it", name)
	}
	outputs, err := jobOutputs(b, parts[1], parts[2], parts[3])
	if err != nil {
		return "", err
	}
	p, ok := outputs[parts[4]]
	if !ok {
		return "", backup.NotFoundf("job %s of release %s/%s has no output %q, but %s",
			parts[3], parts[1], parts[2], parts[4], strings.Join(slices.Sorted(maps.Keys(outputs)), ", "))
	}
	return path.Join(append([]string{string(p)}, parts[5:]...)...), nil
}

// jobOutputs returns the outputs of a job, by name.
func jobOutputs(b *backup.Backup, project, name, job string) (map[string]storepath.Path, error) {
	id, err := backup.ParseReleaseID(project + "/" + name)
	if err != nil {
		return nil, err
	}
	jobs, err := jobNames(b, id)
	if err != nil {
		return nil, err
	}
	outputs, ok := jobs[job]
	if !ok {
		return nil, backup.NotFoundf("release %s has no job %q, \"narvault ls\" lists those in jobs/%s", id, job, id)
	}
	return outputs, nil
}

// jobNames returns the outputs of all jobs of a release, by the names that the
// mount gives them.
func jobNames(b *backup.Backup, id backup.ReleaseID) (map[string]map[string]storepath.Path, error) {
	roots, err := backup.NewJobs(b).Roots(id)
	if err != nil {
		return nil, err
	}
	return fusefs.JobDirs(jobsOf(roots)), nil
}

// jobsOf returns the roots of a release as the mount wants them.
func jobsOf(roots []backup.Root) []fusefs.Job {
	jobs := make([]fusefs.Job, len(roots))
	for i, r := range roots {
		jobs[i] = fusefs.Job{Name: r.Job, System: r.System, Output: r.Output, NixName: r.NixName, DrvPath: r.DrvPath, Path: r.StorePath}
	}
	return jobs
}
