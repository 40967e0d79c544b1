package xz

import (
	"errors"
	"fmt"
	"io"
)

// Error says that a file is not, or no longer, an .xz file, or one that is not
// supported.
type Error struct {
	Offset int64 // in the file: where the part begins that is wrong, or where decoding stopped
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("%v, at offset %d", e.Err, e.Offset) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrTooMany says that a file has more blocks than the caller wants to know of.
var ErrTooMany = errors.New("xz: too many blocks")

var (
	errMagic    = errors.New("xz: not the beginning of a stream")
	errFooter   = errors.New("xz: not the end of a stream")
	errStream   = errors.New("xz: header or footer of the stream is damaged")
	errHeader   = errors.New("xz: block header is damaged")
	errIndex    = errors.New("xz: index is damaged")
	errMismatch = errors.New("xz: block is not as the index or its header says")
	errData     = errors.New("xz: compressed data is damaged")
	errPadding  = errors.New("xz: padding is not zero")
	errCheck    = errors.New("xz: check of the block does not match its content")
)

func unsupported(format string, args ...any) error {
	return fmt.Errorf("xz: %s: %w", fmt.Sprintf(format, args...), errors.ErrUnsupported)
}

// unexpected is for places where an end is an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
