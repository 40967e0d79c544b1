package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

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
	Releases []ReleaseID
	Policy   Policy
	Projects []string // the policy is for these; none: for each project
	// RemoveAll, with Projects and without a rule, forgets all their releases.
	RemoveAll bool
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
// stays until GC finds that nothing else needs it. A record goes to the trash
// as a whole, in one rename, and can be put back from there (Unforget).
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
		t := &trash.Taker{FS: fsys, Dir: b.dir, Now: time.Now()}
		for _, v := range result.Forgotten {
			if err := b.takeRelease(t, v.Release); err != nil {
				return fmt.Errorf("forget release %s: %w", v.Release, err)
			}
		}
		result.Trash = t.Batch()
		return nil
	})
	return result, err
}

// openOwn opens a backup whose releases are ours to change.
func openOwn(dir string) (*Backup, error) {
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		return nil, err
	}
	if b.foreign {
		b.Close()
		return nil, fmt.Errorf("%s is a binary cache that another program keeps: it has no releases", dir)
	}
	return b, nil
}

// judge decides about each release that the request is about.
func (req *ForgetRequest) judge(b *Backup) (*ForgetResult, error) {
	result := &ForgetResult{Version: FormatVersion, DryRun: req.DryRun, Kept: []Verdict{}, Forgotten: []Verdict{}}
	if len(req.Releases) > 0 {
		for _, id := range uniqueReleases(req.Releases) {
			v, err := b.forgettable(id)
			if err != nil {
				return nil, err
			}
			result.Forgotten = append(result.Forgotten, v)
		}
		return result, nil
	}
	projects, err := b.byProject(req.Projects)
	if err != nil {
		return nil, err
	}
	for _, project := range sortedKeys(projects) {
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

func uniqueReleases(ids []ReleaseID) (unique []ReleaseID) {
	for _, id := range ids {
		if !slices.Contains(unique, id) {
			unique = append(unique, id)
		}
	}
	return unique
}

// forgettable is about a release that is named: it need not be whole, but there.
func (b *Backup) forgettable(id ReleaseID) (Verdict, error) {
	if err := b.realRelease(id); err != nil {
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
func (b *Backup) realRelease(id ReleaseID) error {
	for _, dir := range []string{b.path(layout.ReleasesDir), b.path(layout.ReleasesDir, id.Project), b.releasePath(id)} {
		st, err := os.Lstat(dir)
		if err != nil {
			return b.releaseError(id, err)
		}
		if !st.IsDir() {
			return fmt.Errorf("release %s: %s is no directory but %s", id, dir, st.Mode().Type())
		}
	}
	for _, name := range []string{layout.ClosureFile, layout.ReleaseFile} {
		if _, err := os.Lstat(b.releasePath(id, name)); err == nil {
			return nil
		}
	}
	return b.releaseError(id, os.ErrNotExist)
}

// byProject returns the releases of the given projects, of all if there are
// none given.
func (b *Backup) byProject(projects []string) (map[string][]*Release, error) {
	ids, err := b.Releases()
	if err != nil {
		return nil, err
	}
	found := make(map[string][]*Release)
	for _, id := range ids {
		if len(projects) > 0 && !slices.Contains(projects, id.Project) {
			continue
		}
		r, err := b.Release(id)
		if err == nil && r.Created.IsZero() {
			err = errors.New("its record does not say")
		}
		if err == nil {
			err = b.realRelease(id)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: when release %s was made cannot be read; back it up again, or forget it by name: %w", ErrForgetUsage, id, err)
		}
		// The directory says which release it is, whatever release.json says.
		r.Project, r.Name = id.Project, id.Name
		found[id.Project] = append(found[id.Project], r)
	}
	for _, project := range projects {
		if found[project] == nil {
			return nil, fmt.Errorf("project %s has no release: %w", project, ErrNoRelease)
		}
	}
	return found, nil
}

// takeRelease moves the record of a release out, and its project if it was the
// last.
func (b *Backup) takeRelease(t *trash.Taker, id ReleaseID) error {
	if err := t.Take([]string{filepath.Join(layout.ReleasesDir, id.Project, id.Name)}); err != nil {
		return err
	}
	if names, err := disk.ReadNames(b.path(layout.ReleasesDir, id.Project)); err != nil || len(names) > 0 {
		return err
	}
	if err := t.FS.Remove(b.path(layout.ReleasesDir, id.Project)); err != nil {
		return err
	}
	return t.FS.SyncDir(b.path(layout.ReleasesDir))
}

// Unforget puts the record of a release back that Forget took out last, and
// with it what gc may have put into the trash since. It is an error when the
// release is there, or when not all of it is to be had any more.
func Unforget(ctx context.Context, dir string, id ReleaseID, o lock.Options) error {
	return unforget(ctx, disk.OS{}, dir, id, o)
}

func unforget(ctx context.Context, fsys disk.FS, dir string, id ReleaseID, o lock.Options) error {
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
		if err := b.unforget(fsys, id); err != nil {
			return fmt.Errorf("undo forget of release %s: %w", id, err)
		}
		return nil
	})
}

func (b *Backup) unforget(fsys disk.FS, id ReleaseID) error {
	if b.realRelease(id) == nil {
		return errors.New("the backup has a release of this name")
	}
	record, err := b.forgotten(id)
	if err != nil {
		return err
	}
	name := filepath.Join(record, layout.ClosureFile)
	text, err := layout.ReadFile(name)
	if err != nil {
		return err
	}
	paths, err := parseClosure(text, b.Cache.StoreDir())
	if err != nil {
		return &bincache.DamageError{File: name, Err: err}
	}
	if _, err := trash.BringBack(fsys, b.dir, b.Cache, paths, builders(record), func(*narinfo.NarInfo) bool { return true }); err != nil {
		return err
	}
	if err := b.checkThere(paths); err != nil {
		return fmt.Errorf("a part of it is gone for good: %w", err)
	}
	if err := disk.MkdirAll(fsys, b.dir, b.path(layout.ReleasesDir, id.Project)); err != nil {
		return err
	}
	// What a backup that was killed reserved is empty.
	if err := fsys.Remove(b.releasePath(id)); err != nil {
		return err
	}
	if err := fsys.Rename(record, b.releasePath(id)); err != nil {
		return err
	}
	return disk.SyncDirs(fsys, map[string]bool{b.path(layout.ReleasesDir, id.Project): true}, map[string]bool{filepath.Dir(record): true})
}

// builders returns the derivations that a record names, as far as it can be read.
func builders(record string) (drvs []storepath.Path) {
	r := new(Release)
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
func (b *Backup) checkThere(paths []storepath.Path) error {
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
	batches, _, err := trash.List(b.dir)
	if err != nil {
		return nil, err
	}
	found := []Verdict{}
	for _, f := range b.forgottenIn(batches) {
		found = append(found, Verdict{Release: f.id, Created: f.batch.Time, Reasons: []string{"forgotten"}})
	}
	return found, nil
}

// A forgottenRelease is a record in the trash.
type forgottenRelease struct {
	id    ReleaseID
	batch trash.Batch
	dir   string // below the backup
}

// forgottenIn returns the records that are in parts of the trash, in their order.
func (b *Backup) forgottenIn(batches []trash.Batch) (found []forgottenRelease) {
	for _, batch := range batches {
		top := filepath.Join(layout.TrashDir, batch.Name, layout.ReleasesDir)
		projects, _ := disk.ReadNames(b.path(top)) // of most there is none
		for _, project := range projects {
			names, _ := disk.ReadNames(b.path(top, project))
			for _, name := range names {
				id, err := ParseReleaseID(project + "/" + name)
				file := filepath.Join(top, project, name, layout.ClosureFile)
				if err == nil && layout.Plain(b.dir, file) == nil && disk.IsFile(b.path(file)) {
					found = append(found, forgottenRelease{id, batch, filepath.Dir(file)})
				}
			}
		}
	}
	return found
}

// forgotten returns where in the trash the newest record of a release is.
func (b *Backup) forgotten(id ReleaseID) (string, error) {
	batches, _, err := trash.List(b.dir)
	if err != nil {
		return "", err
	}
	for _, f := range b.forgottenIn(batches) {
		if f.id == id {
			return b.path(f.dir), nil
		}
	}
	return "", fmt.Errorf("it is not in the trash: %w", ErrNoRelease)
}
