package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/narread/testenv"
)

// emptyCache makes a binary cache without store paths.
func emptyCache(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// umount runs "narvault umount".
func umount(args ...string) error {
	cmd := new(umountCommand).cobra(streams{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	return cmd.Execute()
}

func TestUmount(t *testing.T) {
	testenv.Need(t, "fuse")
	view, err := newMountView(emptyCache(t), defaultLimits(), func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	dir := t.TempDir()
	if err := umount(dir); !errors.Is(err, fusefs.ErrNotOurs) {
		t.Errorf("umount of a plain directory: %v", err)
	}
	if err := umount("/proc"); !errors.Is(err, fusefs.ErrNotOurs) || !strings.Contains(err.Error(), "type proc") {
		t.Errorf("umount of /proc: %v", err)
	}
	for _, args := range [][]string{{dir}, {"--detach", dir}} {
		server, err := fusefs.Mount(view, dir, fusefs.Options{Logf: t.Logf, Linger: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- server.Wait(context.Background()) }()
		cmd := exec.Command("sh", "-c", `cd "$1/store" && echo ready && read x`, "sh", dir)
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		bufio.NewReader(out).ReadString('\n')
		err = umount(dir)
		if !errors.Is(err, fusefs.ErrBusy) || !strings.Contains(err.Error(), "by sh (process ") {
			t.Errorf("umount of a busy mount: %v", err)
		}
		if len(args) == 1 {
			in.Close()
			cmd.Wait()
		}
		if err := umount(args...); err != nil {
			t.Errorf("umount %q: %v", args, err)
		}
		if err := <-done; err != nil {
			t.Errorf("Wait after umount %q: %v", args, err)
		}
		in.Close()
		cmd.Wait()
	}
}

func TestStartMessages(t *testing.T) {
	var failed bytes.Buffer
	json.NewEncoder(&failed).Encode(startMessage{Error: "no such backup", Code: 4})
	var coded *codedError
	if err := awaitStart(&failed, "LOG"); !errors.As(err, &coded) || coded.code != 4 || err.Error() != "no such backup" {
		t.Errorf("a failed start: %v", err)
	}
	if err := awaitStart(strings.NewReader("{}\n"), "LOG"); err != nil {
		t.Errorf("a good start: %v", err)
	}
	if err := awaitStart(strings.NewReader(""), "LOG"); err == nil || !strings.Contains(err.Error(), "LOG") {
		t.Errorf("a server that died: %v", err)
	}
}

func TestNotifyManager(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	notifyManager("READY=1")
	socket.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 100)
	n, err := socket.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", name+"-absent")
	notifyManager("READY=1") // nothing to be done
}
