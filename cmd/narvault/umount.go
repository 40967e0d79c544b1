package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/fusefs"
)

// umountCommand is "narvault umount".
type umountCommand struct {
	detach bool
}

func (c *umountCommand) cobra(streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Take a mounted backup away",
		Long: `Takes a mounted backup away, also one whose server is gone, and nothing else.
The server ends by itself; one in the background has ended when umount returns, so
that the medium can be taken away next. While the mount is in use it stays (exit
code 5), and who uses it is named.`,
		Args: argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			servers := daemons(args[0])
			err := fusefs.Unmount(args[0], c.detach)
			if err == nil && !c.detach {
				awaitEnd(servers)
			}
			for _, server := range servers {
				unix.Close(server)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&c.detach, "detach", false, "take it away at once; who uses it can go on for a while")
	return cmd
}

// daemons returns pidfds of the processes that serve a mountpoint in the
// background, as serverCommand starts them. No file of the mount is touched: its
// server may hang.
func daemons(mountpoint string) (pidfds []int) {
	want := ofParent(mountpoint)
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || !serves(proc, want) {
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended, or the kernel is older than that
		}
		// It is still the same process.
		if !serves(proc, want) {
			unix.Close(pidfd)
			continue
		}
		pidfds = append(pidfds, pidfd)
	}
	return pidfds
}

// serves reports whether a process has the command line of a server in the
// background.
func serves(proc, mountpoint string) bool {
	text, err := os.ReadFile(proc + "/cmdline")
	args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	return err == nil && len(args) > 5 && args[1] == "mount" && slices.Contains(args, readyFlag) && ofParent(args[len(args)-1]) == mountpoint
}

// ofParent returns the path of a mountpoint without the symlinks on the way to it.
func ofParent(mountpoint string) string {
	path, err := filepath.Abs(mountpoint)
	if err != nil {
		return mountpoint
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

// endOfServer bounds the wait for a server whose mount is gone.
const endOfServer = 10 * time.Second

func awaitEnd(pidfds []int) {
	deadline := time.Now().Add(endOfServer)
	for _, pidfd := range pidfds {
		for {
			left := max(time.Until(deadline), 0)
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds()))
			if err != unix.EINTR {
				break
			}
		}
	}
}
