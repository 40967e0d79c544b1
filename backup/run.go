package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// A Request asks for store paths to be backed up as a release.
type Request struct {
	Release     ReleaseID
	Description string
	Record      *Release         // what is known of the release already: roots, source, builds, ...; nil: what the store tells
	Hydra       []byte           // the content of hydra.json, nil if there is none
	Method      Method           // "" is Binary
	Roots       []storepath.Path // in the local store; none: those of Record, as the method has them
	// Logs are files with build logs, by derivation: plain, or compressed as the
	// end of their name says (.bz2, .zst). Those of derivations that built the
	// release, and can be read, go to the cache.
	Logs         map[storepath.Path]string
	Compression  string           // "zstd", "xz", "bzip2", "none", or "" for what the backup was made with
	Level        int              // of the compression, 0 for what the backup was made with
	SignKeys     []SignKey        // sign all store paths of the release, those that are archived already as well
	ForceRealise bool             // with Cached: build the outputs that are not valid
	DryRun       bool             // only say what would be done
	Cache        bincache.Options // how archives are read that are there already
	Progress     Progress
	Lock         lock.Options
}

// A Result says what Run did, or with DryRun would do.
type Result struct {
	Version   int        `json:"version"`
	Release   ReleaseID  `json:"release"`
	Method    Method     `json:"method"`
	DryRun    bool       `json:"dryRun,omitempty"`
	Estimate             // what there was to do
	FileSize  int64      `json:"fileSize"`            // bytes of NAR files written
	Tool      string     `json:"tool,omitempty"`      // what compressed the NAR files, if it is not narvault itself
	Signed    int        `json:"signed,omitempty"`    // store paths archived before that got a signature, with our keys or of others
	Seconds   float64    `json:"seconds"`             // wall time
	Changes   *Changes   `json:"changes,omitempty"`   // against the release's last backup, nil for a new release
	Recovered int        `json:"recovered,omitempty"` // store paths brought back from the trash; they count as unchanged
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
// made if it is not there, and brings its index up to date. What must not be collected meanwhile is locked in
// the store until the store is closed.
//
// Others may back up into the same directory at the same time; gc may not.
//
// On error the backup is as good as before: every release is whole, and what
// was finished helps the next run. Errors that a caller may want to know:
// *nixstore.InvalidPathsError and *MediumError (nothing was written),
// *ChangedError, *lock.HeldError, and those of the context.
func Run(ctx context.Context, dir string, store Store, req Request) (*Result, error) {
	start := time.Now()
	r, err := run(ctx, disk.OS{}, dir, store, req)
	if err != nil || req.DryRun {
		return r, err
	}
	if warning := PublishIndex(ctx, dir, req.Cache); warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

func run(ctx context.Context, fsys disk.FS, dir string, store Store, req Request) (*Result, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	// Before Nix is asked, and perhaps builds for hours: can the backup be there?
	if err := MayCreate(dir); err != nil {
		return nil, err
	}
	r := &runner{fsys: fsys, dir: dir, store: store, req: &req}
	defer r.unlock()
	// Builds may take hours, for which gc need not wait.
	if isBackup(dir) && !req.DryRun && !req.ForceRealise {
		if err := r.lock(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.selectPaths(ctx); err != nil {
		return nil, err
	}
	warnings, err := r.checkMedium(mediumOf(dir, !req.DryRun))
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	work := r.write
	if req.DryRun {
		work = r.dryRun
	}
	if err := work(ctx); err != nil {
		return nil, err
	}
	r.result.Warnings = append(warnings, r.result.Warnings...)
	return &r.result, nil
}

// Check completes a request with defaults and refuses what makes no sense. Run
// calls it; calling it before tells wrong usage from other errors.
func (req *Request) Check() error {
	if req.Method == "" {
		req.Method = Binary
	}
	if err := checkCompression(req.Compression, req.Level); err != nil {
		return err
	}
	if req.ForceRealise && req.Method != Cached {
		return fmt.Errorf("outputs are realised for method cached only, not for %s", req.Method)
	}
	return nil
}
