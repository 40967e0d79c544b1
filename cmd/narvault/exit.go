package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/unpack"
	"github.com/narvault/narvault/fusefs"
	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

// The exit codes; longHelp says them to the user.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitDamage      = 4
	exitBusy        = 5
	exitInterrupted = 130
)

// A usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// errPartial is returned by a command that did what it could and has named the
// rest.
var errPartial = errors.New("done in part")

// errDamage is returned by a command that found damage and has named it.
var errDamage = errors.New("damage found")

// report writes what is to be said about err and returns the exit code.
func report(ctx context.Context, stderr io.Writer, err error) int {
	code := exitCode(ctx, err)
	switch {
	case code == exitOK, errors.Is(err, errPartial), errors.As(err, new(*statusError)):
	case code == exitInterrupted:
		fmt.Fprintln(stderr, "narvault: interrupted")
	case errors.Is(err, syscall.EPIPE):
		// The reader of our output has gone; it knows why.
	default:
		fmt.Fprintln(stderr, complaint(err))
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		fmt.Fprintln(stderr, "narvault: the medium is full; make room and run the same command again, it goes on from where it was")
	case errors.Is(err, syscall.EROFS):
		fmt.Fprintln(stderr, "narvault: the medium can only be read; mount it for writing, or use another one")
	}
	return code
}

// complaint is what is written about an error: several that were joined are a line
// each. Lines that are indented belong to the one before, and how a command is used
// is shown as it is.
func complaint(err error) string {
	text := "narvault: " + strings.TrimRight(message(err.Error()), "\n")
	if errors.As(err, new(*usageError)) {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		if b.Len() > 0 && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			b.WriteString("narvault: ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// exitCode is the one place where errors become exit codes. Where several
// apply, the order is 2, 5, 4, 1, 3.
func exitCode(ctx context.Context, err error) int {
	var (
		usage     *usageError
		locked    *lock.HeldError
		cacheFile *bincache.DamageError
		archive   *narread.DamageError
		coded     *codedError
		config    *hydra.ConfigError
		status    *statusError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage), errors.As(err, &config), errors.Is(err, backup.ErrReleaseID):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &locked), errors.Is(err, fusefs.ErrBusy), errors.Is(err, unpack.ErrBusy):
		return exitBusy
	case errors.As(err, &cacheFile), errors.As(err, &archive), errors.Is(err, errDamage):
		return exitDamage
	case errors.Is(err, errPartial):
		return exitPartial
	}
	return exitFailed
}
