// Package testenv is what the tests of all packages share: real Nix, and the
// rule that in CI no test skips because something is missing.
package testenv

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireVar names the environment variable that lists, separated by spaces,
// what a machine must have: a test that needs it and does not find it fails
// there instead of skipping.
const RequireVar = "NARVAULT_REQUIRE"

// Need skips the test when the machine lacks one of needs, and fails it when
// $NARVAULT_REQUIRE names that need. A need is "root", "nix", "fuse",
// "postgresql" (the server's programs) or the name of a program in PATH.
func Need(t testing.TB, needs ...string) {
	t.Helper()
	for _, need := range needs {
		reason := missing(need)
		if reason == "" {
			continue
		}
		if slices.Contains(strings.Fields(os.Getenv(RequireVar)), need) {
			t.Fatalf("%s asks for %s, but %s", RequireVar, need, reason)
		}
		t.Skipf("needs %s: %s", need, reason)
	}
}

// missing returns why the machine cannot serve need, or "".
func missing(need string) string {
	switch need {
	case "root":
		if os.Geteuid() != 0 {
			return "the tests do not run as root"
		}
		return ""
	case "nix":
		return missingProgram("nix-store")
	case "fuse":
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err.Error()
		}
		f.Close()
		return missingProgram("fusermount3")
	case "postgresql":
		if _, err := PostgreSQL("initdb"); err != nil {
			return err.Error()
		}
		return ""
	}
	return missingProgram(need)
}

func missingProgram(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return err.Error()
	}
	return ""
}

// PostgreSQL returns where a program of the PostgreSQL server is: in PATH, or
// where Debian keeps it, of the newest version.
func PostgreSQL(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program) // the pattern is good
	if len(found) == 0 {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 for what is no version
		return n
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
}

// NixConfig is the nix.conf under which the tests run Nix: it builds as the
// calling user without a sandbox, asks no substituter, and knows the new
// command line.
const NixConfig = "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n"

// NixEnv returns the environment for Nix commands in tests.
func NixEnv(t testing.TB) []string {
	t.Helper()
	return append(os.Environ(), "NIX_CONFIG="+NixConfig)
}

// Run runs a command with NixEnv in dir and returns its standard output. The
// test fails, with what the command wrote to standard error, unless it exits 0.
func Run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	return RunInput(t, dir, nil, name, args...)
}

// RunInput is Run with bytes on standard input.
func RunInput(t testing.TB, dir string, input []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, NixEnv(t), bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// Tmpfs mounts a new tmpfs with options such as "size=1m" until the test ends,
// and returns its directory. It needs root.
func Tmpfs(t testing.TB, options string) string {
	t.Helper()
	Need(t, "root")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
