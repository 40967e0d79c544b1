// Package lock keeps those apart who are at work on a backup.
//
// Any number of backups, checks and mounts may be at work on one backup, on
// this machine and, if its file system has locks over the network, on others.
// All locks are those of flock(2): the kernel lets go of them when a process
// ends, however it ends, so that none is ever left behind by a crash.
//
//	lock           shared: what it refers to has to stay (all others that write; restore, copy)
//	               exclusive: nothing else may write (gc and repair, while they take out)
//	locks/mutex    exclusive, for an instant at a time: names of narinfos and
//	               records of releases change only under it
//	locks/turn     exclusive: of the one who waits for lock, exclusive, and is next
//	locks/write-*  exclusive, each of the process that made the file and wrote
//	locks/read-*   into it who it is; one that is not locked is a leftover
//	locks/wait-*
//
// A backup takes lock, shared, before it looks what is archived already, and
// holds it until its release is recorded. So gc can never take away a narinfo
// or a NAR file that a running backup counts on, and gc never meets the
// temporary files and unnamed NARs of a running backup. Between backups the
// mutex decides who archives a store path that two of them bring: under it,
// the second looks again before it publishes a narinfo.
//
// Whoever makes temporary files has a write-* file before he makes the first,
// and makes it under the mutex. Who finds under the mutex that there is no
// other write-* in use may thus remove all temporary files and the journal.
//
// flock(2) is not fair: backups that overlap could keep gc waiting for ever. So
// whoever begins while somebody has the turn lets him go first, for as long as he
// would wait himself, 10 minutes at most; then he goes on beside the others, as
// one does that would not wait at all: nobody fails because gc waits.
//
// gc lets go of its lock before it deletes what has been in the trash for long
// enough, and before it builds the index: nobody waits for that.
//
// A mount, and every command that only looks, takes no lock at all: what it
// reads is complete at every instant, and what gc takes out vanishes for it as
// for Nix. It can be used beside everything, and on a medium that cannot be
// written to.
package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
)

// Options say what happens when others hold a lock that is needed. With the
// zero value it is a *HeldError at once.
type Options struct {
	// Wait is how long to wait for the others; negative: for as long as it takes.
	Wait time.Duration
	// NoLock takes no locks, for media that have none. Nobody else may write.
	NoLock bool
	// Command is what the holders of locks are told to be; "" is "narvault".
	Command string
	// Waiting is told once, before the waiting begins, for whom. It may be nil.
	Waiting func(*HeldError)

	// Flock takes a lock on a file, and lets go of it; nil is flock(2).
	Flock func(f *os.File, how int) error
}

// A HeldError says that others are at work on the backup.
type HeldError struct {
	Dir     string   // the backup
	Holders []string // who, as far as that can be told: process, host, command, since when
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is in use by %s: try again when it has ended, or with --wait", e.Dir, strings.Join(e.Who(), ", "))
}

// Who returns the Holders, or what to say when none is known.
func (e *HeldError) Who() []string {
	if len(e.Holders) == 0 {
		return []string{"another process"}
	}
	return e.Holders
}

// A Kind says what a lock is for.
type Kind int

// The kinds of locks.
const (
	Reading   Kind = iota // what is there has to stay
	Writing               // the same, and it writes
	Excluding             // nobody else may do either
)

// How the files in layout.LocksDir are called.
const (
	readPrefix  = "read-"
	writePrefix = "write-"
	waitPrefix  = "wait-"
)

func (k Kind) how() int {
	if k == Excluding {
		return syscall.LOCK_EX
	}
	return syscall.LOCK_SH
}

func (k Kind) prefix() string {
	if k == Reading {
		return readPrefix
	}
	return writePrefix
}

// A Lock is a lock of a backup. It ends with Close, or with the process.
type Lock struct {
	dir   string
	o     Options
	file  *os.File // nil with NoLock
	named *os.File // the file that says who we are; nil if there is none
	told  bool     // o.Waiting was
}

// Take takes the lock of a backup directory, which exists. The error is
// *HeldError when others hold it for longer than o says.
func Take(ctx context.Context, dir string, kind Kind, o Options) (*Lock, error) {
	if o.Flock == nil {
		o.Flock = flock
	}
	l := &Lock{dir: dir, o: o}
	if o.NoLock {
		return l, nil
	}
	if err := l.take(ctx, kind); err != nil {
		return nil, fmt.Errorf("lock backup: %w", err)
	}
	return l, nil
}

func flock(f *os.File, how int) error { return syscall.Flock(int(f.Fd()), how) }

func (l *Lock) take(ctx context.Context, kind Kind) error {
	if err := l.makeDir(); err != nil {
		return err
	}
	name := filepath.Join(l.dir, layout.LockFile)
	for l.file == nil {
		f, err := openLock(name)
		if err != nil {
			return err
		}
		if err := l.inTurn(ctx, f, kind); err != nil {
			f.Close()
			return err
		}
		if !isNamed(f, name) { // somebody removed it: what we hold is worth nothing
			f.Close()
			continue
		}
		l.file = f
	}
	err := l.Exclusively(ctx, func() error { return l.register(ctx, kind.prefix()) })
	// A disk may be so full that there is no room for the name of who frees it.
	if err != nil && kind != Excluding {
		l.Close()
		return err
	}
	return nil
}

