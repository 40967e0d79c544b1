package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/backup/trash"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A runner is one run of Run.
type runner struct {
	fsys  disk.FS
	dir   string
	store Store
	req   *Request
	held  *lock.Lock // nil before it is taken

	selected *selection
	infos    []nixstore.PathInfo
	closure  []storepath.Path // of the release: selected, and what conflicting archived paths need; sorted
	narSize  int64            // of closure
	result   Result

	recovered int // store paths that were in the trash
}

func (r *runner) lock(ctx context.Context) (err error) {
	if r.held == nil {
		r.held, err = lock.Take(ctx, r.dir, lock.Writing, r.req.Lock)
	}
	return err
}

func (r *runner) unlock() {
	if r.held != nil {
		r.held.Close()
	}
}

// selectPaths asks the store what belongs to the release.
func (r *runner) selectPaths(ctx context.Context) (err error) {
	if r.selected, err = selectPaths(ctx, r.store, r.req); err != nil {
		return err
	}
	r.infos, err = r.store.Infos(ctx, r.selected.closure)
	return err
}

// dryRun plans without writing.
func (r *runner) dryRun(ctx context.Context) error {
	b, err := Open(r.dir, r.req.Cache)
	switch {
	case err == nil:
		defer b.Close()
	case errors.Is(err, ErrNoBackup) || errors.Is(err, fs.ErrNotExist):
		b = nil
	default:
		return err
	}
	_, err = r.plan(ctx, b, make(map[narinfo.Hash]narFile))
	return err
}

// write does the work.
func (r *runner) write(ctx context.Context) error {
	if err := r.fsys.Mkdir(r.dir); err != nil {
		return fmt.Errorf("create backup: %w", err)
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	b, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	journal := newJournal(r.fsys, r.dir)
	defer journal.close()
	finished, err := journal.load()
	if err != nil {
		return err
	}
	p, err := r.plan(ctx, b, finished)
	if err != nil {
		return err
	}
	if err := r.archive(ctx, b, journal, p); err != nil {
		return err
	}
	if err := r.archiveLogs(ctx, b); err != nil {
		return err
	}
	if err := r.archiveRealisations(ctx, b); err != nil {
		return err
	}
	if err := r.sign(ctx, b, p.upstream); err != nil {
		return err
	}
	return r.held.Exclusively(ctx, func() error {
		defer r.held.Leave() // so that the last one sees that he is
		if err := r.record(b); err != nil {
			return err
		}
		if !r.held.Alone() {
			return journal.close() // there are lines of others in it
		}
		// The release is recorded: it is too late to be interrupted.
		return journal.finish(context.WithoutCancel(ctx), b.Cache)
	})
}

// sign signs what the release needs and was archived before, and adds the
// signatures that others have made since.
func (r *runner) sign(ctx context.Context, b *Backup, upstream map[storepath.Path]*narinfo.NarInfo) error {
	paths := r.closure
	if len(r.req.SignKeys) == 0 {
		paths = sortedKeys(upstream)
	}
	if len(paths) == 0 {
		return nil
	}
	s := &signer{fsys: r.fsys, backup: b, lock: r.held, keys: r.req.SignKeys, upstream: upstream}
	damage, err := s.sign(ctx, paths)
	r.result.Signed = s.signed
	if err = errors.Join(damage, err); err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	return nil
}

// begin makes the backup, or completes it, and removes what a crash left.
func (r *runner) begin(ctx context.Context) (b *Backup, err error) {
	err = r.held.Exclusively(ctx, func() error {
		if b, err = create(r.fsys, r.dir, r.store.Dir(), r.newConfig(), r.req.Cache); err != nil {
			return err
		}
		if r.held.Alone() {
			if err := sweep(r.fsys, b, r.req.Release); err != nil {
				return err
			}
		}
		return r.bringBack(b)
	})
	if err != nil && b != nil {
		b.Close()
	}
	return b, err
}

// trash.BringBack takes what gc put into the trash, and is needed again, out of it.
func (r *runner) bringBack(b *Backup) (err error) {
	want := make(map[storepath.Path]narinfo.Hash, len(r.infos))
	for _, info := range r.infos {
		want[info.Path] = info.NarHash
	}
	r.recovered, err = trash.BringBack(r.fsys, b.dir, b.Cache, r.selected.closure, nil, func(info *narinfo.NarInfo) bool {
		return info.NarHash == want[info.StorePath]
	})
	return err
}

func (r *runner) newConfig() Config {
	var c Config
	c.Compression, c.Level = r.req.pack(c)
	return c
}

// plan compares store and backup, and fills the result; b is nil when there is
// no backup yet.
func (r *runner) plan(ctx context.Context, b *Backup, finished map[narinfo.Hash]narFile) (*plan, error) {
	var cache *bincache.Cache
	if b != nil {
		cache = b.Cache
	}
	p, err := makePlan(ctx, cache, finished, r.infos)
	if err != nil {
		return nil, err
	}
	r.result = Result{
		Version: FormatVersion, Release: r.req.Release, Method: r.req.Method, DryRun: r.req.DryRun,
		Estimate: p.estimate(r.dir), Conflicts: p.conflicts, Healed: p.healed, Recovered: r.recovered,
	}
	for _, m := range r.selected.missing {
		r.result.Missing = append(r.result.Missing, Output{DrvPath: m.Drv, Output: m.Output, Path: m.Path})
	}
	r.closure, r.narSize = r.selected.closure, p.narSize
	if b != nil {
		if err := r.complete(b); err != nil {
			return nil, err
		}
		if r.result.Changes, err = b.changes(r.req.Release, r.closure); err != nil {
			return nil, err
		}
	}
	if r.req.Progress.Planned != nil {
		r.req.Progress.Planned(r.result.Estimate)
	}
	return p, nil
}

// complete adds to the closure what conflicting archived paths need: what is
// archived stays, and may have other references than what the store has now.
func (r *runner) complete(b *Backup) error {
	var paths []storepath.Path
	for _, c := range r.result.Conflicts {
		paths = append(paths, c.Path)
	}
	needed, err := b.PathClosure(paths)
	if err != nil {
		return err
	}
	for _, extra := range subtract(needed, r.closure) {
		info, err := b.Cache.Lookup(extra)
		if err != nil {
			return err
		}
		r.narSize += info.NarSize
	}
	r.closure = slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.closure, needed))))
	return nil
}

