package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// A Go program cannot fork itself: "mount --daemon" starts the same command
// again in a session of its own, with a pipe on which the server says how its
// start went.

// A startMessage is what the server says on the pipe, once; the zero value is
// that the mount is ready.
type startMessage struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"` // the exit code that goes with it
}

// A codedError has an exit code that another process found.
type codedError struct {
	text string
	code int
}

func (e *codedError) Error() string { return e.text }

// tellParent writes the message and closes the pipe. If nobody reads it any
// more, nobody needs it.
func tellParent(fd int, m startMessage) {
	pipe := os.NewFile(uintptr(fd), "ready pipe")
	defer pipe.Close()
	json.NewEncoder(pipe).Encode(m)
}

// start starts the server in the background and returns when the mount is ready
// or the server has failed.
func (c *mountCommand) start(ctx context.Context, dir, mountpoint string) error {
	logName, log, err := c.daemonLog()
	if err != nil {
		return err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd, err := c.serverCommand(dir, mountpoint, logName)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	if err := awaitStart(read, logName); err != nil {
		cmd.Wait()
		return err
	}
	fmt.Fprintf(c.s.out, "mounted %s on %s by process %d; narvault umount %s ends it; messages go to %s\n",
		dir, mountpoint, cmd.Process.Pid, word(mountpoint), logName)
	return nil
}

// awaitStart waits for the server's message.
func awaitStart(pipe io.Reader, logName string) error {
	var m startMessage
	switch err := json.NewDecoder(pipe).Decode(&m); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the server ended before the mount was ready; %s may say why", logName)
	case err != nil:
		return fmt.Errorf("wait for the server: %w", err)
	case m.Error != "":
		return &codedError{m.Error, m.Code}
	}
	return nil
}

// readyFlag names the pipe, the first of ExtraFiles.
const readyFlag = "--ready-fd=3"

// serverCommand is this command without --daemon. It has no working directory
// that anybody might want to unmount.
func (c *mountCommand) serverCommand(dir, mountpoint, logName string) (*exec.Cmd, error) {
	var err error
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if mountpoint, err = filepath.Abs(mountpoint); err != nil {
		return nil, err
	}
	args := append(c.limits.args(),
		"--links="+c.links, "--allow-other="+strconv.FormatBool(c.allowOther), "--xattrs="+strconv.FormatBool(c.xattrs),
		"--log="+logName, readyFlag, "--", dir, mountpoint)
	return &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{os.Args[0], "mount"}, args...),
		Dir:         "/",
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}, nil
}

// daemonLog opens the file of --log, or the default one.
func (c *mountCommand) daemonLog() (name string, log *os.File, err error) {
	name = c.log
	if name == "" {
		if name, err = stateFile("mount.log"); err != nil {
			return "", nil, fmt.Errorf("no place for messages (--log FILE names one): %w", err)
		}
	}
	if name, err = filepath.Abs(name); err != nil {
		return "", nil, err
	}
	log, err = openLog(name)
	return name, log, err
}

func openLog(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// stateFile returns the path of a file in narvault's part of the user's state
// directory (XDG Base Directory Specification), which it makes.
func stateFile(name string) (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	dir = filepath.Join(dir, "narvault")
	return filepath.Join(dir, name), os.MkdirAll(dir, 0o700)
}

// notifyManager tells the service manager how it goes, if it wants to know
// (sd_notify(3)). It is not told why if that fails: there is nobody else to tell.
func notifyManager(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	socket, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer socket.Close()
	socket.Write([]byte(state))
}
