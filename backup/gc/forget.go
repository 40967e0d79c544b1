package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/trash"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A ForgetRequest says which releases to forget: those that are named, or those
// that the policy does not keep.
type ForgetRequest struct {
	Releases []backup.ReleaseID
	Policy   Policy
	Projects []string // the policy is for these; none: for each project
	// RemoveAll, with Projects and without a rule, forgets all their releases.
	RemoveAll bool
	Now       bool // for good: nothing goes to the trash, which a full disk has no room for
	DryRun    bool
	Lock      lock.Options
}

// A ForgetResult says what Forget did, or with DryRun would do.
type ForgetResult struct {
	Version   int       `json:"version"`
	DryRun    bool      `json:"dryRun,omitempty"`
	Kept      []Verdict `json:"kept"` // of the projects that the policy is for
	Forgotten []Verdict `json:"forgotten"`
	Trash     string    `json:"trash,omitempty"` // where the records are now, below the backup
}

// ErrForgetUsage is wrapped by errors about requests that make no sense.
var ErrForgetUsage = errors.New("nothing is forgotten")

// Check refuses requests that make no sense.
func (req *ForgetRequest) Check() error {
	switch {
	case len(req.Releases) > 0 && (!req.Policy.None() || len(req.Projects) > 0 || req.RemoveAll):
		return fmt.Errorf("%w: name releases or say which to keep, not both", ErrForgetUsage)
	case len(req.Releases) > 0:
		return nil
	case req.RemoveAll && (!req.Policy.None() || len(req.Projects) == 0):
		return fmt.Errorf("%w: to forget all releases of a project is for --project alone, without a rule what to keep", ErrForgetUsage)
	case req.Policy.None() && !req.RemoveAll:
		return fmt.Errorf("%w: name the releases, or say which to keep (--keep-last 3, ...)", ErrForgetUsage)
	}
	return nil
}

// Forget takes the records of releases out of a backup. What they consist of
// stays until Run finds that nothing else needs it. A record goes to the trash
// as a whole, in one rename, and can be put back from there (Unforget), unless
// the request says Now.
//
// Nothing is forgotten unless everything can be: a release that is not there,
// or one whose age the policy wants and cannot be read, is an error before.
func Forget(ctx context.Context, dir string, req ForgetRequest) (*ForgetResult, error) {
	return forget(ctx, disk.OS{}, dir, req)
}

