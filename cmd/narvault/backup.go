package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
)

// backupCommand is "narvault backup".
type backupCommand struct {
	s            streams
	config       string
	release      string
	description  string
	method       string
	store        string
	from         string
	asIs         bool
	compression  string
	level        int
	allGCRoots   bool
	forceRealise bool
	signKeys     []string
	dryRun       bool
	json         bool
	quiet        bool
	lock         lockFlags
}

func (c *backupCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "backup BACKUP --release P/N STORE-PATH... | --config FILE",
		Short: "Back up store paths and all they need, as a release, or releases of Hydra",
		Long: `Backs up store paths of the local Nix store, with all that they need, as the
release PROJECT/NAME. BACKUP is made if it is not there. Only what is not in the
backup yet is written; backing up a release again updates it.

  narvault backup /media/backup --release disnix/disnix-0.3 ./result

A STORE-PATH is a store path, a file in one, a symlink to one (result, a
profile, /run/current-system), or its hash part. With --from, it is taken from
another backup or binary cache: no Nix store is asked, and signatures are kept.
(With --config, only what the Nix store lacks is: what Hydra let go.) NAR files
are taken over as they are where any part of them can be read without the rest
(of backups), else packed anew; --as-is and --compression decide.

With --config, releases of Hydra are backed up instead, as FILE says:

  {"dbiConnection": "dbi:Pg:dbname=hydra;host=localhost;user=hydra;",
   "outDir": "/media/backup",
   "releases": [{"project": "disnix", "name": "disnix-0.3", "method": "binary"},
                {"project": "disnix", "jobset": "trunk", "jobs": ["build", "tests.*"]}]}

A release is one in Hydra's tables (until 2020; a name with * stands for several),
or what one of "evaluation": N, "jobset": "...", "builds": [...] and "aggregate" says.
The name is then Hydra's, unless FILE has one. Builds that did not succeed are left
out; one release that cannot be had does not stop the others.

Methods:
  binary  the closure of the paths: all that is needed to run them
  source  the closure of their derivations: all that is needed to build them
  cached  source, and the outputs of all these derivations that are valid`,
		Args: func(cmd *cobra.Command, args []string) error {
			if c.config != "" {
				return argRange(0, 0)(cmd, args)
			}
			return argRange(1, -1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.config == "" {
				return c.run(cmd.Context(), args[0], args[1:])
			}
			if name := changedFlag(cmd, "release", "description", "method", "all-gcroots"); name != "" {
				return usageErrorf("--%s is not for --config: the file says it", name)
			}
			return c.runConfig(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.config, "config", "", "back up the releases of Hydra that `FILE` names")
	f.StringVar(&c.release, "release", "", "the release, `PROJECT/NAME`")
	f.StringVar(&c.description, "description", "", "what the release is, in a few `words`")
	f.StringVar(&c.method, "method", "binary", "what to take: binary, source or cached")
	f.BoolVar(&c.allGCRoots, "all-gcroots", false, "back up every root of Nix's garbage collector")
	f.BoolVar(&c.forceRealise, "force-realise", false, "with method cached: build the outputs that are not valid")
	f.StringVar(&c.store, "store", "", "the Nix store to read, as Nix's --store `URL`")
	f.StringVar(&c.from, "from", "", "take the store paths from another backup or binary cache, the `CACHE-DIR`, not from a Nix store; with --config, those that the store lacks")
	f.BoolVar(&c.asIs, "as-is", false, "with --from: take over all NAR files as they are, also those that cannot be read in parts")
	f.StringVar(&c.compression, "compression", "", "zstd, xz, bzip2 or none (default: what the backup was made with, zstd for a new one)")
	f.IntVar(&c.level, "level", 0, "compression level: zstd 1 to 22, xz and bzip2 1 to 9 (default: what the backup was made with; 3, 6, 9 for a new one)")
	f.StringArrayVar(&c.signKeys, "sign-key", nil, "sign all store paths of the release with the secret key in this `FILE` (may be repeated)")
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress and no summary")
	c.lock.add(f)
	return cmd
}

func (c *backupCommand) run(ctx context.Context, dir string, args []string) error {
	req, err := c.request(args)
	if err != nil {
		return err
	}
	if err := backup.MayCreate(dir); err != nil {
		return err
	}
	source, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	if req.Roots, err = c.roots(ctx, source, args); err != nil {
		return err
	}
	result, err := c.backUp(ctx, dir, source, *req)
	if err != nil {
		return err
	}
	return c.report(dir, result)
}

// changedFlag returns which of the flags was given, "" for none.
func changedFlag(cmd *cobra.Command, names ...string) string {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// backUp carries out a request and shows how far it is.
func (c *backupCommand) backUp(ctx context.Context, dir string, store backup.Store, req backup.Request) (*backup.Result, error) {
	progress := newProgress(c.s.err, c.quiet || c.dryRun)
	req.Progress, req.Cache = progress.hooks(), cacheOptions(c.s.err)
	result, err := backup.Run(ctx, dir, store, req)
	progress.stop()
	if err != nil {
		progress.goesOn("in the backup")
	}
	return result, err
}

// request checks the flags.
func (c *backupCommand) request(args []string) (*backup.Request, error) {
	if c.release == "" {
		return nil, usageErrorf("--release PROJECT/NAME is missing: it names what is backed up")
	}
	id, err := backup.ParseReleaseID(c.release)
	if err != nil {
		return nil, err
	}
	method, err := backup.ParseMethod(c.method)
	if err != nil {
		return nil, usageErrorf("%v", err)
	}
	switch {
	case c.allGCRoots && len(args) > 0:
		return nil, usageErrorf("give store paths or --all-gcroots, not both")
	case !c.allGCRoots && len(args) == 0:
		return nil, usageErrorf("which store paths? Give at least one, or --all-gcroots")
	case c.forceRealise && method != backup.Cached:
		return nil, usageErrorf("--force-realise is for --method cached")
	}
	if err := c.checkSource(); err != nil {
		return nil, err
	}
	req := &backup.Request{Release: id, Description: c.description, Method: method}
	return req, c.settle(req)
}

// checkSource checks the flags that say where store paths come from.
func (c *backupCommand) checkSource() error {
	switch {
	case c.from != "" && (c.store != "" && c.config == "" || c.allGCRoots || c.forceRealise):
		return usageErrorf("--from takes store paths from a binary cache; --store, --all-gcroots and --force-realise are for a Nix store")
	case c.asIs && (c.from == "" || c.compression != "" || c.level != 0):
		return usageErrorf("--as-is goes with --from, and with no --compression or --level")
	}
	return nil
}

// settle completes a request for a release by what the flags say of all.
func (c *backupCommand) settle(req *backup.Request) (err error) {
	req.Compression, req.Level, req.DryRun = c.compression, c.level, c.dryRun
	req.ForceRealise = c.forceRealise && req.Method == backup.Cached
	if req.SignKeys, err = loadKeys(c.signKeys); err != nil {
		return err
	}
	if err := req.Check(); err != nil {
		return usageErrorf("%v", err)
	}
	req.Lock, err = c.lock.options(c.s, "backup of "+req.Release.String())
	return err
}

// A source is where store paths are taken from.
type source interface {
	backup.Store
	// Resolve returns the store path that an argument names.
	Resolve(arg string) (storepath.Path, error)
	Close() error
}

// open opens the local Nix store, or the cache that --from says.
func (c *backupCommand) open(ctx context.Context) (source, error) {
	if c.from == "" {
		return c.openStore(ctx)
	}
	return c.openCache(ctx)
}

func (c *backupCommand) openStore(ctx context.Context) (*nixstore.Store, error) {
	return nixstore.Open(ctx, nixstore.Options{URL: c.store, Log: c.s.err})
}

func (c *backupCommand) openCache(ctx context.Context) (*cacheSource, error) {
	o, err := c.lock.options(c.s, "backup --from")
	if err != nil {
		return nil, err
	}
	b, err := openBackup(c.from, c.s.err)
	if err != nil {
		return nil, err
	}
	lock, err := b.Lock(ctx, o)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &cacheSource{backup.FromCache(b, c.asIs), b, lock}, nil
}

// cacheSource is a binary cache as a source.
type cacheSource struct {
	*backup.CacheStore
	b    *backup.Backup
	lock io.Closer // what is there stays
}

func (s *cacheSource) Resolve(arg string) (storepath.Path, error) { return storePath(s.b, arg) }

func (s *cacheSource) Close() error { return errors.Join(s.lock.Close(), s.b.Close()) }

// roots finds the store paths that the arguments name; all mistakes are
// reported at once.
func (c *backupCommand) roots(ctx context.Context, from source, args []string) ([]storepath.Path, error) {
	if store, ok := from.(*nixstore.Store); ok && c.allGCRoots {
		return gcRoots(ctx, store)
	}
	var paths []storepath.Path
	var errs []error
	for _, arg := range args {
		p, err := from.Resolve(arg)
		paths, errs = append(paths, p), append(errs, err)
	}
	return paths, errors.Join(errs...)
}

func gcRoots(ctx context.Context, store *nixstore.Store) ([]storepath.Path, error) {
	roots, err := store.GCRoots(ctx)
	if err != nil {
		return nil, err
	}
	var paths []storepath.Path
	for _, r := range roots {
		paths = append(paths, r.Path)
	}
	slices.Sort(paths)
	if len(paths) == 0 {
		return nil, errors.New("the Nix store has no garbage collector root")
	}
	return slices.Compact(paths), nil
}

// report prints the summary, and what was left out.
func (c *backupCommand) report(dir string, r *backup.Result) error {
	if c.json {
		if err := printJSON(c.s.out, r); err != nil {
			return err
		}
	} else if !c.quiet {
		summary(c.s.out, dir, r, backingUp)
	}
	return exceptions(c.s.err, r)
}

// exceptions says what was not as it should be; errPartial is for what was left
// out.
func exceptions(w io.Writer, r *backup.Result) error {
	mended := "damage in the backup, mended: "
	if r.DryRun {
		mended = "damage in the backup, would be mended: "
	}
	list(w, mended, r.Healed)
	list(w, "warning: ", r.Warnings)
	list(w, "left out: ", leftOut(r))
	if r.Partial() {
		return errPartial
	}
	return nil
}

// maxListed is how many items of a kind are listed one by one; --json has all.
const maxListed = 20

func list(w io.Writer, prefix string, items []string) {
	for i, item := range items {
		if i == maxListed {
			fmt.Fprintf(w, "narvault: %sand %d more; --json lists all\n", prefix, len(items)-i)
			return
		}
		fmt.Fprintf(w, "narvault: %s%s\n", prefix, message(item))
	}
}

func leftOut(r *backup.Result) []string {
	var items []string
	for _, c := range r.Conflicts {
		items = append(items, fmt.Sprintf("%s is archived with NAR hash %s and stays so; the store has another content, %s", c.Path, c.Archived, c.Local))
	}
	for _, m := range r.Missing {
		items = append(items, fmt.Sprintf("output %s of %s is not valid (%s)", m.Output, m.DrvPath, orUnknown(string(m.Path))))
	}
	return items
}

func orUnknown(s string) string {
	if s == "" {
		return "its path is known only after a build"
	}
	return s
}

// A deed is how a summary calls what was done, or would be.
type deed struct{ done, would string }

var (
	backingUp = deed{"backed up", "would back up"}
	copying   = deed{"copied", "would copy"}
)

// summary says in a few lines what was done, or would be.
func summary(w io.Writer, dir string, r *backup.Result, d deed) {
	verb := d.done
	if r.DryRun {
		verb = d.would
	}
	fmt.Fprintf(w, "%s release %s (%s): %s, %s\n", verb, r.Release, r.Method, count(r.Total.Paths, "store path"), size(r.Total.NarSize))
	row := func(name string, a backup.Amount, detail string) {
		fmt.Fprintf(w, "  %-18s %6d  %8s%s\n", name, a.Paths, size(a.NarSize), detail)
	}
	row("already there", r.Unchanged, "")
	if r.Shared.Paths > 0 {
		row("same content", r.Shared, ", stored once")
	}
	switch {
	case r.DryRun:
		row("to be written", r.Write, fmt.Sprintf(", before compression; %s free", size(max(r.Free, 0))))
	case r.Write.Paths == 0:
		fmt.Fprintln(w, "  nothing had to be written")
	default:
		row("written", r.Write, fmt.Sprintf(", compressed to %s in %s", size(r.FileSize), seconds(r.Seconds)))
		if r.Tool != "" {
			fmt.Fprintf(w, "  compressed by %s\n", r.Tool)
		}
	}
	if r.Signed > 0 {
		fmt.Fprintf(w, "  new signatures of %s that had been there\n", count(r.Signed, "store path"))
	}
	if ch := r.Changes; ch != nil {
		changed(w, "new in the release", ch.Added)
		changed(w, "no longer in the release", ch.Removed)
	}
	if !r.DryRun {
		fmt.Fprintf(w, "  in %s\n", filepath.Join(dir, "releases", r.Release.String()))
	}
}

// changed lists what came into a release, or left it, against its last backup.
func changed(w io.Writer, what string, paths []storepath.Path) {
	if len(paths) == 0 {
		return
	}
	fmt.Fprintf(w, "  %s: %s\n", what, count(len(paths), "store path"))
	for i, p := range paths {
		if i == maxListed {
			fmt.Fprintf(w, "    and %d more; --json lists all\n", len(paths)-i)
			return
		}
		fmt.Fprintf(w, "    %s\n", p)
	}
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
