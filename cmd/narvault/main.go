// Command narvault backs up Nix closures into a deduplicated binary cache,
// mounts that backup as a tree of files, and gets the store paths back out.
//
// This package knows flags, the terminal and exit codes; the work is done by
// packages backup and fusefs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "development"

func main() {
	caught := append(hangup(), os.Interrupt, syscall.SIGTERM)
	args, err := asCalled(os.Args)
	if err != nil {
		os.Exit(report(context.Background(), os.Stderr, err))
	}
	ctx, stop := signal.NotifyContext(context.Background(), caught...)
	// A second signal ends the process at once. (A mount asks for it itself.)
	context.AfterFunc(ctx, stop)
	code := run(ctx, args, streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		uncatch: func() { signal.Reset(caught...) },
	})
	stop()
	os.Exit(code)
}

// hangup is SIGHUP, unless whoever started us wants it ignored (nohup).
func hangup() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return nil
	}
	return []os.Signal{syscall.SIGHUP}
}

// streams are what a command reads and writes.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
	// uncatch lets signals end the process, for commands that have nothing to
	// clean up.
	uncatch func()
}

// uncaught marks such a command in its Annotations.
const uncaught = "signals end the process"

// run is narvault without the process around it. It returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return report(ctx, s.err, err)
}

const longHelp = `narvault backs up Nix closures into a deduplicated binary cache on any medium,
mounts that backup as a browsable tree, and gets the store paths back out.

BACKUP is a backup directory; every command that only reads takes any other
Nix binary cache directory as well. PATH is a path as in the mount
(releases/PROJECT/NAME/..., store/...), a store path, or the hash part of one.

Exit codes:
  0    all done
  1    failed
  2    wrong usage
  3    done in part: what was left out is named
  4    damage found
  5    the backup is busy or locked
  130  interrupted
(narvault run passes the exit code of its command through.)`

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "narvault",
		Short:         "Back up Nix closures, mount the backup, restore from it",
		Long:          longHelp,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("there is no command %q; \"narvault help\" lists them", args[0])
			}
			return cmd.Help()
		},
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if _, ok := cmd.Annotations[uncaught]; ok {
			s.uncatch()
		}
		return new(readLimits).fromEnvironment()
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%s; see \"%s --help\"", flagMessage(err), cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	for _, g := range commands() {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, c := range g.commands {
			cmd := c.cobra(s)
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	return root
}

// flagMessage says what is wrong with a flag, without the words of package
// strconv.
func flagMessage(err error) string {
	var invalid *pflag.InvalidValueError
	var number *strconv.NumError
	if !errors.As(err, &invalid) || !errors.As(err, &number) {
		return err.Error()
	}
	why := "is no number"
	if errors.Is(number, strconv.ErrRange) {
		why = "is too large a number"
	}
	return fmt.Sprintf("--%s: %q %s", invalid.GetFlag().Name, invalid.GetValue(), why)
}

// A group is what the help shows together.
type group struct {
	title    string
	commands []command
}

// commands returns all commands, in the order of the help.
func commands() []group {
	return []group{
		{"Backing up", []command{
			&backupCommand{},
			&copyCommand{},
			&signCommand{},
			&keygenCommand{},
		}},
		{"Looking", []command{
			&mountCommand{},
			&umountCommand{},
			&lsCommand{},
			&catCommand{},
			&findCommand{},
			&infoCommand{},
			&diffCommand{},
			&whyDependsCommand{},
		}},
		{"Restoring", []command{
			&restoreCommand{},
			&exportCommand{},
			&runCommand{},
			&enterCommand{},
		}},
		{"Keeping", []command{
			&forgetCommand{},
			&gcCommand{},
			&checkCommand{},
			&repairCommand{},
			&indexCommand{},
			&hydraCommand{},
		}},
	}
}

// A command is one subcommand: a struct with its flags.
type command interface {
	cobra(s streams) *cobra.Command
}

// argRange accepts between min and max arguments (max < 0: any number), with a
// message that shows how the command is used.
func argRange(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < min || max >= 0 && len(args) > max {
			problem := "too many arguments"
			if len(args) < min {
				problem = "arguments are missing"
			}
			return usageErrorf("%s: %s\nusage: %s", strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "), problem, cmd.UseLine())
		}
		return nil
	}
}
