// Soak lets narvault do everything that changes a backup, at random and several
// at once, kills it at random, and looks each time whether all is there that has
// to be: `make soak`. It backs up, forgets, takes back, collects, purges,
// checks, indexes, mounts and compares, for as long as -duration says, with the
// real program, real Nix and real mounts, as root. Then it prints what it did,
// and how many bytes of recorded releases were lost: none may be.
//
// With the same -seed the same is tried again; what a kill hits differs all the
// same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 3*time.Minute, "how long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of what is done")
	flag.StringVar(&o.narvault, "narvault", "bin/narvault", "the `program`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type options struct {
	duration time.Duration
	seed     uint64
	narvault string
}

// run is the whole program. Its directory is left for whoever wants to see what
// went wrong.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	if o.narvault, err = filepath.Abs(o.narvault); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "narvault-soak-")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "soak: seed %d, for %v, in %s\n", o.seed, o.duration, dir)
	s, err := newSoak(ctx, dir, o)
	if err != nil {
		return err
	}
	defer s.close()
	began := time.Now()
	for time.Since(began) < o.duration && ctx.Err() == nil && err == nil {
		err = s.round(ctx)
	}
	if err == nil && ctx.Err() == nil {
		err = s.final(ctx)
	}
	s.report(out, time.Since(began))
	switch {
	case s.lost > 0:
		return fmt.Errorf("%d bytes were lost (seed %d; see %s): %w", s.lost, o.seed, dir, err)
	case err != nil:
		return fmt.Errorf("%w (seed %d; see %s)", err, o.seed, dir)
	}
	return errors.Join(s.close(), os.RemoveAll(dir))
}
