package hydra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A program is one of PostgreSQL's, of a version: pg_dump or psql.
type program struct {
	path  string
	major int    // version
	full  string // version
}

// debianPrograms are where Debian keeps the programs of all versions that are
// installed beside each other.
const debianPrograms = "/usr/lib/postgresql/*/bin"

var versionText = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// programs returns all programs of a name, in dirs or else in PATH and where
// Debian has them. What does not say its version is none.
func programs(ctx context.Context, name string, dirs []string) []program {
	if dirs == nil {
		debian, _ := filepath.Glob(debianPrograms) // the pattern is good
		dirs = append(filepath.SplitList(os.Getenv("PATH")), debian...)
	}
	var found []program
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			continue // nothing from the current directory
		}
		// Debian's wrapper is of another version for each server.
		if real, err := filepath.EvalSymlinks(path); err != nil || filepath.Base(real) == "pg_wrapper" {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "--version").Output()
		if err != nil {
			continue
		}
		if m := versionText.FindSubmatch(out); m != nil {
			major, _ := strconv.Atoi(string(m[2])) // digits
			found = append(found, program{path: path, major: major, full: string(m[1])})
		}
	}
	return found
}

// dumper returns the pg_dump for a server of a version: that of the same one,
// else the next newer. (A dump by a newer one may be too new for the server.)
func dumper(ctx context.Context, server int, dirs []string) (program, error) {
	found := programs(ctx, "pg_dump", dirs)
	var best, newest program
	for _, p := range found {
		if p.major >= server && (best.path == "" || p.major < best.major) {
			best = p
		}
		if p.major > newest.major {
			newest = p
		}
	}
	switch {
	case best.path != "":
		return best, nil
	case newest.path != "":
		return best, fmt.Errorf("the server is PostgreSQL %d, and the newest pg_dump here is %s (%s): install that of version %d or later "+
			"(Debian: postgresql-client-%d), or say where it is with --programs", server, newest.full, newest.path, server, server)
	}
	return best, missingProgram("pg_dump", dirs)
}

// loader returns the newest psql: newer dumps hold what older ones do not know.
func loader(ctx context.Context, dirs []string) (program, error) {
	var newest program
	for _, p := range programs(ctx, "psql", dirs) {
		if p.major > newest.major {
			newest = p
		}
	}
	if newest.path == "" {
		return newest, missingProgram("psql", dirs)
	}
	return newest, nil
}

func missingProgram(name string, dirs []string) error {
	where := "in PATH and " + debianPrograms
	if dirs != nil {
		where = "in " + strings.Join(dirs, ", ")
	}
	return fmt.Errorf("%s is not %s: install PostgreSQL's client programs (Debian: postgresql-client), or say where they are with --programs", name, where)
}

// restricting are the minor versions, by major one, from which on psql can be
// kept from commands of its own (August 2025, CVE-2025-8714). All later major
// versions can.
var restricting = map[int]int{13: 22, 14: 19, 15: 14, 16: 10, 17: 6}

// restricts reports whether psql has the command \restrict.
func (p program) restricts() bool {
	from, listed := restricting[p.major]
	if !listed {
		return p.major > 17
	}
	_, minor, _ := strings.Cut(p.full, ".")
	n, err := strconv.Atoi(minor)
	return err == nil && n >= from
}

// A ProgramError is a program of PostgreSQL's that did not do its work.
type ProgramError struct {
	Program string // pg_dump or psql
	Err     error  // how it ended
	Stderr  string // what it wrote there, the beginning
}

func (e *ProgramError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Program, e.Err, e.Stderr)
}

// Unwrap returns how the program ended, *exec.ExitError mostly.
func (e *ProgramError) Unwrap() error { return e.Err }

// endDelay is how long a program may take to end after it was told to.
const endDelay = 5 * time.Second

// command prepares a program for a database.
func (p program) command(ctx context.Context, k keywords, args ...string) (*exec.Cmd, *excerpt, error) {
	conninfo, env, err := k.forProgram()
	if err != nil {
		return nil, nil, fmt.Errorf("its name %w", err)
	}
	// Never ask for a password: nobody may be there.
	cmd := exec.CommandContext(ctx, p.path, append(args, "--no-password", "--dbname="+conninfo)...)
	cmd.Env = append(env, "LC_MESSAGES=C")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endDelay
	stderr := new(excerpt)
	cmd.Stderr = stderr
	return cmd, stderr, nil
}

// finish returns the error of a program that has ended.
func (p program) finish(ctx context.Context, err error, stderr *excerpt) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	name := filepath.Base(p.path)
	text := strings.TrimSpace(stderr.String())
	return &ProgramError{Program: name, Err: err, Stderr: strings.TrimPrefix(text, name+": ")}
}

// An excerpt keeps the beginning of what a program says: there the first error
// is, from which all others follow.
type excerpt struct{ bytes.Buffer }

const excerptSize = 4 << 10

func (e *excerpt) Write(p []byte) (int, error) {
	if room := excerptSize - e.Len(); room > 0 {
		e.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// An ending keeps the end of what is written to it, to tell whether a dump is
// whole.
type ending struct{ last []byte }

// endSize is more than what follows the mark, that included.
const endSize = 512

func (e *ending) Write(p []byte) (int, error) {
	if len(p) >= endSize {
		e.last = append(e.last[:0], p[len(p)-endSize:]...)
		return len(p), nil
	}
	e.last = append(e.last, p...)
	if over := len(e.last) - endSize; over > 0 {
		e.last = append(e.last[:0], e.last[over:]...)
	}
	return len(p), nil
}

// dumpEnd is what pg_dump writes last of all, since version 8; since 2025 with
// the end of its protection against commands of psql.
var dumpEnd = regexp.MustCompile(`(^|\n)-- PostgreSQL database dump complete\r?\n--\s*(\\unrestrict \w+\s*)?$`)

// ErrTruncated is the error of a dump that does not end as pg_dump's do.
var ErrTruncated = errors.New("the dump is truncated: it does not end with pg_dump's mark for its end")

func (e *ending) check() error {
	if !dumpEnd.Match(e.last) {
		return ErrTruncated
	}
	return nil
}
