package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// Suspects are what may be damaged in a backup, as a check found. Repair looks
// at all of it again, and leaves alone what is right. Store paths are given by
// their hash parts.
type Suspects struct {
	NarInfos  []string                  // the narinfo is damaged or missing, or not to be believed
	NARs      []string                  // the NAR file is damaged or missing
	Names     map[string]storepath.Path // of these, as far as they are known
	Listings  []string                  // the .ls file is damaged
	Releases  []ReleaseID               // a file of the record is damaged or missing
	Dumps     []string                  // names of dumps of databases that are damaged
	Misfits   []Misfit                  // what cannot be mended and leads astray: links, files in the place of directories
	CacheInfo bool                      // nix-cache-info is damaged or missing
	CacheDirs bool                      // a directory that Nix wants is missing
	Config    bool                      // narvault.json is damaged
	Index     bool                      // the index is damaged
}

// A Misfit is a file that is to be quarantined.
type Misfit struct {
	File   string // relative to the backup
	Reason string
}

// A RepairRequest says what is to be repaired, and from what.
type RepairRequest struct {
	Suspects
	Store Store     // the local Nix store, nil to do without
	From  []*Backup // other backups and binary caches
	// TrustedKeys and NoCheckSigs say when a cache of From is believed about a
	// store path of which this backup knows nothing any more: when one of the keys
	// has signed it, or always. Content is verified in any case.
	TrustedKeys []signature.PublicKey
	NoCheckSigs bool
	DryRun      bool // only say what would be done
	Cache       bincache.Options
	Lock        lock.Options
	Progress    Progress

	now time.Time // for tests
}

// A RepairResult says what Repair did, or with DryRun would do.
type RepairResult struct {
	Version     int           `json:"version"`
	DryRun      bool          `json:"dryRun,omitempty"`
	Repaired    []Repaired    `json:"repaired"`
	Quarantined []Quarantined `json:"quarantined"`
	Lost        []Quarantined `json:"lost"`            // what could not be repaired, and has no narinfo or could not be read
	Trash       string        `json:"trash,omitempty"` // where the quarantined files are, below the backup
	Warnings    []string      `json:"warnings,omitempty"`
}

// A Repaired is a file that is as it has to be again.
type Repaired struct {
	File      string         `json:"file"` // relative to the backup
	StorePath storepath.Path `json:"storePath,omitempty"`
	From      string         `json:"from"` // what it was repaired from
}

// A Quarantined is something that could not be repaired.
type Quarantined struct {
	File      string         `json:"file"` // relative to the backup, where it was
	StorePath storepath.Path `json:"storePath,omitempty"`
	Reason    string         `json:"reason"`
	Releases  []ReleaseID    `json:"releases,omitempty"` // that have the store path
}

func (r *RepairResult) changed() bool { return len(r.Repaired)+len(r.Quarantined) > 0 }

// Repair mends what is damaged in the backup in dir, out of whatever has it: the
// backup itself, the local Nix store, other caches. What has no source is
// quarantined: a narinfo that cannot be kept goes to the trash (Quarantine says
// where), and its NAR file is offered no longer; nothing is deleted.
//
// A narinfo is published only when its NAR was read whole and has its NarHash.
// What it says is what this backup knew: its narinfo where that is right, its
// index, an earlier quarantine. Only if it knows nothing any more, the local
// store is believed, and caches under the conditions of RepairRequest.
//
// A crash leaves a backup that is no worse than before. Backups and mounts may go
// on meanwhile, but for the instant in which something is quarantined, which
// excludes other writers (*lock.HeldError when there is one). An error means that
// repairing ended early; what was repaired until then stays so.
func Repair(ctx context.Context, dir string, req RepairRequest) (*RepairResult, error) {
	result, err := repair(ctx, disk.OS{}, dir, req)
	if err != nil {
		return result, fmt.Errorf("repair: %w", err)
	}
	if !req.DryRun && (result.changed() || req.Index) {
		if warning := PublishIndex(ctx, dir, req.Cache); warning != "" {
			result.Warnings = append(result.Warnings, warning)
		}
	}
	return result, nil
}

