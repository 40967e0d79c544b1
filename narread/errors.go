package narread

import (
	"errors"
	"fmt"
)

// DamageError says that a container is not, or no longer, what its narinfo
// says: bytes changed, too few, too many, or never right. Reading again gives
// the same.
type DamageError struct {
	File   string // Options.Name
	Block  int    // of the container, from 0; -1 when the whole is meant
	Offset int64  // in the file, where the block begins or decoding stopped; -1 when not known
	Err    error
}

// Error names the file, the block and the offset.
func (e *DamageError) Error() string {
	s := "read "
	if e.Block >= 0 {
		s += fmt.Sprintf("block %d of ", e.Block)
	}
	s += e.File
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", e.Offset)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

var (
	errTooLong   = errors.New("decodes to more than NarSize says")
	errTooShort  = errors.New("ends before NarSize is reached")
	errTruncated = errors.New("file is shorter than it was")
	errGarbage   = errors.New("garbage after the end")
	errChanged   = errors.New("content changed since it was verified")
)

// isDamage reports whether reading again is useless.
func isDamage(err error) bool {
	var d *DamageError
	return errors.As(err, &d)
}

// guard turns a panic of a foreign decoder into an error: its input is hostile,
// and a mount must survive it.
func guard(decode func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoder panicked: %v", r)
		}
	}()
	return decode()
}
