package fusefs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

func TestHoldersAreNamed(t *testing.T) {
	b, _ := sample(t)
	program := path(7, "program")
	real, err := filepath.EvalSymlinks("/bin/sleep")
	must(t, err)
	b.add(t, program, real)
	s := mounted(t, b, Options{Logf: t.Logf})
	file := s.Mountpoint() + "/store/" + string(samplePath) + "/big"
	for _, c := range []struct {
		how, script, arg string
	}{
		{"cwd", inDirectory, s.Mountpoint()},
		{"open file", withOpenFile, file},
		{"mapped file", `"$1" 100 > /dev/null & echo ready; read x || true; kill $!; wait || true`, s.Mountpoint() + "/store/" + string(program)},
	} {
		end := user(t, c.script, c.arg)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var busy *BusyError
		for len(holders(s.mount)) == 0 && ctx.Err() == nil { // the program may not run yet
		}
		cancel()
		err := s.Unmount()
		if !errors.As(err, &busy) || !errors.Is(err, ErrBusy) || len(busy.Holders) != 1 || busy.Holders[0].How != c.how {
			t.Errorf("%s: %v", c.how, err)
		} else if name := busy.Holders[0].Command; name != "sh" && name != string(program)[:15] || busy.Holders[0].PID == 0 {
			t.Errorf("%s: %+v", c.how, busy.Holders[0])
		}
		end()
	}
	if h := holders(s.mount); len(h) != 0 {
		t.Errorf("nobody uses it, but: %v", h)
	}
}

func TestRootAndMountsAreHolders(t *testing.T) {
	testenv.Need(t, "root")
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	on := s.Mountpoint() + "/store/" + string(samplePath) + "/empty"
	must(t, syscall.Mount("none", on, "tmpfs", 0, ""))
	err := s.Unmount()
	if err == nil || !strings.HasSuffix(err.Error(), "by the mount on "+on) {
		t.Errorf("with a mount on top: %v", err)
	}
	must(t, syscall.Unmount(on, 0))
}

// The search for holders asks the server nothing, not even a stopped one.
func TestHoldersOfDeafMount(t *testing.T) {
	testenv.Need(t, "fuse")
	dir := t.TempDir()
	cmd := childCommand("serve", dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		exec.Command("umount", "-l", dir).Run()
	})
	out.Read(make([]byte, 6))
	end := user(t, inDirectory, dir)
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	done := make(chan error, 1)
	go func() { done <- Unmount(dir, false) }()
	err = soon(t, "Unmount", done)
	var busy *BusyError
	if !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].Command != "sh" {
		t.Errorf("Unmount: %v", err)
	}
	must(t, cmd.Process.Kill())
	end()
	cmd.Wait()
	if err := Unmount(dir, false); err != nil { // dead by now
		t.Errorf("Unmount of a dead mount: %v", err)
	}
	if err := Unmount(dir, false); !errors.Is(err, ErrNotOurs) {
		t.Errorf("Unmount of nothing: %v", err)
	}
	if err := Unmount(filepath.Join(dir, "absent"), false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Unmount of no directory: %v", err)
	}
}

func TestBusyErrorIsShort(t *testing.T) {
	e := &BusyError{Holders: make([]Holder, 30)}
	for i := range e.Holders {
		e.Holders[i] = Holder{PID: i + 1, Command: "x", How: "cwd"}
	}
	if text := e.Error(); !strings.HasSuffix(text, "x (process 10, cwd), 20 more") {
		t.Error(text)
	}
	if text := new(BusyError).Error(); !strings.Contains(text, "cannot be seen") {
		t.Error(text)
	}
}