// A repairer is one call of Repair.
type repairer struct {
	fsys  *notedFS
	b     *Backup
	req   *RepairRequest
	held  *lock.Lock
	index *index.Index // or nil

	earlier  map[string]quarantineEntry // what was quarantined before, by hash part
	releases map[storepath.Path][]ReleaseID
	twins    map[narinfo.Hash][]string // hash parts; nil before they are needed
	read     map[readKey]*narReading   // NAR files of the backup that were read
	whole    map[narinfo.Hash]*content // what was verified
	lost     []lost
	result   RepairResult
}

// A lost is a store path that has no source.
type lost struct {
	hash       string
	path       storepath.Path // "" if nobody knows its name
	seen       []byte         // its narinfo, nil if there is none
	truth      *account       // what is known of it, or nil
	reason     string
	unreadable bool // it may be all right
}

func repair(ctx context.Context, fsys disk.FS, dir string, req RepairRequest) (*RepairResult, error) {
	if req.now.IsZero() {
		req.now = time.Now()
	}
	r := &repairer{
		fsys: &notedFS{FS: fsys}, req: &req, read: make(map[readKey]*narReading), whole: make(map[narinfo.Hash]*content),
		result: RepairResult{Version: FormatVersion, DryRun: req.DryRun, Repaired: []Repaired{}, Quarantined: []Quarantined{}, Lost: []Quarantined{}},
	}
	b, _, err := OpenDamaged(dir, req.Cache)
	if err != nil {
		return &r.result, err
	}
	r.b = b
	defer func() { r.close() }()
	if b.foreign {
		return &r.result, fmt.Errorf("%s is a binary cache that another program keeps: nothing is written to it", dir)
	}
	if err := r.mend(ctx); err != nil {
		return &r.result, err
	}
	return &r.result, r.quarantine(ctx)
}

func (r *repairer) close() {
	if r.index != nil {
		r.index.Close()
	}
	r.b.Close()
}

// mend repairs what has a source, beside other writers.
func (r *repairer) mend(ctx context.Context) (err error) {
	if !r.req.DryRun {
		if r.held, err = lock.Take(ctx, r.b.dir, lock.Writing, r.req.Lock); err != nil {
			return err
		}
		defer r.held.Close()
		if err := r.held.Exclusively(ctx, r.sweep); err != nil {
			return err
		}
	}
	if err := r.basics(ctx); err != nil {
		return err
	}
	r.openIndex()
	if r.earlier, err = r.b.quarantined(); err != nil {
		return err
	}
	if err := r.findReleases(); err != nil {
		return err
	}
	if err := r.mendPaths(ctx); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	if err := r.mendListings(ctx); err != nil {
		return err
	}
	if err := r.mendLinks(ctx); err != nil {
		return err
	}
	if err := r.mendReleases(ctx); err != nil {
		return err
	}
	return r.mendDumps(ctx)
}

// sync makes durable what an earlier repair gave its name, and was killed before
// it synced: this one has found nothing wrong with it.
func (r *repairer) sync() error {
	if r.req.DryRun || len(r.req.NarInfos)+len(r.req.NARs) == 0 {
		return nil
	}
	return errors.Join(r.fsys.SyncDir(r.b.cachePath(bincache.NARDir)), r.fsys.SyncDir(r.b.cachePath()))
}

// sweep removes what a repair left that was killed, if nobody else writes.
func (r *repairer) sweep() error {
	if !r.held.Alone() {
		return nil
	}
	return sweep(r.fsys, r.b, ReleaseID{})
}

// exclusively is lock.Lock.exclusively, or in a dry run nothing.
func (r *repairer) exclusively(ctx context.Context, f func() error) error {
	if r.req.DryRun {
		return nil
	}
	return r.held.Exclusively(ctx, f)
}

func (r *repairer) openIndex() {
	for _, dir := range r.b.IndexDirs() {
		if ix, err := r.b.OpenIndex(dir); err == nil {
			r.index = ix
			return
		}
	}
}

// findReleases notes which releases have the store paths.
func (r *repairer) findReleases() error {
	r.releases = make(map[storepath.Path][]ReleaseID)
	ids, err := r.b.Releases()
	if err != nil {
		return err
	}
	wanted := make(map[string]bool)
	for _, hash := range slices.Concat(r.req.NarInfos, r.req.NARs) {
		wanted[hash] = true
	}
	for _, id := range ids {
		closure, _ := r.b.Closure(id) // if it is damaged, mendReleases sees to it
		for _, p := range closure {
			if wanted[p.Hash()] {
				r.releases[p] = append(r.releases[p], id)
			}
		}
	}
	return nil
}
