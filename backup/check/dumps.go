package check

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/narvault/narvault/backup"
)

// checkDumps reads the dumps of databases, if data is read at all: they are few,
// and their frames carry checksums.
func (c *checker) checkDumps(ctx context.Context) error {
	if c.b.Foreign() || c.o.ReadData.none() {
		return nil
	}
	dumps, err := c.b.Dumps()
	if err != nil {
		c.add(trouble(Dump, "hydra", err, "make it a directory again"))
		return nil
	}
	for _, d := range dumps {
		err := readDump(ctx, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.add(trouble(Dump, c.relative(d.File), err, "dump the database again, and remove this file"))
		}
	}
	return nil
}

func readDump(ctx context.Context, d *backup.Dump) error {
	r, err := d.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, contextReader{ctx, r})
	return err
}

// A contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
