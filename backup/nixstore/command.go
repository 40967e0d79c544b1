package nixstore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// tailSize bounds what is kept of a command's standard error. Nix's error
	// message comes last; before it there may be megabytes of build log.
	tailSize = 8 << 10
	// waitDelay is how long a command may take to end after it was told to,
	// and how long a grandchild may hold its standard error open after it.
	waitDelay = 10 * time.Second
)

// A CommandError is a Nix command that ended with another exit status than 0,
// or that answered what it must not.
type CommandError struct {
	Command string // such as "nix-store --serve --write"
	Err     error  // *exec.ExitError, or what was wrong with the answer
	Stderr  string // the end of what it wrote there
}

func (e *CommandError) Error() string {
	text := fmt.Sprintf("%s: %v", e.Command, e.Err)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *CommandError) Unwrap() error { return e.Err }

// commands starts Nix's commands for one store.
type commands struct {
	url string
	env []string
}

// command prepares a Nix command that asks the store. On cancellation it gets
// SIGTERM, on which Nix ends its builders, and waitDelay later SIGKILL.
func (c commands) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	file, err := lookPath(c.env, name)
	if err != nil {
		return nil, err
	}
	if c.url != "" {
		args = append([]string{args[0], "--store", c.url}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Args[0] = name // Nix is one binary that looks at what it was called as
	cmd.Env = c.env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = waitDelay
	return cmd, nil
}

// output runs a command to its end and returns its standard output, which must
// be small.
func (c commands) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd, err := c.command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return out, finish(ctx, cmd, &stderr, err)
}

// finish turns the result of Run or Wait into an error that says which command
// it was and what it complained about.
func finish(ctx context.Context, cmd *exec.Cmd, stderr *tail, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s: %w", title(cmd), cause)
	}
	return &CommandError{Command: title(cmd), Err: err, Stderr: stderr.String()}
}

// title names a command in errors: its name and operation.
func title(cmd *exec.Cmd) string {
	if len(cmd.Args) < 2 {
		return cmd.Args[0]
	}
	return cmd.Args[0] + " " + cmd.Args[1]
}

// lookPath is exec.LookPath in the PATH of env instead of our own, because the
// child's PATH decides which Nix a caller means.
func lookPath(env []string, name string) (string, error) {
	for _, dir := range filepath.SplitList(getenv(env, "PATH")) {
		if !filepath.IsAbs(dir) {
			continue // as exec.LookPath: nothing from the current directory
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w: install Nix, or add the directory of its commands "+
		"(often /nix/var/nix/profiles/default/bin) to PATH", name, exec.ErrNotFound)
}

// getenv returns the value of a variable in env; as in os/exec the last one counts.
func getenv(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], key+"="); ok {
			return value
		}
	}
	return ""
}

// tail is an io.Writer that keeps the last tailSize bytes. Safe for concurrent
// use.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > tailSize {
		p, t.cut = p[len(p)-tailSize:], true
	}
	if over := len(t.buf) + len(p) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// String returns what was kept, without control characters: it ends up on
// terminals and in logs.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Map(printable, strings.TrimSpace(string(t.buf)))
	if t.cut {
		text = "..." + text
	}
	return text
}

func printable(r rune) rune {
	if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
		return '?'
	}
	return r
}
