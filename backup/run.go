package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/zseek"
)

// A Request asks for store paths to be backed up as a release.
type Request struct {
	Release      ReleaseID
	Description  string
	Method       Method           // "" is Binary
	Roots        []storepath.Path // in the local store
	Compression  string           // "zstd", "none", or "" for what the backup was made with
	Level        int              // of zstd, 0 for what the backup was made with
	ForceRealise bool             // with Cached: build the outputs that are not valid
	DryRun       bool             // only say what would be done
	Progress     Progress
}

// defaultCompression is for new backups. Level 3 is where the encoder stands
// that is the best trade of speed for size (package zseek has the figures).
const (
	defaultCompression = "zstd"
	defaultLevel       = 3
	maxLevel           = 22
)

// A Result says what Run did, or with DryRun would do.
type Result struct {
	Version   int        `json:"version"`
	Release   ReleaseID  `json:"release"`
	Method    Method     `json:"method"`
	DryRun    bool       `json:"dryRun,omitempty"`
	Estimate             // what there was to do
	FileSize  int64      `json:"fileSize"`            // bytes of NAR files written
	Seconds   float64    `json:"seconds"`             // wall time
	Changes   *Changes   `json:"changes,omitempty"`   // against the release's last backup, nil for a new release
	Conflicts []Conflict `json:"conflicts,omitempty"` // archived with other content
	Missing   []Output   `json:"missing,omitempty"`   // with Cached: outputs that are not valid, so not archived
	Healed    []string   `json:"healed,omitempty"`    // damage in the backup that was mended by writing again
	Warnings  []string   `json:"warnings,omitempty"`
}

// Partial reports whether something that was asked for was left out.
func (r *Result) Partial() bool { return len(r.Conflicts)+len(r.Missing) > 0 }

// An Output is one output of a derivation.
type Output struct {
	DrvPath storepath.Path `json:"drvPath"`
	Output  string         `json:"output"`
	Path    storepath.Path `json:"path,omitempty"` // "" if only a build would tell
}

// Changes compares the closure of a release with that of its last backup.
type Changes struct {
	Added   []storepath.Path `json:"added"`
	Removed []storepath.Path `json:"removed"`
}

// Progress is told what happens during Run; every field may be nil. Planned
// comes first and once; the others may come from several goroutines at once.
type Progress struct {
	Planned  func(Estimate)                        // what is going to be done
	Read     func(n int)                           // n bytes of NAR were read and hashed
	Archived func(p storepath.Path, narSize int64) // a store path is in the backup
}

// Write counts NAR bytes.
func (p *Progress) Write(b []byte) (int, error) {
	if p.Read != nil {
		p.Read(len(b))
	}
	return len(b), nil
}

func (p *Progress) archived(j *job) {
	if p.Archived != nil {
		p.Archived(j.info.Path, j.info.NarSize)
	}
}

// Run backs up store paths as a release in the backup directory dir, which is
// made if it is not there. What must not be collected meanwhile is locked in
// the store until the store is closed.
//
// On error the backup is as good as before: every release is whole, and what
// was finished helps the next run. Errors that a caller may want to know:
// *nixstore.InvalidPathsError (nothing was written), *ChangedError,
// *LockedError, and those of the context.
func Run(ctx context.Context, dir string, store Store, req Request) (*Result, error) {
	return run(ctx, disk.OS{}, dir, store, req)
}

