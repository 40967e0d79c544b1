package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/narvault/narvault/backup"
)

// A batch is what a command does to several releases, one after the other. As
// JSON, it is what came of it.
type batch struct {
	Version  int              `json:"version"`
	Releases []*backup.Result `json:"releases"`
	Failed   []string         `json:"failed"` // what became of the others

	failed, partial error
}

func newBatch() *batch {
	return &batch{Version: backup.FormatVersion, Releases: []*backup.Result{}, Failed: []string{}}
}

// do works on one release. Its failure does not stop the others, unless the
// reason would stop them all: then it is returned.
func (b *batch) do(ctx context.Context, id backup.ReleaseID, work func() (*backup.Result, error)) error {
	result, err := work()
	switch code := exitCode(ctx, err); {
	case code == exitInterrupted, code == exitBusy:
		return err
	case errors.Is(err, errPartial):
		b.partial = err
	case err != nil:
		b.fail(fmt.Errorf("release %s: %w", id, err))
		return nil
	}
	b.Releases = append(b.Releases, result)
	return nil
}

// fail notes what became of a release.
func (b *batch) fail(err error) {
	b.Failed = append(b.Failed, err.Error())
	b.failed = errors.Join(b.failed, err)
}

// end returns the error of the whole. Where some releases succeeded, it is no
// more than errPartial; stderr has the others'.
func (b *batch) end(ctx context.Context, stderr io.Writer) error {
	if b.failed != nil && len(b.Releases) > 0 && exitCode(ctx, b.failed) == exitFailed {
		report(ctx, stderr, b.failed)
		return errPartial
	}
	return errors.Join(b.failed, b.partial)
}
