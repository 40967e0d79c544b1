package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Errors of this package that have an errno of their own.
var (
	// errNoNode is said of a node number that names nothing in this mount.
	errNoNode = errors.New("no such node")
	// errNoName is said of a name that a complete listing lacks.
	errNoName = errors.New("no such name")
	// errTooMany is said of more things than the node numbers have room for.
	errTooMany  = errors.New("too many to be numbered")
	errBadName  = errors.New("no file can have that name")
	errLongName = errors.New("name too long")
	errNotDir   = errors.New("not a directory")
	errIsDir    = errors.New("is a directory")
	errNotFile  = errors.New("not a regular file")
	errNotLink  = errors.New("not a symlink")
	// errBackup is the mark of a backupError, for the table below.
	errBackup = errors.New("error of the backup")
)

// A backupError is what the Backup, a Tree or a Stream returned. It is kept
// apart because ErrNotExist from there says that a file of the backup is
// missing, never that the asked name does not exist.
type backupError struct{ err error }

func (e *backupError) Error() string        { return e.err.Error() }
func (e *backupError) Unwrap() error        { return e.err }
func (e *backupError) Is(target error) bool { return target == errBackup }

// errnos maps causes to what the kernel is told; the first that fits counts,
// and what fits none is EIO. The errno of a system call below us is not passed
// on, as it would be taken for a statement about the file that was asked for;
// ENOSYS even makes the kernel stop sending the operation for the life of the
// mount.
var errnos = []struct {
	cause error
	errno syscall.Errno
}{
	{errNoName, syscall.ENOENT},
	{errNoNode, syscall.ESTALE},
	{errTooMany, syscall.EFBIG},
	{errLongName, syscall.ENAMETOOLONG},
	{errNotDir, syscall.ENOTDIR},
	{errIsDir, syscall.EISDIR},
	{errNotFile, syscall.EINVAL},
	{errNotLink, syscall.EINVAL},
	// A cancel is nobody's damage; the program may ask again.
	{context.Canceled, syscall.EINTR},
	{syscall.EINTR, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	// Passing lacks of this process.
	{syscall.EMFILE, syscall.EMFILE},
	{syscall.ENFILE, syscall.ENFILE},
	{syscall.ENOMEM, syscall.ENOMEM},
	{fs.ErrPermission, syscall.EACCES},
	{errBackup, syscall.EIO},
	{fs.ErrNotExist, syscall.ENOENT},
}

// errno returns what the kernel is told of err.
func errno(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	for _, e := range errnos {
		if errors.Is(err, e.cause) {
			return fuse.Status(e.errno)
		}
	}
	return fuse.EIO
}

// worthLogging reports whether err is news to whoever runs the mount, rather
// than the ordinary answer to a question.
func worthLogging(err error) bool {
	for _, e := range []error{errNoName, errNoNode, errLongName, errNotDir, errIsDir, errNotFile, errNotLink, context.Canceled, syscall.EINTR} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// maxLogged bounds how many different errors a mount logs.
const maxLogged = 1000

// An errorLog writes each error once. A damaged block is met by every file in
// it and by every retry of the kernel.
type errorLog struct {
	logf func(format string, args ...any)

	mu   sync.Mutex
	seen map[string]bool // guarded by mu
}

// add logs err, met while doing op to object, unless it was logged already.
func (l *errorLog) add(op, object string, err error) {
	l.once(err.Error(), "%s %s: %v", op, object, err)
}

// once logs a message unless one with that key was logged already.
func (l *errorLog) once(key, format string, args ...any) {
	l.mu.Lock()
	full := len(l.seen) >= maxLogged
	known := l.seen[key]
	if !known && !full {
		if l.seen == nil {
			l.seen = make(map[string]bool)
		}
		l.seen[key] = true
	}
	last := !known && !full && len(l.seen) == maxLogged
	l.mu.Unlock()
	if known || full {
		return
	}
	l.logf(format, args...)
	if last {
		l.logf("%d different errors so far: further ones are not logged", maxLogged)
	}
}
