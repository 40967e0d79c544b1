// Package gc decides what a backup keeps. Forget takes out the records of
// releases, by name or by a Policy; Run takes out what no release needs any more.
// Both put things into the trash (backup/trash), from where Unforget takes them
// back, and Run empties it after a time.
package gc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/narvault/narvault/narread/storepath"
)

// DefaultGrace is how long the trash keeps what gc and forget took out.
const DefaultGrace = 7 * 24 * time.Hour

// Options say what Run does. The zero value works.
type Options struct {
	DryRun       bool
	Grace        time.Duration // how long the trash keeps things; 0: DefaultGrace
	Now          bool          // no grace: delete at once, and empty the trash
	NoReleases   bool          // collect everything when there is no release
	KeepPrevious bool          // keep what the record before of each release names
	Lock         lock.Options

	now time.Time // for tests
}

// A Result says what Run did, or with DryRun would do.
type Result struct {
	Version  int            `json:"version"`
	DryRun   bool           `json:"dryRun,omitempty"`
	Releases []*KeptRelease `json:"releases"`       // that say what stays
	Kept     []*KeptPath    `json:"kept"`           // the store paths that stay, sorted
	NarFiles int            `json:"narFiles"`       // their NAR files
	FileSize int64          `json:"fileSize"`       // bytes of these
	Goes     []Item         `json:"goes"`           // what was taken out
	Stays    []Item         `json:"stays"`          // what nothing needs, and is left alone
	Trash    string         `json:"trash"`          // where what goes is now, below the backup; "" with Now
	Until    time.Time      `json:"until,omitzero"` // when the trash may let go of it
	Freed    int64          `json:"freed"`          // bytes deleted for good, from the trash among it
	InTrash  int64          `json:"inTrash"`        // bytes in the trash now
	Warnings []string       `json:"warnings,omitempty"`
}

// Run takes out of a backup what no release needs, and deletes what has been in
// the trash for longer than the grace time.
//
// Needed is what releases name, and all that this refers to by the References
// of its narinfos; a NAR file as long as any narinfo that is needed names it.
// When Run cannot be sure what that is (there is no release, or one that is not
// whole or cannot be read), the error wraps ErrRefused, and nothing was changed.
// Nothing outside of the backup directory is ever touched, through whatever URL
// or symlink.
//
// A crash leaves a backup in which all releases are whole; Run goes on from
// there. While it marks and takes out it excludes backups (*lock.HeldError when
// there is one), but no readers.
func Run(ctx context.Context, dir string, o Options) (*Result, error) {
	result, err := run(ctx, disk.OS{}, dir, o)
	if err != nil || o.DryRun {
		return result, err
	}
	if warning := backup.PublishIndex(ctx, dir, bincache.Options{}); warning != "" {
		result.Warnings = append(result.Warnings, warning)
	}
	return result, nil
}

func run(ctx context.Context, fsys disk.FS, dir string, o Options) (*Result, error) {
	switch {
	case o.Grace < 0:
		return nil, fmt.Errorf("%w: a grace time of %v is none", ErrRefused, o.Grace)
	case o.Grace == 0:
		o.Grace = DefaultGrace
	}
	if o.now.IsZero() {
		o.now = time.Now()
	}
	b, err := openOwn(dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if st, err := os.Lstat(b.Path(layout.CacheDir)); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("%w: %s is no directory of this backup (%v)", ErrRefused, b.Path(layout.CacheDir), err)
	}
	c := &collector{fsys: fsys, b: b, o: o}
	if o.DryRun {
		err := c.look(ctx)
		return &c.result, err
	}
	err = c.takeOut(ctx)
	if err != nil && !trash.NoRoom(err) {
		return nil, err
	}
	freed, purgeErr := trash.Purge(ctx, fsys, b.Dir())
	if err != nil && freed > 0 {
		err = fmt.Errorf("%w. But %d bytes that had been in it for long enough were freed: try again", err, freed)
	}
	c.result.Freed += freed
	if err = errors.Join(err, purgeErr); err != nil {
		return nil, err
	}
	return &c.result, c.weighTrash()
}

// A collector is one call of Run.
type collector struct {
	fsys   disk.FS
	b      *backup.Backup
	o      Options
	m      *marks
	result Result
}

// limit is the time up to which the trash is emptied.
func (c *collector) limit() time.Time {
	if c.o.Now {
		return c.o.now.AddDate(1000, 0, 0)
	}
	return c.o.now.Add(-c.o.Grace)
}

// look finds what goes and what stays.
func (c *collector) look(ctx context.Context) error {
	m, err := mark(ctx, c.b, c.o.KeepPrevious, c.o.NoReleases)
	if err != nil {
		return err
	}
	g, err := m.collect(c.limit())
	if err != nil {
		return err
	}
	c.m = m
	c.result = Result{
		Version: backup.FormatVersion, DryRun: c.o.DryRun, Releases: m.releases, Kept: []*KeptPath{},
		NarFiles: len(m.urls), Goes: g.goes, Stays: g.stays, Warnings: m.warnings,
	}
	for _, p := range slices.Sorted(maps.Keys(m.needed)) {
		c.result.Kept = append(c.result.Kept, m.needed[p])
	}
	for _, u := range m.urls {
		c.result.FileSize += u.size
	}
	if !c.o.Now {
		c.result.Until = c.o.now.Add(c.o.Grace).UTC().Truncate(time.Second)
	}
	if !c.o.DryRun {
		return nil
	}
	if c.o.Now {
		c.result.Freed = c.result.goneSize()
	} else {
		c.result.InTrash = c.result.goneSize()
	}
	return c.weighTrash()
}

