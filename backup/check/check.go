package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

// Options say what is checked. The zero value checks all that can be without
// reading NAR files.
type Options struct {
	ReadData    Selection             // which NAR files are read whole
	TrustedKeys []signature.PublicKey // with them, signatures are verified
	Workers     int                   // NAR files that are read at a time; 0: GOMAXPROCS
	Cache       bincache.Options      // how they are; Warn is not used
	Progress    Progress
}

// Progress is told how far a check is; every field may be nil. They may be
// called from several goroutines at a time, Planned is called once and first.
type Progress struct {
	Planned func(narFiles int, fileSize int64) // what is going to be read of NAR files
	Read    func(n int)                        // n bytes of NAR files were read
	Checked func()                             // a NAR file is done
}

func (o *Options) applyDefaults() {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress.Planned == nil {
		o.Progress.Planned = func(int, int64) {}
	}
	if o.Progress.Read == nil {
		o.Progress.Read = func(int) {}
	}
	if o.Progress.Checked == nil {
		o.Progress.Checked = func() {}
	}
	if o.Cache.Blocks == nil {
		o.Cache.Blocks = narread.NewCache(0) // of it, only its decoders and buffers are used
	}
}

// Run checks the backup or binary cache in dir. The error says that it could
// not be done: dir is neither, its medium went away, or ctx ended. Whatever is
// wrong with what is in dir is in the Report.
func Run(ctx context.Context, dir string, o Options) (*Report, error) {
	start := time.Now()
	o.applyDefaults()
	b, damage, err := backup.OpenDamaged(dir, o.Cache)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	c := &checker{b: b, cache: b.Cache, o: &o, start: start}
	c.opened(damage)
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("check %s: %w", dir, err)
	}
	report := c.report()
	report.Seconds = time.Since(start).Seconds()
	return report, nil
}

// A checker is one call of Run.
type checker struct {
	b        *backup.Backup
	cache    *bincache.Cache
	o        *Options
	start    time.Time
	files    *files
	table    *table
	index    *index.Index // or nil
	indexDir string

	unindexed atomic.Int64 // narinfos that the index does not have
	releases  []release
	readData  *ReadData

	mu       sync.Mutex
	findings []found // guarded by mu
}

// A found is a Finding on its way: what it hurts is known by numbers.
type found struct {
	Finding
	hurts    []int32
	releases []int
}

// add takes in a finding that hurts store paths. It may be called concurrently.
func (c *checker) add(f Finding, hurts ...int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.findings = append(c.findings, found{Finding: f, hurts: slices.Clone(hurts)})
}

// run does one thing after the other. Between them it makes sure that the medium
// is still there: if not, nothing that was found means anything.
func (c *checker) run(ctx context.Context) error {
	defer c.closeIndex()
	for _, step := range []func(context.Context) error{
		c.list, c.openIndex, c.readNarInfos, c.checkNARFiles, c.checkReferences, c.readReleases,
		c.checkLinks, c.checkOrphans, c.checkIndex, c.checkDumps, c.readNARs,
	} {
		err := step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = c.cache.Present()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// report puts together what was found.
func (c *checker) report() *Report {
	r := &Report{
		Version: backup.FormatVersion, Dir: c.b.Dir(), Releases: len(c.releases),
		ReadData: c.readData, Counts: make(map[Severity]int), Findings: []Finding{},
	}
	for i := range c.table.paths {
		if !c.table.paths[i].gone {
			r.StorePaths++
		}
	}
	for _, n := range c.table.nars {
		r.NarFiles++
		r.FileSize += max(n.size, 0)
	}
	c.name()
	for _, f := range c.findings {
		r.Findings = append(r.Findings, f.Finding)
		r.Counts[f.Severity]++
	}
	for _, s := range severities {
		r.Counts[s] += 0
	}
	sortFindings(r.Findings)
	return r
}

// name fills in the store paths and releases that findings hurt.
func (c *checker) name() {
	hurt := make(map[int32][]int) // releases by store path, for all that are hurt
	for _, f := range c.findings {
		for _, i := range f.hurts {
			hurt[i] = nil
		}
	}
	for r := range c.releases {
		for _, i := range c.releases[r].paths {
			if _, found := hurt[i]; found {
				hurt[i] = append(hurt[i], r)
			}
		}
	}
	for k := range c.findings {
		f := &c.findings[k]
		for _, i := range f.hurts {
			f.releases = append(f.releases, hurt[i]...)
		}
		f.StorePaths = append(f.StorePaths, c.table.names(f.hurts)...)
		slices.Sort(f.StorePaths)
		f.StorePaths = slices.Compact(f.StorePaths)
		slices.Sort(f.releases)
		for _, r := range slices.Compact(f.releases) {
			f.Releases = append(f.Releases, c.releases[r].id)
		}
		slices.SortFunc(f.Releases, compareReleases)
		f.Releases = slices.Compact(f.Releases)
	}
}

// fileName returns the name of a file of the cache as findings have it.
func (c *checker) fileName(name string) string {
	rel, err := filepath.Rel(c.b.Dir(), filepath.Join(c.cache.Dir(), filepath.FromSlash(name)))
	if err != nil {
		return name
	}
	return filepath.ToSlash(rel)
}

// relative returns an absolute or joined name as findings have it.
func (c *checker) relative(name string) string {
	rel, err := filepath.Rel(c.b.Dir(), name)
	if err != nil || !filepath.IsLocal(rel) {
		return name
	}
	return filepath.ToSlash(rel)
}

// severityOf tells damage from what could not be read. It is not for errors
// that say that something is not there.
func severityOf(err error) Severity {
	if layout.Unreadable(err) {
		return Unreadable
	}
	return Damage // it was read, or is a symlink that leads out
}

// remedyUnreadable is what to do about what could not be read.
const remedyUnreadable = "check the medium and the rights, and run the check again"

// trouble makes the finding for an error met with a file. What could not be read
// gets its own remedy.
func trouble(kind Kind, file string, err error, remedy string) Finding {
	f := Finding{Kind: kind, Severity: severityOf(err), File: file, Message: plain(err), Remedy: remedy}
	if f.Severity == Unreadable {
		f.Remedy = remedyUnreadable
	}
	return f
}

// plain is the text of an error without the name of the file, which the finding
// has.
func plain(err error) string {
	var damage *bincache.DamageError
	if errors.As(err, &damage) {
		return damage.Err.Error()
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// each calls f for the numbers below n, several at a time, until ctx ends.
func each(ctx context.Context, workers, n int, f func(i int)) error {
	var group errgroup.Group
	work := make(chan int)
	for range workers {
		group.Go(func() error {
			for i := range work {
				f(i)
			}
			return nil
		})
	}
	// Not the select alone: where both can be done, it takes either.
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case work <- i:
		case <-ctx.Done():
		}
	}
	close(work)
	group.Wait()
	return ctx.Err()
}

// scanners is how many small files are read at a time: enough to hide the
// latency of a disk, few enough not to thrash one.
const scanners = 8

// again is what to do about a store path of a backup of ours that is damaged.
func (c *checker) again(what string) string {
	if c.b.Foreign() {
		return "get " + what + " again from where this cache came from"
	}
	return remedyRepair
}

const remedyRepair = "\"narvault repair\" mends it, out of the Nix store or another copy (--from)"

// stillNames reports whether a narinfo is still there, and names this NAR file.
func (c *checker) stillNames(i int32, url string) bool {
	info, err := c.cache.NarInfo(c.table.hashes[i])
	return err == nil && info.URL == url
}
