package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "enter" {
		if err := Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// store makes a directory with one store path in it.
func store(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"p/bin/tool": "#!/bin/sh\necho tool \"$@\"\n", "p/bin/orphan": "#!/no/interpreter\n", "p/bin/text": "text"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o755)
		if name == "p/bin/text" {
			mode = 0o644
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run runs a shell command and returns what it prints.
func run(t *testing.T, storeDir string, args ...string) (string, *os.ProcessState, error) {
	t.Helper()
	var out bytes.Buffer
	c := Command{
		Store: store(t), StoreDir: storeDir, Root: t.TempDir(), Dir: "/tmp",
		Args: args, Env: []string{"PATH=" + storeDir + "/p/bin:/usr/bin:/bin"}, Stdout: &out, Stderr: &out,
	}
	state, err := c.Run([]string{os.Args[0], "enter"}, Hooks{})
	return out.String(), state, err
}

// storeDirs are store directories that are there, and that are not, anywhere.
func storeDirs(t *testing.T) map[string]string {
	there := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(there, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(there, "hidden"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"there":        there,
		"not there":    filepath.Join(t.TempDir(), "not/there"),
		"at the root":  "/narvault-test-not-there/store",
		"in /usr":      "/usr/narvault-test-not-there/store",
		"one level":    "/narvault-test-not-there",
		"beside a lib": "/usr/lib/narvault-test-not-there",
	}
}

// The store paths are where they belong, all else is as it was, and nobody else
// sees any of it.
func TestRun(t *testing.T) {
	testenv.Need(t, "root")
	for name, dir := range storeDirs(t) {
		t.Run(name, func(t *testing.T) {
			out, state, err := run(t, dir, "tool", "a", "b c")
			if err != nil || state.ExitCode() != 0 || out != "tool a b c\n" {
				t.Errorf("%q, %v, %v", out, state, err)
			}
			out, _, err = run(t, dir, "sh", "-c", "ls "+dir+"; pwd; ls -d /etc/passwd /dev/null /proc/self/status; ls -A / | wc -l; id -u")
			root, _ := os.ReadDir("/")
			entries := len(root)
			if strings.HasPrefix(dir, "/narvault") {
				entries++
			}
			want := fmt.Sprintf("p\n/tmp\n/dev/null\n/etc/passwd\n/proc/self/status\n%d\n0\n", entries)
			if err != nil || out != want {
				t.Errorf("%q, %v, want %q", out, err, want)
			}
			if name != "there" {
				if _, err := os.Stat(dir); err == nil {
					t.Errorf("%s is there outside", dir)
				}
			}
		})
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "TestRun") || strings.Contains(line, "narvault-test-not-there") {
			t.Errorf("outside there is the mount %s", line)
		}
	}
}

// How a command ends is passed on, and why it could not begin.
func TestEnd(t *testing.T) {
	testenv.Need(t, "root")
	dir := storeDirs(t)["there"]
	if _, state, err := run(t, dir, "sh", "-c", "exit 7"); err != nil || state.ExitCode() != 7 {
		t.Errorf("%v, %v", state, err)
	}
	if _, state, err := run(t, dir, "sh", "-c", "kill -TERM $$"); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("%v, %v", state, err)
	}
	for name, want := range map[string]StartErrorKind{
		"none": NotFound, "/no/where": NotFound, "/etc/passwd/x": NotFound,
		"orphan": NotExecutable, "text": NotExecutable, "/": NotExecutable, dir + "/p/bin/text": NotExecutable,
	} {
		_, _, err := run(t, dir, name)
		var start *StartError
		if !errors.As(err, &start) || start.Kind != want || !strings.Contains(start.Text, name) {
			t.Errorf("%s: %#v", name, err)
		}
	}
	c := Command{Store: "/no/where", StoreDir: dir, Args: []string{"true"}, Dir: "/"}
	_, err := c.Run([]string{os.Args[0], "enter"}, Hooks{})
	var start *StartError
	if !errors.As(err, &start) || start.Kind != Failed || !strings.Contains(start.Text, "/no/where") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// Signals reach the command from when it is started.
func TestSignal(t *testing.T) {
	testenv.Need(t, "root")
	dir := storeDirs(t)["there"]
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := Command{Store: store(t), StoreDir: dir, Root: t.TempDir(), Dir: "/no/where", Env: os.Environ(), Stdout: w,
		Args: []string{"sh", "-c", "trap 'exit 9' USR1; pwd; while :; do sleep 0.01; done"}}
	entered := false
	state, err := c.Run([]string{os.Args[0], "enter"}, Hooks{
		Started: func(p *os.Process) {
			go func() {
				line := make([]byte, 2)
				if n, err := r.Read(line); err != nil || string(line[:n]) != "/\n" {
					t.Errorf("read %q, %v", line[:n], err)
				}
				p.Signal(syscall.SIGUSR1)
			}()
		},
		Entered: func() { entered = true },
	})
	w.Close()
	if !entered {
		t.Error("nobody said that the command runs")
	}
	if err != nil || state.ExitCode() != 9 {
		t.Errorf("%v, %v", state, err)
	}
}
