package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// flipAndRepair flips a bit of a file of the backup, and lets it be found and
// mended: out of the Nix store, or out of the second backup, by a repair that is
// killed before. Then all is as it was.
func (s *soak) flipAndRepair(ctx context.Context) error {
	name, at, err := s.flip()
	if name == "" || err != nil {
		return err
	}
	found, err := s.found(ctx)
	if ctx.Err() != nil || err != nil {
		return err
	}
	if !found {
		// It may not matter (which of the bits do not, TestEveryByteFlipped says).
		// If it does, verify knows.
		err := s.verify()
		return errors.Join(err, flipBit(name, at))
	}
	args := []string{"repair", s.main.dir, "--wait"}
	if s.copy.exists() {
		args = append(args, "--from", s.copy.dir)
	}
	for _, kill := range []time.Duration{time.Duration(1+s.rng.IntN(400)) * time.Millisecond, 0} {
		op := &operation{name: "repair", args: args, kill: kill, keep: true}
		if err := s.run(ctx, op); err != nil || ctx.Err() != nil {
			return err
		}
	}
	clear(s.main.verified)
	if found, err := s.found(ctx); found || err != nil {
		return fmt.Errorf("a bit of %s was flipped and is not mended (%v)", name, err)
	}
	s.flipped++
	return s.verify()
}

// flip flips a bit of a file that can be mended out of something else. It
// returns the file, "" if there is none, and which bit.
func (s *soak) flip() (name string, bit int64, err error) {
	var names []string
	for _, pattern := range []string{"cache/*.narinfo", "cache/*.ls", "cache/nar/*.nar*", "releases/*/*/closure.txt"} {
		found, err := filepath.Glob(s.main.path(pattern))
		if err != nil {
			return "", 0, err
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		return "", 0, nil
	}
	name = names[s.rng.IntN(len(names))]
	st, err := os.Stat(name)
	if err != nil {
		return "", 0, err
	}
	bit = s.rng.Int64N(8 * st.Size())
	return name, bit, flipBit(name, bit)
}

// flipBit flips a bit of a file in place, and for good, as a disk does it.
func flipBit(name string, bit int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], bit/8)
	if err == nil {
		b[0] ^= 1 << (bit % 8)
		_, err = f.WriteAt(b[:], bit/8)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// found reports whether a check finds damage.
func (s *soak) found(ctx context.Context) (bool, error) {
	var output bytes.Buffer
	cmd := s.command(ctx, "check", s.main.dir, "--read-data")
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	switch cmd.ProcessState.ExitCode() {
	case 0:
		return false, nil
	case 4:
		return true, nil
	}
	return false, fmt.Errorf("check: %w\n%s", err, output.Bytes())
}
