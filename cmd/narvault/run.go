package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/fusefs/namespace"
	"github.com/narvault/narvault/narread/storepath"
)

// runCommand is "narvault run".
type runCommand struct {
	s      streams
	limits readLimits
}

// The exit codes of run that are not the command's own, as env(1) and shells
// have them.
const (
	exitRunFailed     = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the number of the signal
)

// enterCommandName is how this program calls itself in the namespace.
const enterCommandName = "run-in-namespace"

func (c *runCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:         "run BACKUP P/N|STORE-PATH... [-- COMMAND...]",
		Short:       "Run a program straight from a backup",
		Annotations: map[string]string{uncaught: ""},
		Long: `Runs a program that finds the store paths of the backup where they were built for,
without restoring anything:

  narvault run /media/backup disnix/disnix-0.3 -- disnix-env --version

The bin directories of what the release was made for, or of the store paths, come
first in PATH. Without COMMAND, a shell is run. Nix need not be there, nor
/nix/store; where it is, the program sees the backup's store paths in its place,
and all else as it is. Nobody but the program and what it starts sees anything of
this. When it ends, so does the mount that serves it.

Exit codes: those of the command; 125 narvault failed, 126 the command cannot be
executed, 127 it is not found, 128 + N it was killed by signal N.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, command := args, []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				names, command = args[:at], args[at:]
			}
			if len(names) < 2 {
				return usageErrorf("%s: arguments are missing\nusage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			err := c.run(names[0], names[1:], command)
			var usage *usageError
			var status *statusError
			if err == nil || errors.As(err, &usage) || errors.As(err, &status) || errors.Is(err, backup.ErrReleaseID) {
				return err
			}
			return &codedError{err.Error(), runCode(err)}
		},
	}
	c.limits.addFlags(cmd.Flags())
	return cmd
}

// runCode is the exit code for what went wrong before the command ran.
func runCode(err error) int {
	var start *namespace.StartError
	if errors.As(err, &start) {
		switch start.Kind {
		case namespace.NotFound:
			return exitNotFound
		case namespace.NotExecutable:
			return exitNotExecutable
		}
	}
	return exitRunFailed
}

// A statusError is the exit code of a command that was run; there is nothing to
// say about it.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

func (c *runCommand) run(dir string, names, command []string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	storeDir := b.Cache.StoreDir()
	bins, err := c.bins(b, names)
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	spec := namespace.Command{
		StoreDir: storeDir, Args: command, Env: withPath(os.Environ(), bins),
		Stdin: c.s.in, Stdout: c.s.out, Stderr: c.s.err,
	}
	if len(command) == 0 {
		spec.Args = []string{shell()}
	}
	if spec.Dir, err = os.Getwd(); err != nil {
		spec.Dir = "/"
	}
	return c.mounted(dir, spec)
}

// bins returns the bin directories for PATH.
func (c *runCommand) bins(b *backup.Backup, names []string) ([]string, error) {
	var bins []string
	for _, name := range names {
		paths, err := runRoots(b, name)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			bins = append(bins, p.In(b.Cache.StoreDir())+"/bin")
		}
	}
	return bins, nil
}

// runRoots returns the store paths that an argument of run stands for.
func runRoots(b *backup.Backup, name string) ([]storepath.Path, error) {
	if whole := wholePaths(b, name); whole != nil {
		return whole, nil
	}
	place, err := find(b, name)
	if err != nil {
		return nil, err
	}
	if n := place.Node; n != nil {
		defer n.Close()
		if n.Entry != 0 {
			return nil, usageErrorf("%s is in a store path: give the store path, and the program behind --", name)
		}
		return []storepath.Path{n.Path}, nil
	}
	roots, err := b.RootsIn(place.ID, "")
	var paths []storepath.Path
	for _, root := range roots {
		if !root.Path.IsDerivation() {
			paths = append(paths, root.Path)
		}
	}
	return paths, err
}

// withPath puts directories before the PATH of an environment.
func withPath(env, dirs []string) []string {
	if old := os.Getenv("PATH"); old != "" {
		dirs = append(dirs, old)
	}
	env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") })
	return append(env, "PATH="+strings.Join(dirs, ":"))
}

// shell returns the user's shell.
func shell() string {
	if name := os.Getenv("SHELL"); name != "" {
		return name
	}
	return "sh"
}

// mounted runs a command beside a mount of the backup that is only for it.
func (c *runCommand) mounted(dir string, spec namespace.Command) (err error) {
	temp, err := os.MkdirTemp("", "narvault-run-")
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	mnt := filepath.Join(temp, "backup")
	spec.Store, spec.Root = filepath.Join(mnt, "store"), filepath.Join(temp, "root")
	for _, d := range []string{mnt, spec.Root} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
		defer os.Remove(d)
	}
	warn := func(err error) { fmt.Fprintf(c.s.err, "narvault: %s\n", message(err.Error())) }
	view, err := newMountView(dir, c.limits, warn)
	if err != nil {
		return err
	}
	defer view.Close()
	server, err := fusefs.Mount(view, mnt, fusefs.Options{
		Name: dir, RawLinks: true, Avoid: []string{dir, spoolDir()}, Linger: time.Second,
		Logf: func(format string, args ...any) { warn(fmt.Errorf(format, args...)) },
	})
	if err != nil {
		return err
	}
	defer end(server)
	view.tend()
	// From when the command has its own mount, nobody else needs one: should this
	// process be killed, nothing is left of it.
	return c.wait(spec, func() { server.Detach() })
}

// end ends the mount. What the command left running loses it, too, when it has
// not used it for a while.
func end(server *fusefs.Server) {
	if server.Unmount() != nil { // it is there only if the command did not start
		server.Detach()
	}
	server.Wait(context.Background()) // the command is done: nothing depends on how this ends
}

// wait runs the command and passes signals on. It calls entered when the command
// has its own mount.
func (c *runCommand) wait(spec namespace.Command, entered func()) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(hangup(), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGCHLD)...)
	defer signal.Stop(signals)
	ended := make(chan struct{})
	defer close(ended)
	state, err := spec.Run([]string{"narvault", enterCommandName}, namespace.Hooks{
		Started: func(p *os.Process) { go passOn(p, signals, ended) },
		Entered: entered,
	})
	if err != nil {
		return err
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return &statusError{exitSignal + int(status.Signal())}
	case state.ExitCode() != 0:
		return &statusError{state.ExitCode()}
	}
	return nil
}

// passOn passes signals on to a process until ended is closed. Those that a
// terminal sends, it sends to both of us.
func passOn(p *os.Process, signals <-chan os.Signal, ended <-chan struct{}) {
	tty := foreground()
	for {
		select {
		case sig := <-signals:
			switch {
			case sig == syscall.SIGCHLD:
				if tty && stopped(p) {
					syscall.Kill(os.Getpid(), syscall.SIGTSTP) // until SIGCONT, which is passed on
				}
			case tty && (sig == syscall.SIGINT || sig == syscall.SIGQUIT):
			default:
				p.Signal(sig) // it may have ended; then nothing has to be done
			}
		case <-ended:
			return
		}
	}
}

// stopLag is how long a process is to be stopped before we are as well: on Ctrl-Z,
// and when that is over, both of us get a signal, one before the other.
const stopLag = 20 * time.Millisecond

// stopped reports whether a process is stopped. Then we have to be, too, or the
// shell that waits for us never gets the terminal back: the suspend of a shell
// stops itself only.
func stopped(p *os.Process) bool {
	is := func() bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.Pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
		return err == nil && info.Signo != 0
	}
	if !is() {
		return false
	}
	time.Sleep(stopLag)
	return is()
}

// foreground reports whether Ctrl-C on a terminal reaches us.
func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	return term.IsTerminal(int(tty.Fd()))
}

// enterCommand is what run starts in the namespace.
type enterCommand struct{}

func (c *enterCommand) cobra(streams) *cobra.Command {
	return &cobra.Command{
		Use:         enterCommandName,
		Hidden:      true,
		Annotations: map[string]string{uncaught: ""},
		Args:        argRange(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if err := namespace.Enter(); err != nil {
				return &codedError{err.Error(), exitRunFailed}
			}
			return &statusError{exitRunFailed}
		},
	}
}
