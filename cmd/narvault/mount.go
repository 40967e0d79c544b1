package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/narread/storepath"
)

// mountCommand is "narvault mount".
type mountCommand struct {
	s          streams
	links      string
	allowOther bool
}

func (c *mountCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "mount BACKUP MOUNTPOINT",
		Short: "Show a backup as a tree of files",
		Long: `Shows a backup as a read-only tree of files, until Ctrl-C or umount:

  releases/PROJECT/NAME/HASH-NAME/...     the store paths of each release
  store/HASH-NAME/...                     every store path
  exports/releases/PROJECT/NAME.closure   streams for nix-store --import
  exports/store/HASH-NAME.closure

Nothing is unpacked: what is read is decompressed while it is read. Symlinks to
store paths of the backup lead to them inside the mount.`,
		Args: argRange(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.links, "links", "relative", "symlinks into the store: relative (they resolve in the mount) or raw (as archived)")
	f.BoolVar(&c.allowOther, "allow-other", false, "let other users in")
	return cmd
}

func (c *mountCommand) run(ctx context.Context, dir, mountpoint string) error {
	if c.links != "relative" && c.links != "raw" {
		return usageErrorf("--links is relative or raw, not %q", c.links)
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	view := &mountView{backup.NewLive(b, func(err error) { c.logf("%v", err) })}
	server, err := fusefs.Mount(view, mountpoint, fusefs.Options{
		Name:       dir,
		RawLinks:   c.links == "raw",
		AllowOther: c.allowOther,
		Avoid:      []string{dir, spoolDir()},
		Logf:       c.logf,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.s.out, "mounted %s on %s; Ctrl-C unmounts\n", dir, mountpoint)
	return wait(ctx, server)
}

func (c *mountCommand) logf(format string, args ...any) {
	fmt.Fprintf(c.s.err, "narvault: "+format+"\n", args...)
}

// wait serves until the mount ends. The first signal, which ends ctx, unmounts
// as soon as nobody uses the mount; a second one detaches it at once, a third
// one cuts off who still uses it.
func wait(ctx context.Context, server *fusefs.Server) error {
	again := make(chan os.Signal, 2)
	context.AfterFunc(ctx, func() { signal.Notify(again, os.Interrupt, syscall.SIGTERM) })
	defer signal.Stop(again)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-again:
				server.Detach() // Wait says how it ended
			case <-ended:
				return
			}
		}
	}()
	return server.Wait(ctx)
}

// mountView is a live backup as fusefs wants to see it.
type mountView struct{ live *backup.Live }

var (
	_ fusefs.Backup        = (*mountView)(nil)
	_ fusefs.UsageReporter = (*mountView)(nil)
)

func (v *mountView) StoreDir() string                 { return v.live.Cache.StoreDir() }
func (v *mountView) Paths() ([]storepath.Path, error) { return v.live.Paths() }

func (v *mountView) Releases() ([]fusefs.ReleaseID, error) {
	ids, err := v.live.Releases()
	if err != nil {
		return nil, err
	}
	out := make([]fusefs.ReleaseID, len(ids))
	for i, id := range ids {
		out[i] = fusefs.ReleaseID(id)
	}
	return out, nil
}

func (v *mountView) Closure(id fusefs.ReleaseID) ([]storepath.Path, error) {
	return v.live.Closure(backup.ReleaseID(id))
}

func (v *mountView) Open(p storepath.Path) (fusefs.Tree, error) {
	info, err := v.live.Cache.Lookup(p)
	if err != nil {
		return nil, err
	}
	return v.live.Cache.Archive(info)
}

func (v *mountView) ExportRelease(id fusefs.ReleaseID) (fusefs.Stream, error) {
	paths, err := v.Closure(id)
	if err != nil {
		return nil, err
	}
	return v.live.NewExport(paths)
}

func (v *mountView) ExportPath(p storepath.Path) (fusefs.Stream, error) {
	paths, err := v.live.PathClosure([]storepath.Path{p})
	if err != nil {
		return nil, err
	}
	return v.live.NewExport(paths)
}

// Usage answers df with the sizes of all NARs.
func (v *mountView) Usage() (fusefs.Usage, error) {
	return fusefs.Usage{Bytes: v.live.NarSize()}, nil
}
