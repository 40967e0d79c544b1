package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestErrno(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("read x: %w", err) }
	for _, c := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"none", nil, 0},
		{"unknown", errors.New("broken"), syscall.EIO},
		{"absent", wrap(errNoName), syscall.ENOENT},
		{"ENOENT", wrap(syscall.ENOENT), syscall.ENOENT},
		{"ErrNotExist", wrap(fs.ErrNotExist), syscall.ENOENT},
		{"PathError", wrap(&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}), syscall.ENOENT},
		{"missing file of the backup", wrap(&backupError{wrap(fs.ErrNotExist)}), syscall.EIO},
		{"damage", &backupError{errors.New("checksum")}, syscall.EIO},
		{"truncated", wrap(&backupError{io.ErrUnexpectedEOF}), syscall.EIO},
		{"cancelled", wrap(context.Canceled), syscall.EINTR},
		{"cancelled in the backup", &backupError{wrap(context.Canceled)}, syscall.EINTR},
		{"interrupted", wrap(syscall.EINTR), syscall.EINTR},
		{"too late", wrap(context.DeadlineExceeded), syscall.ETIMEDOUT},
		{"unknown node", wrap(errNoNode), syscall.ESTALE},
		{"too many", wrap(errTooMany), syscall.EFBIG},
		{"no directory", wrap(errNotDir), syscall.ENOTDIR},
		{"directory", errIsDir, syscall.EISDIR},
		{"forbidden", &backupError{&os.PathError{Op: "open", Path: "x", Err: syscall.EACCES}}, syscall.EACCES},
		{"out of files", &backupError{wrap(syscall.EMFILE)}, syscall.EMFILE},
		{"out of memory", wrap(syscall.ENOMEM), syscall.ENOMEM},
		{"unknown errno", wrap(syscall.ENOSYS), syscall.EIO},
		{"disk gone", &backupError{wrap(syscall.ENODEV)}, syscall.EIO},
		{"stale below", &backupError{wrap(syscall.ESTALE)}, syscall.EIO},
	} {
		if got := errno(c.err); got != fuse.Status(c.want) {
			t.Errorf("%s: errno(%v) = %v, want %v", c.name, c.err, got, c.want)
		}
	}
}

func TestErrorsAreLoggedOnce(t *testing.T) {
	var lines []string
	l := errorLog{logf: func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }}
	for range 3 {
		l.add("read", "store/a", errors.New("block 1 of a.nar is damaged"))
		l.add("read", "store/a/other", errors.New("block 1 of a.nar is damaged"))
		l.add("read", "store/a", errors.New("block 2 of a.nar is damaged"))
	}
	want := "read store/a: block 1 of a.nar is damaged\nread store/a: block 2 of a.nar is damaged"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("logged:\n%s\nwant:\n%s", got, want)
	}
	for i := range 2 * maxLogged {
		l.add("read", "x", fmt.Errorf("block %d", i))
	}
	if len(lines) != maxLogged+1 {
		t.Errorf("%d lines, want %d and one that says so", len(lines), maxLogged)
	}
}
