package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/narvault/narvault/narread/testenv/blockfs"
)

// cutPower stops everything after a while, and kills it when it has taken what
// the disk holds then: that is what restart mounts.
func (s *soak) cutPower(after time.Duration) error {
	time.Sleep(after)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
	for cmd := range s.running {
		if err := stop(cmd.Process.Pid); err != nil {
			return err
		}
	}
	err := s.disk.Cut(s.nextImage())
	for cmd := range s.running {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	s.cuts++
	return err
}

// nextImage is where the disk is after the next restart.
func (s *soak) nextImage() string { return s.path("image-" + strconv.Itoa(s.cuts%2)) }

// stop stops a process, and waits until none of its threads does anything any
// more. One that has ended is fine.
func stop(pid int) error {
	syscall.Kill(-pid, syscall.SIGSTOP)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if stopped(pid) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

func stopped(pid int) bool {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// proc_pid_stat(5): the state follows the name, which is in parentheses.
		state := text[bytes.LastIndexByte(text, ')')+2]
		if state != 'T' && state != 'Z' && state != 'X' {
			return false
		}
	}
	return true
}

// restart mounts what the power cut has left. Everything is read again.
func (s *soak) restart() error {
	old := s.disk.Image()
	if err := s.disk.Drop(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = false
	var err error
	if s.disk, err = blockfs.Mount(s.path("image-"+strconv.Itoa((s.cuts-1)%2)), s.path("disk")); err != nil {
		return err
	}
	clear(s.main.verified)
	clear(s.copy.verified)
	return os.Remove(old)
}
