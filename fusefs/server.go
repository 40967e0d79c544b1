package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server serves one mount. Its methods may be called concurrently.
type Server struct {
	fs    *fileSystem
	dir   string
	o     Options
	mount *mountEntry
	ended chan struct{} // closed when the kernel has closed the connection

	cut chan struct{} // closed by a second Detach

	mu       sync.Mutex
	detached bool // guarded by mu
	isCut    bool // guarded by mu: cut is closed
}

var (
	// ErrBusy is returned by Unmount while somebody uses files of the mount.
	ErrBusy = errors.New("the mount is in use")
	// ErrCutOff is returned by Wait when the mount was detached while in use
	// and somebody still had a part of it then. From now on their files fail.
	ErrCutOff = errors.New("the mount was still in use when it ended")
)

// Mountpoint returns the real path of the mountpoint.
func (s *Server) Mountpoint() string { return s.dir }

// Requests returns the counts of the kernel's requests.
func (s *Server) Requests() Requests { return s.fs.count.requests() }

// Done is closed when the kernel has closed the connection: nobody can have
// files open any more.
func (s *Server) Done() <-chan struct{} { return s.ended }

// Unmount takes the mount away, once. While it is in use it stays, and the error
// is a *BusyError, which is ErrBusy. The mount may be gone already; that is no
// error.
func (s *Server) Unmount() error {
	return busy(s.tryUnmount(), s.dir, s.mount)
}

// tryUnmount is Unmount, without a look at who uses the mount.
func (s *Server) tryUnmount() error {
	if !s.mounted() {
		return nil
	}
	return unmount(s.dir, false)
}

// Detach takes the mount out of the file system at once. Who has files of it
// open can go on reading until Wait returns. A second call makes Wait return now.
func (s *Server) Detach() error {
	s.mu.Lock()
	again := s.detached
	s.detached = again || s.mounted()
	if again && !s.isCut {
		s.isCut = true
		close(s.cut)
	}
	s.mu.Unlock()
	if again || !s.mounted() {
		return nil
	}
	return s.detach()
}

func (s *Server) detach() error { return unmount(s.dir, true) }

// retry is how long Wait waits after ErrBusy.
const retry = 250 * time.Millisecond

// askHolders is how often Wait looks who uses the mount: that means a look at
// all processes.
const askHolders = 2 * time.Second

// Wait returns when the mount has ended: by umount(8), by Detach, or, once ctx
// is cancelled, because it unmounts by itself. While the mount is in use then,
// it goes on serving and trying, so a second signal should call Detach.
//
// After that, Wait does not wait for the end of the connection. Nix commands
// keep private copies of all mounts, which hold it as long as they run. It is
// aborted as soon as nothing was asked of it for Options.Linger, and no answer is
// due any more, or not for ten times as long. That is no error, unless the mount
// was detached while in use: ErrCutOff.
func (s *Server) Wait(ctx context.Context) error {
	gone, stop := s.watch()
	defer stop()
	select {
	case <-s.ended:
		if s.mounted() {
			return s.detach() // aborted: a dead mount is left
		}
		return nil
	case <-gone:
	case <-ctx.Done():
		s.keepUnmounting(gone)
	}
	return s.linger()
}

// keepUnmounting tries to unmount until the mount is gone.
func (s *Server) keepUnmounting(gone <-chan struct{}) {
	said, asked := "", time.Time{}
	for {
		err := s.tryUnmount()
		if err == nil {
			return
		}
		if time.Since(asked) > askHolders {
			asked = time.Now()
			if text := busy(err, s.dir, s.mount).Error(); text != said {
				said = text
				s.o.Logf("%s: unmount: %s; still serving", s.dir, said)
			}
		}
		select {
		case <-s.ended:
			return
		case <-gone:
			return
		case <-time.After(retry):
		}
	}
}

// maxAnswers is how long a request that nobody else comes after is waited for,
// as a multiple of Options.Linger: whoever reads an archive that has to be
// decoded as a whole waits for long, and what hangs in a dead medium for ever.
const maxAnswers = 10

// linger serves after the mount is gone, until the connection ends or nobody
// uses it: for Options.Linger there was neither a request nor an answer, and
// nobody waits for one.
func (s *Server) linger() error {
	quiet := 0 // so many times Linger
	for last := int64(-1); quiet < maxAnswers; quiet++ {
		waiting, activity := s.fs.unanswered()
		if activity != last {
			quiet, last = 0, activity
		} else if waiting == 0 {
			break
		}
		select {
		case <-s.ended:
			return nil
		case <-s.cut:
			quiet = maxAnswers // enough
		case <-time.After(s.o.Linger):
		}
	}
	s.mu.Lock()
	detached := s.detached
	s.mu.Unlock()
	if !detached {
		s.o.Logf("%s: unmounted, but another mount namespace has a copy of it; leaving", s.dir)
	}
	s.abort()
	if detached {
		return ErrCutOff
	}
	return nil
}

// abort ends the connection, if the FUSE control file system is there. If not,
// the end of the process does it.
func (s *Server) abort() {
	file := "/sys/fs/fuse/connections/" + s.mount.connection() + "/abort"
	if os.WriteFile(file, []byte("1"), 0) != nil {
		return
	}
	select {
	case <-s.ended:
	case <-time.After(time.Second): // a request hangs in the backup
	}
}

// mounted reports whether the mount is where it was put, in our namespace.
func (s *Server) mounted() bool {
	all, err := mounts()
	if err != nil {
		return true // not known: let unmount find out
	}
	for _, m := range all {
		if m.id == s.mount.id && m.dev == s.mount.dev {
			return true
		}
	}
	return false
}

// watch closes gone when the mount is no longer in our namespace. The caller
// calls stop.
func (s *Server) watch() (gone chan struct{}, stop func()) {
	gone = make(chan struct{})
	quit := make(chan struct{})
	go func() {
		changes, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return // then the end of the connection has to do
		}
		defer changes.Close()
		for s.mounted() {
			select {
			case <-quit:
				return
			default:
				awaitChange(changes)
			}
		}
		close(gone)
	}()
	return gone, func() { close(quit) }
}

// awaitChange returns when a mount came or went since changes, a mountinfo
// file, was opened or last waited for; after a second anyway.
func awaitChange(changes *os.File) {
	fds := []unix.PollFd{{Fd: int32(changes.Fd()), Events: unix.POLLPRI}}
	unix.Poll(fds, 1000)
}

// unmount takes the topmost mount at dir away; lazily, when it is in use.
// fusermount3 is asked where we may not do it ourselves.
func unmount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if errors.Is(err, syscall.EPERM) {
		err = fusermount(dir, lazy)
	}
	if errors.Is(err, syscall.EBUSY) {
		return ErrBusy
	}
	return err
}

// fusermount runs the setuid program that unmounts for ordinary users.
func fusermount(dir string, lazy bool) error {
	args := []string{"-u", "--", dir}
	if lazy {
		args = []string{"-u", "-z", "--", dir}
	}
	var last error
	for _, program := range []string{"fusermount3", "fusermount"} {
		cmd := exec.Command(program, args...)
		cmd.Dir = "/" // never in the mount
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[*exec.ExitError](err); ok {
			return fusermountError(program, string(out))
		}
		last = err
	}
	return last
}

// fusermountError makes an error of the message of fusermount, which has one
// exit status for everything.
func fusermountError(program, message string) error {
	message = strings.TrimSpace(message)
	if strings.HasSuffix(strings.ToLower(message), syscall.EBUSY.Error()) {
		return syscall.EBUSY
	}
	return fmt.Errorf("%s: %s", program, message)
}