func forget(ctx context.Context, fsys disk.FS, dir string, req ForgetRequest) (*ForgetResult, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	b, err := openOwn(dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if req.DryRun {
		return req.judge(b)
	}
	l, err := lock.Take(ctx, dir, lock.Writing, req.Lock)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var result *ForgetResult
	err = l.Exclusively(ctx, func() error {
		if result, err = req.judge(b); err != nil {
			return err
		}
		t := &trash.Taker{FS: fsys, Dir: b.Dir(), Now: time.Now(), Purge: req.Now}
		for _, v := range result.Forgotten {
			if err := takeRelease(b, t, v.Release); err != nil {
				return fmt.Errorf("forget release %s: %w", v.Release, err)
			}
		}
		result.Trash = t.Batch()
		return nil
	})
	return result, err
}

// openOwn opens a backup whose releases are ours to change.
func openOwn(dir string) (*backup.Backup, error) {
	b, err := backup.Open(dir, bincache.Options{})
	if err != nil {
		return nil, err
	}
	if b.Foreign() {
		b.Close()
		return nil, fmt.Errorf("%s is a binary cache that another program keeps: it has no releases", dir)
	}
	return b, nil
}

// judge decides about each release that the request is about.
func (req *ForgetRequest) judge(b *backup.Backup) (*ForgetResult, error) {
	result := &ForgetResult{Version: backup.FormatVersion, DryRun: req.DryRun, Kept: []Verdict{}, Forgotten: []Verdict{}}
	if len(req.Releases) > 0 {
		for _, id := range uniqueReleases(req.Releases) {
			v, err := forgettable(b, id)
			if err != nil {
				return nil, err
			}
			result.Forgotten = append(result.Forgotten, v)
		}
		return result, nil
	}
	projects, err := byProject(b, req.Projects)
	if err != nil {
		return nil, err
	}
	for _, project := range slices.Sorted(maps.Keys(projects)) {
		for _, v := range req.Policy.Apply(projects[project]) {
			if len(v.Reasons) > 0 {
				result.Kept = append(result.Kept, v)
			} else {
				result.Forgotten = append(result.Forgotten, v)
			}
		}
	}
	return result, nil
}

func uniqueReleases(ids []backup.ReleaseID) (unique []backup.ReleaseID) {
	for _, id := range ids {
		if !slices.Contains(unique, id) {
			unique = append(unique, id)
		}
	}
	return unique
}

// forgettable is about a release that is named: it need not be whole, but there.
func forgettable(b *backup.Backup, id backup.ReleaseID) (Verdict, error) {
	if err := realRelease(b, id); err != nil {
		return Verdict{}, err
	}
	v := Verdict{Release: id, Reasons: []string{}}
	if r, err := b.Release(id); err == nil {
		v.Created = r.Created
	}
	return v, nil
}

// realRelease is an error unless the record of a release is there, in
// directories of the backup: a symlink could have us move something else.
func realRelease(b *backup.Backup, id backup.ReleaseID) error {
	for _, dir := range []string{b.Path(layout.ReleasesDir), b.Path(layout.ReleasesDir, id.Project), b.Path(layout.Release(id.Project, id.Name))} {
		st, err := os.Lstat(dir)
		if err != nil {
			return b.ReleaseError(id, err)
		}
		if !st.IsDir() {
			return fmt.Errorf("release %s: %s is no directory but %s", id, dir, st.Mode().Type())
		}
	}
	for _, name := range []string{layout.ClosureFile, layout.ReleaseFile} {
		if _, err := os.Lstat(b.Path(layout.Release(id.Project, id.Name), name)); err == nil {
			return nil
		}
	}
	return b.ReleaseError(id, os.ErrNotExist)
}

// maxClockError is by how much the clocks of those who back up may differ. What
// is dated later is from a clock that was wrong, and all other releases would be
// old beside it.
const maxClockError = 24 * time.Hour

// byProject returns the releases of the given projects, of all if there are
// none given.
func byProject(b *backup.Backup, projects []string) (map[string][]*backup.Release, error) {
	ids, err := b.Releases()
	if err != nil {
		return nil, err
	}
	found := make(map[string][]*backup.Release)
	for _, id := range ids {
		if len(projects) > 0 && !slices.Contains(projects, id.Project) {
			continue
		}
		r, err := b.Release(id)
		if err == nil && r.Created.IsZero() {
			err = errors.New("its record does not say")
		}
		if err == nil && time.Until(r.Created) > maxClockError {
			err = fmt.Errorf("%s is in the future: was the clock wrong, or is it now?", r.Created.Format(time.DateTime))
		}
		if err == nil {
			err = realRelease(b, id)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: when release %s was made cannot be told; back it up again, or forget it by name: %w", ErrForgetUsage, id, err)
		}
		// The directory says which release it is, whatever release.json says.
		r.Project, r.Name = id.Project, id.Name
		found[id.Project] = append(found[id.Project], r)
	}
	for _, project := range projects {
		if found[project] == nil {
			return nil, fmt.Errorf("project %s has no release: %w", project, backup.ErrNoRelease)
		}
	}
	return found, nil
}

// takeRelease moves the record of a release out, and its project if it was the
// last.
func takeRelease(b *backup.Backup, t *trash.Taker, id backup.ReleaseID) error {
	name := layout.Release(id.Project, id.Name)
	take := func() error { return t.Take([]string{name}) }
	if t.Purge {
		take = func() error { return t.Drop(name) }
	}
	if err := take(); err != nil {
		return err
	}
	if names, err := disk.ReadNames(b.Path(layout.ReleasesDir, id.Project)); err != nil || len(names) > 0 {
		return err
	}
	if err := t.FS.Remove(b.Path(layout.ReleasesDir, id.Project)); err != nil {
		return err
	}
	return t.FS.SyncDir(b.Path(layout.ReleasesDir))
}

// Unforget puts the record of a release back that Forget took out last, and
// with it what gc may have put into the trash since. It is an error when the
// release is there, or when not all of it is to be had any more.
func Unforget(ctx context.Context, dir string, id backup.ReleaseID, o lock.Options) error {
	return unforget(ctx, disk.OS{}, dir, id, o)
}

func unforget(ctx context.Context, fsys disk.FS, dir string, id backup.ReleaseID, o lock.Options) error {
	b, err := openOwn(dir)
	if err != nil {
		return err
	}
	defer b.Close()
	l, err := lock.Take(ctx, dir, lock.Writing, o)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Exclusively(ctx, func() error {
		if err := bringBack(fsys, b, id); err != nil {
			return fmt.Errorf("undo forget of release %s: %w", id, err)
		}
		return nil
	})
}

// bringBack puts the record of a release back, and what it needs of the trash.
func bringBack(fsys disk.FS, b *backup.Backup, id backup.ReleaseID) error {
	if realRelease(b, id) == nil {
		return errors.New("the backup has a release of this name")
	}
	record, err := forgotten(b, id)
	if err != nil {
		return err
	}
	paths, err := b.ReadClosure(filepath.Join(record, layout.ClosureFile))
	if err != nil {
		return err
	}
	if _, err := trash.BringBack(fsys, b.Dir(), b.Cache, paths, builders(record), func(*narinfo.NarInfo) bool { return true }); err != nil {
		return err
	}
	if err := checkThere(b, paths); err != nil {
		return fmt.Errorf("a part of it is gone for good: %w", err)
	}
	if err := disk.MkdirAll(fsys, b.Dir(), b.Path(layout.ReleasesDir, id.Project)); err != nil {
		return err
	}
	// What a backup that was killed reserved is empty.
	if err := fsys.Remove(b.Path(layout.Release(id.Project, id.Name))); err != nil {
		return err
	}
	if err := fsys.Rename(record, b.Path(layout.Release(id.Project, id.Name))); err != nil {
		return err
	}
	return disk.SyncDirs(fsys, map[string]bool{b.Path(layout.ReleasesDir, id.Project): true}, map[string]bool{filepath.Dir(record): true})
}

// builders returns the derivations that a record names, as far as it can be read.
func builders(record string) (drvs []storepath.Path) {
	r := new(backup.Release)
	text, err := layout.ReadFile(filepath.Join(record, layout.ReleaseFile))
	if err != nil || json.Unmarshal(text, r) != nil {
		return nil
	}
	for _, root := range r.Roots {
		drvs = append(drvs, root.DrvPath)
	}
	return drvs
}

// checkThere is an error unless the cache has store paths and all that they
// refer to, with their NAR files.
func checkThere(b *backup.Backup, paths []storepath.Path) error {
	closure, err := b.PathClosure(paths)
	if err != nil {
		return err
	}
	for _, p := range closure {
		info, err := b.Cache.Lookup(p)
		if err == nil {
			err = b.Cache.StatNAR(info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Forgotten returns the releases whose records are in the trash, the ones that
// were forgotten last first. What they consist of may be gone already.
func Forgotten(dir string) ([]Verdict, error) {
	b, err := openOwn(dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	batches, _, err := trash.List(b.Dir())
	if err != nil {
		return nil, err
	}
	found := []Verdict{}
	for _, f := range forgottenIn(b, batches) {
		found = append(found, Verdict{Release: f.id, Created: f.batch.Time, Reasons: []string{"forgotten"}})
	}
	return found, nil
}

// A forgottenRelease is a record in the trash.
type forgottenRelease struct {
	id    backup.ReleaseID
	batch trash.Batch
	dir   string // below the backup
}

// forgottenIn returns the records that are in parts of the trash, in their order.
func forgottenIn(b *backup.Backup, batches []trash.Batch) (found []forgottenRelease) {
	for _, batch := range batches {
		top := filepath.Join(layout.TrashDir, batch.Name, layout.ReleasesDir)
		projects, _ := disk.ReadNames(b.Path(top)) // of most there is none
		for _, project := range projects {
			names, _ := disk.ReadNames(b.Path(top, project))
			for _, name := range names {
				id, err := backup.ParseReleaseID(project + "/" + name)
				file := filepath.Join(top, project, name, layout.ClosureFile)
				if err == nil && layout.Plain(b.Dir(), file) == nil && disk.IsFile(b.Path(file)) {
					found = append(found, forgottenRelease{id, batch, filepath.Dir(file)})
				}
			}
		}
	}
	return found
}

// forgotten returns where in the trash the newest record of a release is.
func forgotten(b *backup.Backup, id backup.ReleaseID) (string, error) {
	batches, _, err := trash.List(b.Dir())
	if err != nil {
		return "", err
	}
	for _, f := range forgottenIn(b, batches) {
		if f.id == id {
			return b.Path(f.dir), nil
		}
	}
	return "", fmt.Errorf("it is not in the trash: %w", backup.ErrNoRelease)
}
