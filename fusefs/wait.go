package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A waitError says that a request cannot be answered before something is ready
// that takes long. What makes it ready goes on, whoever waits for it.
type waitError struct {
	ready   <-chan struct{}
	outcome func() error // once it is ready
}

func (*waitError) Error() string { return "it is being made ready" }

// dyingPoll is how often a request whose process was sent a signal looks whether
// that kills it.
const dyingPoll = 50 * time.Millisecond

// patiently answers a request by do, again and again as long as that returns a
// waitError. It waits until what do needs is ready; if the kernel interrupts the
// request because its process is being killed, no longer.
//
// A signal that kills nobody does not end the wait, as on a disk: the kernel would
// not begin the request again but have the system call fail, which many programs
// do not expect of files, and Go programs interrupt themselves all the time
// (golang/go#40846). But what waits without end must be possible to kill.
func (f *fileSystem) patiently(cancel <-chan struct{}, caller fuse.Caller, do func() error) error {
	for {
		err := do()
		var w *waitError
		if !errors.As(err, &w) {
			return err
		}
		f.waiting.Add(1)
		err = w.wait(cancel, int(caller.Pid))
		f.waiting.Add(-1)
		if err != nil {
			return err
		}
	}
}

// wait returns the outcome once it is there.
func (w *waitError) wait(cancel <-chan struct{}, tid int) error {
	select {
	case <-w.ready:
		return w.outcome()
	case <-cancel: // which the kernel says once
	}
	poll := time.NewTicker(dyingPoll)
	defer poll.Stop()
	for !dying(tid) {
		select {
		case <-w.ready:
			return w.outcome()
		case <-poll.C:
		}
	}
	return fmt.Errorf("process %d is being killed: %w", tid, context.Canceled)
}

// dying reports whether a thread is being killed: whatever signal it is that does
// it, the kernel then gives each thread of the process a SIGKILL of its own. Of
// threads that are not to be seen from here (0, or another one's) it is not known.
func dying(tid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(status, []byte("\nSigPnd:\t"))
	mask, _, _ := bytes.Cut(rest, []byte("\n"))
	pending, err := strconv.ParseUint(string(mask), 16, 64)
	return err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0
}
