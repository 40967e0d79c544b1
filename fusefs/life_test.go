package fusefs

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// These tests are about how mounts begin and end.

// patience is when a test gives up waiting for what has to come: on a machine
// that does twenty other things at once, everything may take long.
const patience = time.Minute

// soon fails the test unless c yields.
func soon[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: nothing after %v", what, patience)
	}
	return v
}

// waiting mounts the sample and waits for its end in a goroutine.
func waiting(t *testing.T, o Options) (s *Server, stop func(), done <-chan error) {
	t.Helper()
	testenv.Need(t, "fuse")
	b, _ := sample(t)
	if o.Logf == nil {
		o.Logf = t.Logf
	}
	s, err := Mount(b, t.TempDir(), o)
	must(t, err)
	t.Cleanup(func() { s.Detach() })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := make(chan error, 1)
	go func() { c <- s.Wait(ctx) }()
	return s, cancel, c
}

// user starts a shell script that uses a file of the mount until it is ended.
func user(t *testing.T, script string, args ...string) (end func()) {
	t.Helper()
	return userOf(t, exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...))
}

// userOf is user for any program: it says when it is ready, and ends with its
// standard input.
func userOf(t *testing.T, cmd *exec.Cmd) (end func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	ended := false
	end = func() {
		if !ended {
			ended = true
			in.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s: %q, %v", cmd, line, err)
	}
	return end
}

const (
	inDirectory   = `cd "$1/store"; echo ready; read x || true`
	withOpenFile  = `exec 3< "$1"; echo ready; read x || true; cat <&3 > /dev/null`
	inOwnMountsNS = `exec unshare -m sh -c 'echo ready; read x || true'`
)

func TestCancelUnmounts(t *testing.T) {
	s, stop, done := waiting(t, Options{})
	sh(t, `cat "$1/store/$2"`, s.Mountpoint(), string(filePath))
	stop()
	if err := soon(t, "Wait", done); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := mountAt(s.Mountpoint()); err != errNotMounted {
		t.Errorf("after Wait: %v", err)
	}
	soon(t, "Done", s.Done())
	if n, _ := s.fs.trees.size(); n != 0 {
		t.Errorf("%d trees are open", n)
	}
	if err := s.Unmount(); err != nil {
		t.Errorf("Unmount after the end: %v", err)
	}
	if err := s.Detach(); err != nil {
		t.Errorf("Detach after the end: %v", err)
	}
}

func TestOthersMayUnmount(t *testing.T) {
	for _, command := range []string{`umount "$1"`, `fusermount3 -u "$1"`} {
		s, _, done := waiting(t, Options{})
		sh(t, command, s.Mountpoint())
		if err := soon(t, "Wait", done); err != nil {
			t.Errorf("%s: Wait: %v", command, err)
		}
	}
}

func TestBusyMountKeepsServing(t *testing.T) {
	s, stop, done := waiting(t, Options{})
	end := user(t, inDirectory, s.Mountpoint())
	if err := s.Unmount(); !errors.Is(err, ErrBusy) {
		t.Errorf("Unmount: %v, want ErrBusy", err)
	}
	stop()
	select {
	case err := <-done:
		t.Fatalf("Wait returns %v though the mount is in use", err)
	case <-time.After(3 * retry):
	}
	sh(t, `cat "$1/store/$2"`, s.Mountpoint(), string(filePath))
	end()
	if err := soon(t, "Wait after the last user", done); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestDetachWaitsForReaders(t *testing.T) {
	s, stop, done := waiting(t, Options{Linger: time.Minute})
	end := user(t, withOpenFile, s.Mountpoint()+"/store/"+string(samplePath)+"/big")
	stop()
	must(t, s.Detach())
	sh(t, `test -z "$(ls "$1")"`, s.Mountpoint())
	end() // it reads to the end first
	if err := soon(t, "Wait", done); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestDetachCutsOff(t *testing.T) {
	s, stop, done := waiting(t, Options{Linger: 100 * time.Millisecond})
	user(t, inDirectory, s.Mountpoint())
	stop()
	must(t, s.Detach())
	if err := soon(t, "Wait", done); !errors.Is(err, ErrCutOff) {
		t.Errorf("Wait: %v, want ErrCutOff", err)
	}
}

func TestSecondDetachCutsOffNow(t *testing.T) {
	s, _, done := waiting(t, Options{Linger: time.Hour})
	user(t, inDirectory, s.Mountpoint())
	must(t, s.Detach())
	must(t, s.Detach())
	if err := soon(t, "Wait", done); !errors.Is(err, ErrCutOff) {
		t.Errorf("Wait: %v, want ErrCutOff", err)
	}
}

func TestActiveReadersAreNotCutOff(t *testing.T) {
	const linger = time.Second // in which even a busy machine lets the reader have his turn
	s, stop, done := waiting(t, Options{Linger: linger})
	end := userOf(t, childCommand("reads", s.Mountpoint()+"/store/"+string(samplePath)+"/big"))
	stop()
	must(t, s.Detach())
	select {
	case err := <-done:
		t.Errorf("while it was read: %v", err)
	case <-time.After(linger * 3 / 2):
	}
	end()
	if err := soon(t, "Wait", done); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// Who waits for a slow archive is not idle; what hangs is given up on.
func TestSlowAnswersAreWaitedFor(t *testing.T) {
	testenv.Need(t, "fuse")
	for _, hangs := range []bool{false, true} {
		b, _ := sample(t)
		asked, answer := make(chan struct{}), make(chan struct{})
		var once sync.Once
		b.fault = func(storepath.Path, int64, int) error {
			once.Do(func() { close(asked) })
			<-answer
			return nil
		}
		const linger = 100 * time.Millisecond
		s, err := Mount(b, t.TempDir(), Options{Linger: linger, Logf: t.Logf})
		must(t, err)
		name := s.Mountpoint() + "/store/" + string(samplePath) + "/big"
		read := make(chan error, 1)
		go func() {
			// Not by the Go runtime, which would not end while it waits for a file.
			read <- exec.Command("dd", "if="+name, "of=/dev/null", "bs=4096", "count=1", "status=none").Run()
		}()
		soon(t, "read", asked)
		done := make(chan error, 1)
		go func() { done <- s.Wait(context.Background()) }()
		must(t, s.Detach())
		if hangs {
			if err := soon(t, "Wait", done); !errors.Is(err, ErrCutOff) {
				t.Errorf("Wait: %v, want ErrCutOff", err)
			}
			close(answer)
			if err := soon(t, "reader", read); err == nil {
				t.Error("the reader got something from a connection that was aborted")
			}
			continue
		}
		select {
		case err := <-done:
			t.Errorf("Wait did not wait for the answer: %v", err)
		case <-time.After(2 * linger):
		}
		close(answer)
		if err := soon(t, "reader", read); err != nil {
			t.Errorf("the reader was cut off: %v", err)
		}
		if err := soon(t, "Wait", done); err != nil {
			t.Errorf("Wait: %v", err)
		}
	}
}

func TestPrivateCopyDoesNotHang(t *testing.T) {
	testenv.Need(t, "root", "unshare")
	for _, how := range []string{"cancel", "umount"} {
		s, stop, done := waiting(t, Options{Linger: 100 * time.Millisecond})
		end := user(t, inOwnMountsNS)
		if how == "cancel" {
			stop()
		} else {
			sh(t, `umount "$1"`, s.Mountpoint())
		}
		if err := soon(t, how, done); err != nil {
			t.Errorf("%s: Wait: %v", how, err)
		}
		end()
	}
}

func TestMountRefuses(t *testing.T) {
	testenv.Need(t, "fuse")
	b, _ := sample(t)
	dir := t.TempDir()
	sub := func(name string) string {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(p, 0755))
		return p
	}
	write(t, filepath.Join(dir, "file"), "", 0644)
	write(t, filepath.Join(sub("full"), "x"), "", 0644)
	must(t, os.Symlink(sub("backup/deep"), filepath.Join(dir, "link")))
	for _, c := range []struct {
		name, mountpoint, avoid, want string
	}{
		{"absent", filepath.Join(dir, "absent"), "", "there is no such directory"},
		{"a file", filepath.Join(dir, "file"), "", "that is no directory"},
		{"not empty", filepath.Join(dir, "full"), "", "not empty"},
		{"the backup", sub("a"), sub("a"), "overlaps"},
		{"in the backup", sub("b/c/d"), sub("b"), "overlaps"},
		{"above the backup", sub("e"), sub("e/f/g"), "overlaps"},
		{"through a symlink", filepath.Join(dir, "link"), sub("backup"), "overlaps"},
		{"above a future index", sub("h"), filepath.Join(dir, "h/index"), "overlaps"},
	} {
		s, err := Mount(b, c.mountpoint, Options{Avoid: []string{c.avoid}})
		if err == nil {
			s.Detach()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.mountpoint) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if s, err := Mount(b, sub("b2"), Options{Avoid: []string{sub("b")}}); err != nil {
		t.Errorf("a mountpoint beside the backup: %v", err)
	} else {
		must(t, s.Unmount())
	}
}

func TestMountRefusesBindOfBackup(t *testing.T) {
	testenv.Need(t, "fuse", "root")
	b, _ := sample(t)
	dir, bound := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0755))
	must(t, syscall.Mount(dir, bound, "", syscall.MS_BIND, ""))
	defer syscall.Unmount(bound, 0)
	if s, err := Mount(b, filepath.Join(bound, "empty"), Options{Avoid: []string{dir}}); err == nil {
		s.Detach()
		t.Error("mounted inside the backup by another name")
	}
}

func TestBackupThatCannotBeListed(t *testing.T) {
	testenv.Need(t, "fuse")
	b, _ := sample(t)
	b.listErr = errors.New("no such backup")
	dir := t.TempDir()
	if _, err := Mount(b, dir, Options{}); !errors.Is(err, b.listErr) {
		t.Errorf("Mount: %v", err)
	}
	if _, err := mountAt(dir); err != errNotMounted {
		t.Error("it is mounted nevertheless")
	}
}

func TestDoubleMount(t *testing.T) {
	s, _, _ := waiting(t, Options{Name: "one"})
	b, _ := sample(t)
	other, err := Mount(b, s.Mountpoint(), Options{})
	if err == nil {
		other.Detach()
	}
	if err == nil || !strings.Contains(err.Error(), "narvault:one is mounted there already") {
		t.Errorf("second mount: %v", err)
	}
	sh(t, `cat "$1/store/$2"`, s.Mountpoint(), string(filePath))
}

func TestStaleMountIsHealed(t *testing.T) {
	testenv.Need(t, "fuse")
	dir := t.TempDir()
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() }) // if all else fails
	cmd := childCommand("serve", dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if got := shFails(t, `ls "$1"`, dir); !strings.Contains(got, "not connected") {
		t.Fatalf("the mount is not stale: %s", got)
	}
	b, _ := sample(t)
	s, err := Mount(b, dir, Options{Logf: t.Logf})
	must(t, err)
	sh(t, `cat "$1/store/$2"`, dir, string(filePath))
	must(t, s.Unmount())
	if _, err := mountAt(dir); err != errNotMounted {
		t.Error("the dead mount is still below")
	}
}

func TestAbortedConnection(t *testing.T) {
	testenv.Need(t, "root")
	s, _, done := waiting(t, Options{})
	const control = "/sys/fs/fuse/connections"
	if _, err := os.Stat(filepath.Join(control, s.mount.connection())); err != nil {
		must(t, syscall.Mount("none", control, "fusectl", 0, ""))
		t.Cleanup(func() { syscall.Unmount(control, syscall.MNT_DETACH) })
	}
	s.abort()
	if err := soon(t, "Wait", done); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := mountAt(s.Mountpoint()); err != errNotMounted {
		t.Error("a dead mount is left")
	}
}

func TestParseMounts(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
22 27 0:21 / /a\040b\134c rw,relatime - fuse.narvault narvault:x\011y rw
`
	all, err := parseMounts(strings.NewReader(text))
	must(t, err)
	want := []mountEntry{
		{"36", "35", "98:0", "/mnt2", "ext3", "/dev/root"},
		{"22", "27", "0:21", `/a b\c`, "fuse.narvault", "narvault:x\ty"},
	}
	if len(all) != 2 || all[0] != want[0] || all[1] != want[1] || all[1].connection() != "21" {
		t.Errorf("got %+v", all)
	}
	for _, bad := range []string{"x", "1 2 3 4 5 6 7", "1 2 0:1 / /a rw - fuse"} {
		if _, err := parseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
