package layout

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/narvault/narvault/index/bincache"
)

// maxRecord bounds what is read of a record, in bytes: closure.txt with a
// million store paths has a third of it.
const maxRecord = 256 << 20

// Unreadable reports whether an error says that something could not be read, and
// may be all right: that of a medium, or of rights. What is read and wrong, is not
// there, or is something else than a file, is not.
func Unreadable(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.ENXIO:
		return false
	}
	return true
}

// ReadFile reads a file of a backup whole. What is no regular file, a pipe
// that would make us wait for ever among it, or is absurdly large, is damage.
func ReadFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRecord {
		return nil, &bincache.DamageError{File: name, Err: fmt.Errorf("is no regular file of at most %d bytes", maxRecord)}
	}
	return io.ReadAll(io.LimitReader(f, maxRecord))
}
