package backup

import (
	"context"
	"io"
)

// Interruptible returns a writer that passes on to w until ctx ends, and then
// returns the context's error: with it, a stream that knows no context ends.
func Interruptible(ctx context.Context, w io.Writer) io.Writer { return interruptible{ctx, w} }

type interruptible struct {
	ctx context.Context
	w   io.Writer
}

func (i interruptible) Write(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.w.Write(p)
}
