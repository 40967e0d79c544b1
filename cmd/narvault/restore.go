package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/unpack"
	"github.com/narvault/narvault/narread/storepath"
)

// restoreCommand is "narvault restore".
type restoreCommand struct {
	s       streams
	to      string
	links   string
	store   string
	addRoot string
	noRoot  bool
	hydra   hydraFlags
	json    bool
	quiet   bool
	lock    lockFlags
}

func (c *restoreCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "restore BACKUP P/N|PATH... [--to DIR]",
		Short: "Get releases, store paths or files back out",
		Long: `Restores releases (PROJECT/NAME) and store paths, each with all that it refers to,
into the Nix store, through the daemon or not:

  narvault restore /media/backup disnix/disnix-0.3

References, derivers, signatures and content addresses are as in the backup.
What is valid in the store already is left alone, nothing is ever built, and in
the end the store is asked whether it has everything. What a release was made
for becomes a root of the garbage collector, a link in narvault/gcroots/ in the
user's state directory or in the one that --add-root names.

With --hydra, releases that came from Hydra go back into a Hydra as well: their
rows into its database ("narvault hydra restore --help" says how), the store paths
with roots where Hydra keeps its own, and the build logs to where it looks:

  narvault restore /media/backup disnix/disnix-0.3 --hydra postgres:///hydra

With --to, releases, store paths, or what is below one, as plain files into a
directory; Nix is not needed:

  narvault restore /media/backup disnix/disnix-0.3 --to /srv/rescue
  narvault restore /media/backup <hash>-disnix-0.3/share/doc --to .
  narvault restore /media/backup jobs/disnix/disnix-0.3/build.x86_64-linux --to .

Store paths are called DIR/HASH-NAME there, anything else by its last name. A
tree gets its name when all of it was verified against the hash in the backup
and is on the disk; what an interrupted run restored is kept. What is there
already is compared and never changed. Of a damaged archive, the files that are
whole go to DIR/HASH-NAME.damaged.

The receipt: DIR/narvault-restore.json, and DIR/narvault-restore.sha256 for
"sha256sum -c". Modes and times are those of a Nix store. What the file system
of DIR cannot hold (symlinks, executable files, names) is named, exit code 3.`,
		Args: argRange(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.to, "to", "", "restore as plain files into this `DIR`")
	f.StringVar(&c.links, "links", "raw", "with --to, symlinks into the store: raw (as archived) or relative (to what is restored beside them)")
	f.StringVar(&c.store, "store", "", "the Nix store to restore into, as Nix's --store `URL`")
	f.StringVar(&c.addRoot, "add-root", "", "make garbage collector roots, for single store paths too, as links in this `DIR`")
	f.BoolVar(&c.noRoot, "no-root", false, "make no garbage collector roots")
	c.hydra.add(f)
	f.BoolVar(&c.json, "json", false, "write the summary as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress and no summary")
	c.lock.add(f)
	return cmd
}

