package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/narvault/narvault/narread/storepath"
)

// maxArgs bounds the bytes of store paths on one command line. Linux allows 2
// MiB with the environment, the least of any system that Nix runs on is 256 KiB.
const maxArgs = 96 << 10

// Realise makes the outputs of the derivations valid: it lets Nix build them, or
// fetch them from the substituters that Nix is configured with. It is the only
// function here that does so. What can be built is built even if something else
// fails; the error joins one *CommandError for each command that failed, with
// the end of what it printed. The outputs are locked when Realise returns,
// except those whose path is not known before the build.
func (s *Store) Realise(ctx context.Context, drvs []storepath.Path) error {
	for _, p := range drvs {
		if !p.IsDerivation() {
			return fmt.Errorf("realise %s: it is not a derivation", p)
		}
	}
	if len(drvs) == 0 {
		return nil
	}
	outputs, err := s.outputs(ctx, drvs)
	if err != nil {
		return fmt.Errorf("realise: %w", err)
	}
	// Temporary roots may be added for what does not exist yet: so no garbage
	// collector comes between a build and a Lock.
	if _, err := s.valid(ctx, append(known(outputs), drvs...), true); err != nil {
		return fmt.Errorf("realise: %w", err)
	}
	var errs []error
	for _, args := range commandLines(s.dir, drvs) {
		if err := s.realise(ctx, args); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	// The daemon may remember for the old child that the outputs are not valid
	// (see serve).
	return errors.Join(append(errs, s.renew())...)
}

func (s *Store) realise(ctx context.Context, paths []string) error {
	cmd, err := s.nix.command(ctx, "nix-store", append([]string{"--realise", "--keep-going"}, paths...)...)
	if err != nil {
		return err
	}
	var stderr tail
	cmd.Stderr = &stderr
	if s.log != nil {
		cmd.Stderr = io.MultiWriter(&stderr, s.log)
	}
	return finish(ctx, cmd, &stderr, cmd.Run())
}

// commandLines splits the paths into lists of at most maxArgs bytes.
func commandLines(storeDir string, paths []storepath.Path) [][]string {
	var lines [][]string
	size := maxArgs
	for _, p := range paths {
		arg := p.In(storeDir)
		if size += len(arg) + 1; size > maxArgs {
			lines, size = append(lines, nil), len(arg)+1
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], arg)
	}
	return lines
}