// goneSize returns the bytes of what goes.
func (r *Result) goneSize() (size int64) {
	for _, item := range r.Goes {
		size += item.Size
	}
	return size
}

// takeOut does what has to be done while nobody else writes.
func (c *collector) takeOut(ctx context.Context) error {
	l, err := lock.Take(ctx, c.b.Dir(), lock.Excluding, c.o.Lock)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Alone() // removes what dead writers left of their locks
	if err := c.look(ctx); err != nil {
		return err
	}
	t := &trash.Taker{FS: c.fsys, Dir: c.b.Dir(), Now: c.o.now, Purge: c.o.Now}
	if err := c.expire(t); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	for _, names := range c.steps() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.Take(names); err != nil {
			return fmt.Errorf("collect garbage: %w", err)
		}
	}
	c.result.Trash = t.Batch()
	if c.o.Now {
		c.result.Freed = c.result.goneSize()
	}
	return nil
}

// expire gives up what has been in the trash for long enough, before the trash
// gets more: on a full disk there is room only by this.
func (c *collector) expire(t *trash.Taker) error {
	again, err := c.stillNeeded()
	if err != nil {
		return err
	}
	var holding []string
	for _, v := range again {
		holding = append(holding, v.batch.Name)
	}
	if err := trash.Expire(c.fsys, c.b.Dir(), c.limit(), holding...); err != nil || again == nil {
		return err
	}
	for _, v := range again {
		if err := c.renew(t, v); err != nil {
			return err
		}
	}
	return trash.Expire(c.fsys, c.b.Dir(), c.limit())
}

// stillNeeded returns the records of forgotten releases that name what goes to
// the trash only now: they are kept for as long as that, else it could not be
// taken back.
func (c *collector) stillNeeded() ([]forgottenRelease, error) {
	if c.o.Now {
		return nil, nil
	}
	batches, _, err := trash.List(c.b.Dir())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(forgottenIn(c.b, batches), func(v forgottenRelease) bool { return !c.goesNow(v.dir) }), nil
}

// renew moves the record of a forgotten release to where the trash has what goes
// there now.
func (c *collector) renew(t *trash.Taker, v forgottenRelease) error {
	from := c.b.Path(v.dir)
	to, err := t.Place(layout.Release(v.id.Project, v.id.Name))
	if err == nil {
		err = c.fsys.Rename(from, to)
	}
	if err == nil {
		err = disk.SyncDirs(c.fsys, map[string]bool{filepath.Dir(to): true}, map[string]bool{filepath.Dir(from): true})
	}
	if errors.Is(err, fs.ErrExist) { // one that was forgotten twice is there once
		return nil
	}
	return err
}

// goesNow reports whether a record names a store path that goes in this run.
func (c *collector) goesNow(dir string) bool {
	paths, err := c.b.ReadClosure(c.b.Path(dir, layout.ClosureFile))
	return err == nil && slices.ContainsFunc(paths, func(p storepath.Path) bool {
		return c.m.infos[p] != nil && c.m.needed[p] == nil
	})
}

// steps returns the names of what goes, in steps each of which has to be
// durable before the next: by kind, and the narinfos level by level, those that
// refer to others first.
func (c *collector) steps() (steps [][]string) {
	for _, kind := range Kinds() {
		if kind == NarInfoKind {
			steps = append(steps, c.narInfoSteps()...)
			continue
		}
		var names []string
		for _, item := range c.result.Goes {
			if item.Kind == kind {
				names = append(names, item.Name)
			}
		}
		if len(names) > 0 {
			steps = append(steps, names)
		}
	}
	return steps
}

func (c *collector) narInfoSteps() (steps [][]string) {
	var paths []storepath.Path
	for _, p := range slices.Sorted(maps.Keys(c.m.infos)) {
		if c.m.needed[p] == nil {
			paths = append(paths, p)
		}
	}
	references := func(p storepath.Path) []storepath.Path { return c.m.infos[p].References }
	order, err := storepath.SortByReferences(paths, references)
	if err != nil {
		order = paths // of which Nix knows none: references in a circle
	}
	for _, level := range storepath.Levels(order, references) {
		var names []string
		for _, i := range level {
			names = append(names, filepath.Join(layout.CacheDir, order[i].Hash()+bincache.NarInfoExt))
		}
		steps = append(steps, names)
	}
	var damaged []string
	for _, hash := range slices.Sorted(maps.Keys(c.m.damaged)) {
		damaged = append(damaged, filepath.Join(layout.CacheDir, hash+bincache.NarInfoExt))
	}
	if len(damaged) > 0 {
		steps = append(steps, damaged)
	}
	slices.Reverse(steps)
	return steps
}

// weighTrash adds up what is in the trash, and what would leave it.
func (c *collector) weighTrash() error {
	kept, purged, err := trash.List(c.b.Dir())
	if err != nil {
		return err
	}
	for _, batch := range kept {
		size, err := treeSize(c.b.Path(layout.TrashDir, batch.Name))
		if err != nil {
			return err
		}
		if c.o.DryRun && !batch.Time.After(c.limit()) {
			c.result.Freed += size
		} else {
			c.result.InTrash += size
		}
	}
	for _, name := range purged {
		size, err := treeSize(c.b.Path(layout.TrashDir, name))
		if err != nil {
			return err
		}
		c.result.Freed += size
	}
	return nil
}

// treeSize returns the bytes of the regular files in a directory. What goes
// meanwhile has none: others may be bringing it back, or deleting it.
func treeSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				size += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return size, err
}