func (c *restoreCommand) run(ctx context.Context, dir string, names []string) error {
	if c.links != "relative" && c.links != "raw" {
		return usageErrorf("--links is relative or raw, not %q", c.links)
	}
	switch {
	case c.links == "relative" && c.to == "":
		return usageErrorf("--links=relative is for --to DIR")
	case c.to != "" && (c.store != "" || c.addRoot != "" || c.noRoot):
		return usageErrorf("--to DIR restores without a Nix store: --store, --add-root and --no-root do not go with it")
	case c.addRoot != "" && c.noRoot:
		return usageErrorf("give --add-root or --no-root, not both")
	}
	if err := c.hydra.check(c); err != nil {
		return err
	}
	o, err := c.lock.options(c.s, "restore")
	if err != nil {
		return err
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	lock, err := b.Lock(ctx, o)
	if err != nil {
		return err
	}
	defer lock.Close()
	switch {
	case c.hydra.database != "":
		return c.intoHydra(ctx, b, names)
	case c.to == "":
		return c.intoStore(ctx, b, names)
	}
	return c.unpack(ctx, b, names)
}

// unpack restores into a directory.
func (c *restoreCommand) unpack(ctx context.Context, b *backup.Backup, names []string) error {
	var items []backup.UnpackItem
	for _, name := range names {
		more, err := unpackItems(b, name)
		if err != nil {
			return err
		}
		items = append(items, more...)
	}
	progress := newProgress(c.s.err, c.quiet)
	result, err := b.Unpack(ctx, backup.UnpackRequest{
		Dir: c.to, Items: items, RelativeLinks: c.links == "relative",
		Progress: progress.restoreHooks(), Limits: c.limits,
	})
	progress.stop()
	if err != nil {
		progress.goesOn("restored")
		return err
	}
	return c.report(result)
}

// unpackItems returns what an argument names.
func unpackItems(b *backup.Backup, name string) ([]backup.UnpackItem, error) {
	if whole := wholePaths(b, name); whole != nil {
		return wholeItems(whole), nil
	}
	place, err := find(b, name)
	if err != nil {
		return nil, err
	}
	if place.Node != nil {
		defer place.Node.Close()
		return []backup.UnpackItem{{Path: place.Node.Path, Below: place.Node.Listing.Path(place.Node.Entry)}}, nil
	}
	closure, err := b.WholeClosure(place.ID)
	if err != nil {
		return nil, err
	}
	return wholeItems(closure), nil
}

func wholeItems(paths []storepath.Path) (items []backup.UnpackItem) {
	for _, p := range paths {
		items = append(items, backup.UnpackItem{Path: p})
	}
	return items
}

// limits says what the file system cannot hold.
func (c *restoreCommand) limits(l unpack.Limits) {
	if w := l.Warnings(); len(w) > 0 {
		fmt.Fprintf(c.s.err, "narvault: warning: the file system of %s does not hold all of a store path: %s\n", c.to, strings.Join(w, ", "))
	}
}

// report prints the summary, and what was left out.
func (c *restoreCommand) report(r *backup.UnpackResult) error {
	if c.json {
		if err := printJSON(c.s.out, r); err != nil {
			return err
		}
	}
	count := make(map[unpack.State]*unpackSum)
	var leftOut []string
	var damage, differing []error
	for i := range r.Items {
		it := &r.Items[i]
		sum := count[it.State]
		if sum == nil {
			sum = new(unpackSum)
			count[it.State] = sum
		}
		sum.add(it)
		leftOut = append(leftOut, it.LeftOut...)
		switch it.State {
		case unpack.Damaged:
			damage = append(damage, fmt.Errorf("%s is damaged:\n%w", it.Name, it.Err()))
		case unpack.Differing:
			differing = append(differing, it.Err())
		}
	}
	if !c.quiet && !c.json {
		c.summary(count)
	}
	list(c.s.err, "left out: ", leftOut)
	for _, err := range differing {
		fmt.Fprintf(c.s.err, "narvault: %s\n", message(err.Error()))
	}
	switch {
	case len(damage) > 0:
		return errors.Join(damage...)
	case len(differing)+len(leftOut) > 0:
		return errPartial
	}
	return nil
}

// An unpackSum adds up items.
type unpackSum struct {
	items, files int
	bytes        int64
}

func (s *unpackSum) add(it *backup.UnpackedItem) {
	s.items++
	s.files += it.Files
	s.bytes += it.Bytes
}

func (c *restoreCommand) summary(count map[unpack.State]*unpackSum) {
	for _, row := range []struct {
		state unpack.State
		text  string
	}{
		{unpack.Restored, "restored"},
		{unpack.Kept, "already there"},
		{unpack.Differing, "there, but different"},
		{unpack.Damaged, "damaged"},
	} {
		if sum := count[row.state]; sum != nil {
			fmt.Fprintf(c.s.out, "%-20s %6d  %d files, %s\n", row.text, sum.items, sum.files, size(sum.bytes))
		}
	}
	fmt.Fprintf(c.s.out, "in %s, with the receipt %s\n", c.to, unpack.SumsFile)
}