func run(ctx context.Context, fsys disk.FS, dir string, store Store, req Request) (*Result, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	start := time.Now()
	selected, err := selectPaths(ctx, store, &req)
	if err != nil {
		return nil, err
	}
	infos, err := store.Infos(ctx, selected.closure)
	if err != nil {
		return nil, err
	}
	r := &runner{fsys: fsys, dir: dir, store: store, req: &req, selected: selected, infos: infos}
	if req.DryRun {
		err = r.dryRun(ctx)
	} else {
		err = r.locked(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.result.Seconds = time.Since(start).Seconds()
	return &r.result, nil
}

// Check completes a request with defaults and refuses what makes no sense. Run
// calls it; calling it before tells wrong usage from other errors.
func (req *Request) Check() error {
	if req.Method == "" {
		req.Method = Binary
	}
	if req.Compression != "" && req.Compression != "zstd" && req.Compression != "none" {
		return fmt.Errorf("compression %q is not zstd or none", req.Compression)
	}
	if req.Level < 0 || req.Level > maxLevel {
		return fmt.Errorf("compression level %d is not 1 to %d", req.Level, maxLevel)
	}
	if req.ForceRealise && req.Method != Cached {
		return fmt.Errorf("outputs are realised for method cached only, not for %s", req.Method)
	}
	return nil
}

// A runner is one run of Run.
type runner struct {
	fsys     disk.FS
	dir      string
	store    Store
	req      *Request
	selected *selection
	infos    []nixstore.PathInfo
	result   Result
}

// dryRun plans without writing.
func (r *runner) dryRun(ctx context.Context) error {
	if err := mayCreate(r.dir); err != nil {
		return err
	}
	var cache *bincache.Cache
	b, err := Open(r.dir, bincache.Options{})
	switch {
	case err == nil:
		defer b.Close()
		cache = b.Cache
	case !errors.Is(err, ErrNoBackup) && !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		b = nil
	}
	p, err := makePlan(ctx, cache, make(map[narinfo.Hash]narFile), r.infos)
	if err != nil {
		return err
	}
	return r.summarise(b, p)
}

// locked does the work, as the only writer.
func (r *runner) locked(ctx context.Context) error {
	if err := mayCreate(r.dir); err != nil {
		return err
	}
	if err := r.fsys.Mkdir(r.dir); err != nil {
		return err
	}
	lock, err := lock(r.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	b, err := create(r.fsys, r.dir, r.store.Dir(), r.newConfig())
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
	p, err := makePlan(ctx, b.Cache, finished, r.infos)
	if err != nil {
		return err
	}
	if err := r.summarise(b, p); err != nil {
		return err
	}
	if err := r.execute(ctx, b, journal, p); err != nil {
		return err
	}
	return r.record(b, journal)
}

func (r *runner) newConfig() Config {
	c := Config{Compression: defaultCompression, Level: defaultLevel}
	if r.req.Compression != "" {
		c.Compression = r.req.Compression
	}
	if r.req.Level != 0 {
		c.Level = r.req.Level
	}
	return c
}

// summarise fills the result from the plan; b is nil when there is no backup
// yet.
func (r *runner) summarise(b *Backup, p *plan) error {
	r.result = Result{
		Version: FormatVersion, Release: r.req.Release, Method: r.req.Method, DryRun: r.req.DryRun,
		Estimate: p.estimate(r.dir), Conflicts: p.conflicts, Healed: p.healed,
	}
	for _, m := range r.selected.missing {
		r.result.Missing = append(r.result.Missing, Output{DrvPath: m.Drv, Output: m.Output, Path: m.Path})
	}
	if b != nil {
		changes, err := b.changes(r.req.Release, r.selected.closure)
		if err != nil {
			return err
		}
		r.result.Changes = changes
	}
	if r.req.Progress.Planned != nil {
		r.req.Progress.Planned(r.result.Estimate)
	}
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

// execute carries out the plan.
func (r *runner) execute(ctx context.Context, b *Backup, journal *journal, p *plan) error {
	if err := sweep(r.fsys, b, r.req.Release); err != nil {
		return err
	}
	a := &archiver{fsys: r.fsys, backup: b, store: r.store, journal: journal, progress: &r.req.Progress}
	if compression, level := r.compression(b); compression != "none" {
		a.pool = zseek.NewPool(runtime.GOMAXPROCS(0), level)
	}
	err := a.run(ctx, p.jobs)
	r.result.FileSize = a.written
	for _, j := range p.jobs {
		r.result.Warnings = append(r.result.Warnings, j.warnings...)
	}
	return err
}

// compression returns what the request says, else what the backup was made
// with.
func (r *runner) compression(b *Backup) (name string, level int) {
	name, level = b.config.Compression, b.config.Level
	if name == "" {
		name, level = defaultCompression, defaultLevel
	}
	if r.req.Compression != "" {
		name = r.req.Compression
	}
	if r.req.Level != 0 {
		level = r.req.Level
	}
	if level == 0 {
		level = defaultLevel
	}
	return name, level
}

// sweep removes the temporary files that a crash left. We hold the lock, so
// they are nobody's.
func sweep(fsys disk.FS, b *Backup, id ReleaseID) error {
	for _, dir := range []string{
		b.dir, b.Cache.Dir(), b.cachePath(narDir),
		b.releasePath(id), b.releasePath(id, previousDir),
	} {
		names, err := readNames(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, name := range names {
			if !isTemp(name) {
				continue
			}
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// record writes the release, now that all its paths are there. A record that
// would say the same again is left alone, so that previous/ keeps its worth.
func (r *runner) record(b *Backup, journal *journal) error {
	release := &Release{
		Version: FormatVersion,
		Project: r.req.Release.Project, Name: r.req.Release.Name, Description: r.req.Description,
		Method: r.req.Method, Created: time.Now().UTC().Truncate(time.Second),
		StoreDir: r.store.Dir(), Paths: len(r.selected.closure), NarSize: r.result.Total.NarSize,
		Source: Source{Kind: "store"}, Roots: r.selected.roots,
	}
	old, err := b.Release(r.req.Release)
	if err == nil {
		release.unknown = old.unknown
		if release.Description == "" {
			release.Description = old.Description
		}
	}
	if err != nil || !r.result.Changes.none() || !release.equal(old) {
		if err := writeRelease(r.fsys, b, release, r.selected.closure); err != nil {
			return err
		}
	}
	return journal.remove()
}

// equal compares all but the time.
func (r *Release) equal(other *Release) bool {
	x, y := *r, *other
	x.Created, y.Created = time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}
