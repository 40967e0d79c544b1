package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/hydra"
)

// hydraFlags are the flags of a restore into a Hydra.
type hydraFlags struct {
	database string
	roots    string
	logs     string
	dryRun   bool
}

func (h *hydraFlags) add(f *pflag.FlagSet) {
	f.StringVar(&h.database, "hydra", "", "put releases back into a Hydra too, whose database is named by this `URL`, as dbi:Pg:..., or by keywords")
	f.StringVar(&h.roots, "hydra-roots", "", "with --hydra, its gc_roots_dir is this `DIR` (default: /nix/var/nix/gcroots/hydra or, if that is not there, per-user/hydra/hydra-roots beside it)")
	f.StringVar(&h.logs, "hydra-logs", "", "with --hydra, its build logs are in this `DIR` (default: build-logs in $HYDRA_DATA, or in /var/lib/hydra)")
	f.BoolVarP(&h.dryRun, "dry-run", "n", false, "with --hydra, only say what would be done to its database")
}

// check refuses what does not go together, and completes the flags.
func (h *hydraFlags) check(c *restoreCommand) error {
	switch {
	case h.database == "" && (h.roots != "" || h.logs != "" || h.dryRun):
		return usageErrorf("--hydra-roots, --hydra-logs and --dry-run are for --hydra URL")
	case h.database == "":
		return nil
	case c.to != "":
		return usageErrorf("--to DIR restores plain files, of which no Hydra knows: leave out --to or --hydra")
	case h.roots == "" && c.store != "":
		return usageErrorf("with --store, --hydra-roots DIR has to say where the roots of that store are")
	}
	if h.roots == "" {
		h.roots = hydra.RootsDir()
	}
	h.logs = cmp.Or(h.logs, hydra.LogDirs()[0])
	return nil
}

// ask adds the roots where Hydra keeps its own: what it does not find there, it
// lets go. Those that Hydra made itself stay as they are.
func (h *hydraFlags) ask(req *backup.RestoreRequest, b *backup.Backup, id backup.ReleaseID) error {
	if h.database == "" {
		return nil
	}
	roots, err := b.RootsIn(id, h.roots)
	for _, root := range roots {
		if st, err := os.Lstat(root.Link); err == nil && st.Mode().IsRegular() || slices.Contains(req.Roots, root) {
			continue
		}
		req.Roots = append(req.Roots, root)
	}
	return err
}

// intoHydra restores releases into the Nix store and into a Hydra. Whether the
// database takes the rows is tried first, and done last, when all is there that
// they speak of.
func (c *restoreCommand) intoHydra(ctx context.Context, b *backup.Backup, names []string) error {
	releases, err := readRows(b, names)
	if err != nil {
		return err
	}
	if err := restoreRows(ctx, c.hydra.database, releases, true); err != nil {
		return err
	}
	if c.hydra.dryRun {
		return c.reportHydra(nil, releases, 0)
	}
	if err := hydra.MakeRootsDir(c.hydra.roots, hydra.User); err != nil {
		return fmt.Errorf("make the directory of Hydra's GC roots: %w", err)
	}
	result, err := c.toStore(ctx, b, names)
	if err != nil {
		return err
	}
	if len(result.LeftOut) > 0 {
		fmt.Fprintln(c.s.err, "narvault: the database is as it was, because of the store paths that are left out")
		return c.reportStore(result)
	}
	if err := restoreRows(ctx, c.hydra.database, releases, false); err != nil {
		return fmt.Errorf("all store paths are there, but: %w", err)
	}
	logs, err := c.restoreLogs(b, releases)
	return errors.Join(c.reportHydra(result, releases, logs), err)
}

// restoreLogs copies the build logs that Hydra has not, and returns how many.
func (c *restoreCommand) restoreLogs(b *backup.Backup, releases []*rowsRelease) (n int, err error) {
	if home := filepath.Dir(c.hydra.logs); !isDir(home) {
		fmt.Fprintf(c.s.err, "narvault: warning: build logs are not restored: there is no %s here; --hydra-logs DIR says where Hydra has them\n", home)
		return 0, nil
	}
	for _, r := range releases {
		drvs, err := r.rows.Derivations(b.Cache.StoreDir())
		if err != nil {
			return n, err
		}
		for _, drv := range drvs {
			put, err := hydra.PutLog(c.hydra.logs, drv, filepath.Join(b.Cache.Dir(), "log", string(drv)))
			switch {
			case errors.Is(err, fs.ErrNotExist): // of this one there is no log in the backup
			case err != nil:
				return n, fmt.Errorf("store paths and rows are restored, but: %w", err)
			case put:
				n++
			}
		}
	}
	return n, nil
}

func (c *restoreCommand) reportHydra(result *backup.RestoreResult, releases []*rowsRelease, logs int) error {
	if c.json {
		return printJSON(c.s.out, struct {
			Version int                   `json:"version"`
			Store   *backup.RestoreResult `json:"store,omitempty"`
			Hydra   any                   `json:"hydra"`
			Logs    int                   `json:"logs"`
		}{backup.FormatVersion, result, describeRows(releases), logs})
	}
	if c.quiet {
		return nil
	}
	if result != nil {
		c.storeSummary(result)
	}
	summarizeRows(c.s.out, releases)
	if logs > 0 {
		fmt.Fprintf(c.s.out, "restored %s in %s\n", count(logs, "build log"), c.hydra.logs)
	}
	return nil
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
