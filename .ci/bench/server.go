package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A server is a process that serves a mount. The native tree is one without a
// process. The caller stops it.
type server struct {
	sys    *system
	dir    string // the mountpoint
	tree   string // where the store paths are
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	asked  int           // how often its requests were asked for
	native bool
}

// mountLog is what the servers say; it is shown when one does not come up.
const mountLog = "mount.log"

// start mounts a system and waits until the store path with the given name can
// be seen. It returns how long that took.
func start(ctx context.Context, sys *system, path string) (*server, time.Duration, error) {
	if sys.mount == "" {
		return &server{sys: sys, tree: sys.tree, native: true}, 0, nil
	}
	log, err := os.Create(mountLog)
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	dir, err := filepath.Abs("mnt")
	if err != nil {
		return nil, 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, 0, err
	}
	// Not bound to ctx: stop ends it, and in the right order.
	cmd := bash(context.WithoutCancel(ctx), "exec "+sys.mount)
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	s := &server{sys: sys, dir: dir, tree: filepath.Join(dir, sys.tree), cmd: cmd, ended: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(s.ended)
	}()
	if err := s.awaitReady(ctx, path); err != nil {
		said, _ := os.ReadFile(mountLog)
		return nil, 0, errors.Join(fmt.Errorf("mount %s: %w\n%s", sys.name, err, said), s.stop())
	}
	return s, time.Since(began), nil
}

// awaitReady waits until the store path can be seen. That is not asked before
// the mount is there: not to be found there would be remembered by the kernel.
func (s *server) awaitReady(ctx context.Context, path string) error {
	mounted := false
	return poll(ctx, 6*patience, func() (bool, error) {
		if s.hasEnded() {
			return false, errors.New("the server has ended")
		}
		if !mounted {
			mounts, err := mountsIn(s.dir)
			if mounted = len(mounts) > 0; !mounted || err != nil {
				return false, err
			}
		}
		_, err := os.Lstat(filepath.Join(s.tree, path))
		return err == nil, nil
	})
}

func (s *server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// stop unmounts and waits until the process has ended, which it does by
// itself unless another process has a private copy of the mount.
func (s *server) stop() error {
	if s.native {
		return nil
	}
	err := unmount(s.dir, false)
	for _, signal := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
		syscall.Kill(-s.cmd.Process.Pid, signal)
		if poll(context.Background(), patience, func() (bool, error) { return s.hasEnded(), nil }) == nil {
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("the server of %s does not end", s.sys.name))
}

// unmount takes the mount at dir away, if there is one: at once when that is
// wanted or if it stays busy.
func unmount(dir string, atOnce bool) error {
	args := []string{"fusermount3", "-u"}
	if os.Geteuid() == 0 {
		args = []string{"umount"}
	}
	detach := map[string]string{"fusermount3": "-z", "umount": "-l"}[args[0]]
	gone := func() (bool, error) {
		exec.Command(args[0], append(args[1:], dir)...).Run()
		mounts, err := mountsIn(dir)
		return len(mounts) == 0, err
	}
	if !atOnce && poll(context.Background(), patience, gone) == nil {
		return nil
	}
	args = append(args, detach)
	if err := poll(context.Background(), patience, gone); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// mountsIn returns the mountpoints that are dir or below it, the innermost
// first. The names that the kernel would escape do not occur here.
func mountsIn(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			out = append(out, f[4])
		}
	}
	slices.Reverse(out)
	return out, nil
}

// cpu returns the CPU time of the process until now.
func (s *server) cpu() (time.Duration, error) {
	if s.native {
		return 0, nil
	}
	return cpuTime(s.cmd.Process.Pid)
}

// memory returns the anonymous memory of the process.
func (s *server) memory() (int64, error) {
	if s.native {
		return 0, nil
	}
	return anonymous(s.cmd.Process.Pid)
}

// requests returns how many requests the kernel has made about the inside of
// store paths, unknown for the peers. The mount writes its status at most every
// now and then, so wait for one that is younger than this call.
func (s *server) requests(ctx context.Context) (int64, error) {
	if s.sys.status == "" {
		return unknown, nil
	}
	name := filepath.Join(s.dir, s.sys.status)
	called := time.Now()
	err := poll(ctx, patience, func() (bool, error) {
		// A new question each time, so that there is something new to write.
		s.asked++
		os.Lstat(fmt.Sprintf("%s.%d", name, s.asked))
		info, err := os.Stat(name)
		return err == nil && info.ModTime().After(called), err
	})
	if err != nil {
		return 0, fmt.Errorf("await the status of the mount: %w", err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	var status struct {
		Requests struct{ InPaths int64 }
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return status.Requests.InPaths, nil
}

const unknown = -1
