// Package namespace runs a command that finds a directory of store paths, such as
// store/ of a mounted backup, at the store directory that they were built for.
//
// The command gets a mount namespace of its own, so that nobody else sees
// anything of it. Root needs no more than that; anybody else gets a user
// namespace as well, with his own user and group in it, where he may mount. The
// process that serves the directory must stay outside: one that meets its own
// mount waits for itself and cannot even be killed.
//
// Where the machine has the store directory, the other one is mounted over it.
// Where it has not, the command gets a root of its own: a tmpfs into which
// everything of the old root is bound, and beside it the store directory.
//
// # How it is started
//
// A Go program cannot fork, and cannot change the namespace of one thread without
// trouble for the others. So the kernel makes the namespaces with the process
// (clone(2)), which is this program once more, told by its arguments to call
// Enter; that mounts and becomes the command (execve(2)). It reads what to do
// from one pipe, and says on another that it has mounted, upon which it waits
// until the first pipe is closed, or what failed; execve closes the second pipe.
package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Command is what is run, and where.
type Command struct {
	Store    string   // directory with store paths
	StoreDir string   // where they belong, usually /nix/store
	Root     string   // an empty directory that may be covered by a root of the command's own
	Args     []string // the command, looked for in PATH of Env if it has no slash
	Env      []string
	Dir      string // working directory, absolute; "/" if it is not there in the namespace

	Stdin  io.Reader `json:"-"`
	Stdout io.Writer `json:"-"`
	Stderr io.Writer `json:"-"`
}

// A StartError says why a command was not started.
type StartError struct {
	Text string
	// Kind is NotFound or NotExecutable when it is the command itself that is
	// at fault.
	Kind StartErrorKind
}

// A StartErrorKind tells why a command was not started.
type StartErrorKind int

// What may be wrong: the rest, that there is no such command, that it cannot be
// executed.
const (
	Failed StartErrorKind = iota
	NotFound
	NotExecutable
)

func (e *StartError) Error() string { return e.Text }

// A report is what the child says.
type report struct {
	Entered bool
	Failed  *StartError
}

// Hooks are told how Run goes on; each may be nil.
type Hooks struct {
	Started func(*os.Process)
	Entered func()
}

// The descriptors of the pipes in the child.
const (
	specFD   = 3
	reportFD = 4
)

// Run runs the command to its end and returns its state. self are the arguments
// with which this program calls Enter. The error is a *StartError if the command
// was not started.
//
// h.Started is called when the process of the command is there; it may send it
// signals until Run returns. h.Entered is called before the command begins, when
// it has its own mount of Store: whoever mounted that may take it away.
//
// The command is killed when this process dies: who would serve its files?
func (c Command) Run(self []string, h Hooks) (*os.ProcessState, error) {
	// The kernel kills the child when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		specR.Close()
		return nil, err
	}
	defer reportR.Close()
	cmd, err := c.start(self, []*os.File{specR, reportW})
	specR.Close()
	reportW.Close()
	if err != nil {
		return nil, &StartError{Text: explain(err)}
	}
	if h.Started != nil {
		h.Started(cmd.Process)
	}
	// The child may be dead already; then its exit status says it.
	json.NewEncoder(specW).Encode(c)
	reports := json.NewDecoder(reportR)
	var r report
	if reports.Decode(&r) == nil && r.Entered {
		if h.Entered != nil {
			h.Entered()
		}
		specW.Close()
		reports.Decode(&r)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case r.Failed != nil:
		return nil, r.Failed
	case err != nil && !errors.As(err, &exit):
		return nil, err
	}
	return cmd.ProcessState, nil
}

// start starts the child, as root without a user namespace if that is allowed.
func (c Command) start(self []string, pipes []*os.File) (*exec.Cmd, error) {
	var errs []error
	if os.Geteuid() == 0 {
		cmd := c.child(self, pipes, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS})
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		errs = append(errs, err)
	}
	cmd := c.child(self, pipes, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		// What the new user may do in his namespace ends with an execve, unless it
		// is said that it shall not.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT},
	})
	err := cmd.Start()
	return cmd, errors.Join(append(errs, err)...)
}

func (c Command) child(self []string, pipes []*os.File, attr *syscall.SysProcAttr) *exec.Cmd {
	attr.Pdeathsig = syscall.SIGKILL
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: self, Dir: "/",
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		ExtraFiles: pipes, SysProcAttr: attr,
	}
}

// explain says what to do when there can be no namespace.
func explain(err error) string {
	text := fmt.Sprintf("make a private namespace: %v", err)
	if os.Geteuid() == 0 {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			text += ": the root of this container may not: run it outside, or let the container have the capability SYS_ADMIN"
		}
		return text
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		text += ": this system does not let its users make user namespaces " +
			"(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): " +
			"change that, or run it as root"
	}
	return text
}
