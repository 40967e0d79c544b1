package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/fusefs"
)

// mountCommand is "narvault mount".
type mountCommand struct {
	s          streams
	links      string
	allowOther bool
	xattrs     bool
	daemon     bool
	log        string
	limits     readLimits
	readyFD    int // set in the server that --daemon starts
}

func (c *mountCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "mount BACKUP MOUNTPOINT",
		Short: "Show a backup as a tree of files",
		Long: `Shows a backup as a read-only tree of files, until Ctrl-C or narvault umount:

  releases/PROJECT/NAME/HASH-NAME/...       the store paths of each release
  jobs/PROJECT/NAME/JOB.SYSTEM/OUTPUT       links to what it was made for
  store/HASH-NAME/...                       every store path
  exports/releases/PROJECT/NAME.closure     streams for nix-store --import
  exports/store/HASH-NAME.closure
  cache/                                    the binary cache, for file://MOUNTPOINT/cache
  logs/DERIVATION                           build logs that it has
  .narvault/{status.json,errors}            what the mount does, which damage it met

Nothing is unpacked: what is read is decompressed while it is read. Symlinks to
store paths of the backup lead to them inside the mount.

While somebody uses the mount, Ctrl-C names who and goes on serving until they
are done; a second one takes the mount away at once, a third one cuts them off.`,
		Args: argRange(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.links, "links", "relative", "symlinks into the store: relative (they resolve in the mount) or raw (as archived)")
	f.BoolVar(&c.allowOther, "allow-other", false, "let other users in")
	f.BoolVar(&c.xattrs, "xattrs", false, "show NAR hash, references and deriver of store paths as extended attributes (makes ls -l slow)")
	f.BoolVar(&c.daemon, "daemon", false, "return when the mount is ready and go on serving in the background")
	f.StringVar(&c.log, "log", "", "write messages to this `FILE` (with --daemon by default narvault/mount.log in the user's state directory)")
	c.limits.addFlags(f)
	f.IntVar(&c.readyFD, "ready-fd", 0, "")
	f.MarkHidden("ready-fd")
	return cmd
}

func (c *mountCommand) run(ctx context.Context, dir, mountpoint string) error {
	if c.links != "relative" && c.links != "raw" {
		return usageErrorf("--links is relative or raw, not %q", c.links)
	}
	if c.daemon {
		return c.start(ctx, dir, mountpoint)
	}
	if c.log != "" {
		log, err := openLog(c.log)
		if err != nil {
			return err
		}
		defer log.Close()
		c.s.err = log
	}
	err := c.serve(ctx, dir, mountpoint)
	if c.readyFD > 0 && err != nil {
		tellParent(c.readyFD, startMessage{Error: err.Error(), Code: exitCode(ctx, err)})
	}
	return err
}

// gcPercent makes the server collect garbage twice as often as usual: nearly all
// that it holds are decoded blocks, which cost the collector nothing.
const gcPercent = 50

// serve mounts and serves until the mount ends.
func (c *mountCommand) serve(ctx context.Context, dir, mountpoint string) error {
	debug.SetGCPercent(gcPercent)
	view, err := newMountView(dir, c.limits, func(err error) { c.logf("%v", err) })
	if err != nil {
		return err
	}
	defer view.Close()
	server, err := fusefs.Mount(view, mountpoint, fusefs.Options{
		Name:       dir,
		RawLinks:   c.links == "raw",
		AllowOther: c.allowOther,
		XAttrs:     c.xattrs,
		Avoid:      []string{dir, spoolDir(), c.log},
		Logf:       c.logf,
	})
	if err != nil {
		return err
	}
	c.ready(dir, mountpoint)
	view.tend()
	context.AfterFunc(ctx, func() { notifyManager("STOPPING=1") })
	err = wait(ctx, server)
	notifyManager("STOPPING=1")
	return err
}

// ready says that the mount can be used to whoever waits for that.
func (c *mountCommand) ready(dir, mountpoint string) {
	if c.readyFD > 0 {
		c.logf("mounted %s on %s", dir, mountpoint)
		tellParent(c.readyFD, startMessage{})
		c.readyFD = 0 // it is closed
	} else {
		fmt.Fprintf(c.s.out, "mounted %s on %s; Ctrl-C unmounts\n", dir, mountpoint)
	}
	notifyManager("READY=1")
}

// logf writes a message; to a file, with the time.
func (c *mountCommand) logf(format string, args ...any) {
	prefix := "narvault: "
	if c.log != "" {
		prefix = time.Now().Format("2006-01-02 15:04:05 ") + prefix
	}
	fmt.Fprintf(c.s.err, "%s%s\n", prefix, message(fmt.Sprintf(format, args...)))
}

// wait serves until the mount ends. The first signal, which ends ctx, unmounts
// as soon as nobody uses the mount; a second one detaches it at once, a third
// one cuts off who still uses it.
func wait(ctx context.Context, server *fusefs.Server) error {
	// Caught from now on: main lets the second signal end the process.
	again := make(chan os.Signal, 4)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(again)
	first := ctx.Err() == nil // the one that ends ctx comes here, too
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case sig := <-again:
				// A terminal that closes may send SIGHUP twice; nobody is in a hurry then.
				if !first && sig != syscall.SIGHUP {
					server.Detach() // Wait says how it ended
				}
				first = false
			case <-ended:
				return
			}
		}
	}()
	return server.Wait(ctx)
}