// makeDir makes the directory for the other lock files.
func (l *Lock) makeDir() error {
	name := filepath.Join(l.dir, layout.LocksDir)
	st, err := os.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return disk.OS{}.Mkdir(name)
	case err == nil && !st.IsDir():
		return fmt.Errorf("%s is no directory", name)
	}
	return err
}

// openLock opens a lock file, and makes it if need be. One that is not of
// narvault is an error: whoever made the directory shall not have us write
// elsewhere, or wait for ever.
func openLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err == nil && st.Size() > 0 && !isOldLock(f) {
		err = fmt.Errorf("%s is not a lock of narvault: that is empty", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isOldLock reports whether a lock file is of the first narvault, which wrote
// into it who held it.
func isOldLock(f *os.File) bool {
	const old = "process "
	b := make([]byte, len(old))
	_, err := f.ReadAt(b, 0)
	return err == nil && string(b) == old
}

// isNamed reports whether f is still the file of that name.
func isNamed(f *os.File, name string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(name)
	return err == nil && os.SameFile(mine, there)
}

// lockPoll is how often a lock that others hold is tried again.
const lockPoll = 20 * time.Millisecond

// acquire takes a lock on f, and waits for it if need be.
func (l *Lock) acquire(ctx context.Context, f *os.File, how int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := l.o.Flock(f, how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return &noLocksError{file: f.Name(), err: err}
		}
		if wait >= 0 && !time.Now().Before(deadline) {
			return l.locked()
		}
		if !l.told && l.o.Waiting != nil && l.file == nil { // the mutex is not worth a message
			l.told = true
			l.o.Waiting(l.locked())
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A noLocksError says that the file system of a backup has no locks.
type noLocksError struct {
	file string
	err  error
}

func (e *noLocksError) Error() string {
	return fmt.Sprintf("the file system of %s has no locks (flock: %v), and without them two programs could write at once: "+
		"mount it with locks (NFS: without \"nolock\"), or use --no-lock if nobody else writes to this backup", e.file, e.err)
}

func (e *noLocksError) Unwrap() error { return e.err }

// Exclusively calls f while nobody else who uses Exclusively is in such a call.
// What f does has to be short: all other writers may be waiting for it.
func (l *Lock) Exclusively(ctx context.Context, f func() error) error {
	if l.file == nil {
		return f()
	}
	m, err := openLock(filepath.Join(l.dir, layout.LocksDir, layout.MutexFile))
	if err != nil {
		return err
	}
	defer m.Close()
	if err := l.acquire(ctx, m, syscall.LOCK_EX, -1); err != nil {
		return err
	}
	return f()
}

// register makes the file that says who we are. It is called under the mutex.
func (l *Lock) register(ctx context.Context, prefix string) error {
	pattern := fmt.Sprintf("%s%d-*", prefix, os.Getpid())
	f, err := os.CreateTemp(filepath.Join(l.dir, layout.LocksDir), pattern)
	if err != nil {
		return err
	}
	// Somebody may be looking just now whether it is in use.
	if err := l.acquire(ctx, f, syscall.LOCK_EX, -1); err != nil {
		f.Close()
		return err
	}
	l.named = f
	host, _ := os.Hostname()
	command := l.o.Command
	if command == "" {
		command = "narvault"
	}
	// Only for messages, so errors do not matter.
	f.Chmod(0o644)
	fmt.Fprintf(f, "process %d on %s (%s, since %s)\n", os.Getpid(), host, command, time.Now().Format(time.DateTime))
	return nil
}

// Leave says that we make no more temporary files. Under the mutex it lets
// whoever comes next know whether he is the last.
func (l *Lock) Leave() {
	if l.named != nil {
		os.Remove(l.named.Name())
		l.named.Close()
		l.named = nil
	}
}

// Close lets go of the lock.
func (l *Lock) Close() error {
	l.Leave()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// locked returns the error that names who holds locks.
func (l *Lock) locked() *HeldError {
	e := &HeldError{Dir: l.dir}
	l.others(func(name string, f *os.File) {
		text, _ := io.ReadAll(io.LimitReader(f, 512))
		if who := strings.TrimSpace(string(text)); who != "" {
			e.Holders = append(e.Holders, who)
		}
	}, func(string) {})
	return e
}

// Alone reports whether nobody else writes to the backup, and removes what dead
// writers left in layout.LocksDir. It is called under the mutex.
func (l *Lock) Alone() bool {
	if l.file == nil {
		return true
	}
	alone := true
	err := l.others(func(name string, _ *os.File) {
		alone = alone && !strings.HasPrefix(name, writePrefix)
	}, func(name string) {
		os.Remove(filepath.Join(l.dir, layout.LocksDir, name))
	})
	return alone && err == nil
}

// others calls used for the file of each other process that is at work, and
// unused for those of processes that are not any more.
func (l *Lock) others(used func(name string, f *os.File), unused func(name string)) error {
	dir := filepath.Join(l.dir, layout.LocksDir)
	names, err := disk.ReadNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !isNote(name) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return err
		}
		switch {
		case l.named != nil && isNamed(l.named, f.Name()):
		case errors.Is(l.o.Flock(f, syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK):
			used(name, f)
		default:
			unused(name)
		}
		f.Close()
	}
	return nil
}

// isNote reports whether a file in layout.LocksDir says who is at work.
func isNote(name string) bool {
	return slices.ContainsFunc([]string{readPrefix, writePrefix, waitPrefix}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
