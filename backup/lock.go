package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A LockedError says that somebody else writes to the backup.
type LockedError struct {
	File   string // the lock file
	Holder string // what the holder wrote into it: process id, host
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is locked by %s: wait for it to end", filepath.Dir(e.File), e.Holder)
}

// lock takes the write lock of a backup, which exists. It ends with the
// process whatever becomes of it, so that none can be left stale. The error is
// *LockedError when another process holds it. The caller closes the result.
func lock(dir string) (io.Closer, error) {
	name := filepath.Join(dir, lockFile)
	// Whoever made the directory shall not have us write elsewhere.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o666)
	if err != nil {
		return nil, fmt.Errorf("lock backup: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 256))
		f.Close()
		return nil, &LockedError{File: name, Holder: holderText(holder)}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock backup: flock %s: %w", name, err)
	}
	return f, sign(f)
}

// holderPrefix begins what a holder writes into the lock file.
const holderPrefix = "process "

// sign writes who holds the lock into its file, over what an earlier holder
// wrote. A file that anybody else wrote is none of ours, and an error.
func sign(f *os.File) error {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("the file is no regular file")
	}
	var before []byte
	if err == nil {
		before, err = io.ReadAll(io.LimitReader(f, 256))
	}
	if err == nil && len(before) > 0 && !strings.HasPrefix(string(before), holderPrefix) {
		err = errors.New("the file is not a lock of narvault")
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("lock backup: %s: %w", f.Name(), err)
	}
	// The rest is only for the message of LockedError, so errors do not matter.
	host, _ := os.Hostname()
	if f.Truncate(0) == nil {
		f.WriteAt(fmt.Appendf(nil, "%s%d on %s\n", holderPrefix, os.Getpid(), host), 0)
	}
	return nil
}

func holderText(text []byte) string {
	if s := strings.TrimSpace(string(text)); s != "" {
		return s
	}
	return "another process"
}