// none reports whether the closure is what it was; a new release (nil) is not.
func (c *Changes) none() bool { return c != nil && len(c.Added)+len(c.Removed) == 0 }

// changes returns nil when the release is new, or when its record is damaged
// and so about to be replaced.
func (b *Backup) changes(id ReleaseID, closure []storepath.Path) (*Changes, error) {
	before, err := b.Closure(id)
	var damage *bincache.DamageError
	if errors.Is(err, ErrNoRelease) || errors.As(err, &damage) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Changes{Added: subtract(closure, before), Removed: subtract(before, closure)}, nil
}

// subtract returns what is in a and not in b; both are sorted.
func subtract(a, b []storepath.Path) []storepath.Path {
	rest := []storepath.Path{}
	for _, p := range a {
		if _, found := slices.BinarySearch(b, p); !found {
			rest = append(rest, p)
		}
	}
	return rest
}

// archive carries out the plan. After it, all that the release needs is
// durable in the cache.
func (r *runner) archive(ctx context.Context, b *Backup, journal *journal, p *plan) error {
	if err := r.held.Exclusively(ctx, func() error { return r.reserve(b) }); err != nil {
		return err
	}
	a := &archiver{
		fsys: r.fsys, backup: b, lock: r.held, store: r.store, journal: journal, progress: &r.req.Progress, keys: r.req.SignKeys,
		repack: r.req.Compression != "" || r.req.Level != 0,
	}
	err := r.choosePacker(a)
	if err != nil {
		return err
	}
	err = a.run(ctx, p.jobs)
	r.result.FileSize = a.written
	for _, j := range p.jobs {
		r.result.Warnings = append(r.result.Warnings, j.warnings...)
		if j.healed != "" {
			r.result.Healed = append(r.result.Healed, j.healed)
		}
	}
	if err != nil {
		r.held.Exclusively(context.WithoutCancel(ctx), func() error { r.unreserve(b); return nil })
		return err
	}
	if len(a.conflicts) > 0 {
		r.result.Conflicts = append(r.result.Conflicts, a.conflicts...)
		if err := r.complete(b); err != nil {
			return err
		}
	}
	// What an earlier run published and was killed before it synced is part of
	// this release as well.
	for _, dir := range []string{b.cachePath(bincache.NARDir), b.cachePath()} {
		if err := r.fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// choosePacker decides how NARs are compressed.
func (r *runner) choosePacker(a *archiver) (err error) {
	if a.packer, err = newPacker(r.req.pack(a.backup.config)); err == nil {
		r.result.Tool = a.packer.tool
	}
	return err
}

// reserve makes the directory of the release and tries to write there, before
// hours of work end in a place that cannot be written.
func (r *runner) reserve(b *Backup) error {
	dir := b.releasePath(r.req.Release)
	err := disk.MkdirAll(r.fsys, b.dir, dir)
	if err == nil {
		var f disk.File
		if f, err = r.fsys.CreateTemp(dir); err == nil {
			err = errors.Join(f.Close(), r.fsys.Remove(f.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("record release %s: %w", r.req.Release, err)
	}
	return nil
}

// unreserve removes the directories of a release that never came to be; those
// that are not empty stay.
func (r *runner) unreserve(b *Backup) {
	r.fsys.Remove(b.releasePath(r.req.Release))
	r.fsys.Remove(b.Path(layout.ReleasesDir, r.req.Release.Project))
}

// sweep removes the temporary files that a crash left. Nobody else writes, so
// they are nobody's.
func sweep(fsys disk.FS, b *Backup, id ReleaseID) error {
	for _, dir := range []string{
		b.dir, b.Cache.Dir(), b.cachePath(bincache.NARDir), b.cachePath(bincache.LogDir),
		b.releasePath(id), b.releasePath(id, layout.PreviousDir),
	} {
		names, err := disk.ReadNames(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !disk.IsNotDir(err) {
			return err
		}
		for _, name := range names {
			if !disk.IsTemp(name) {
				continue
			}
			err := fsys.Remove(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, syscall.ENOTEMPTY) { // a directory is for gc
				return err
			}
		}
	}
	return nil
}
