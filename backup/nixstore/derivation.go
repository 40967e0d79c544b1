package nixstore

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
)

// A Derivation is what a .drv file says, as far as a backup wants to know.
type Derivation struct {
	Path   storepath.Path
	Name   string // of Path, without .drv, where Nix itself takes it from
	System string // "x86_64-linux", "builtin", ...
	// Outputs maps output names to paths. The path is "" when it is known only
	// after the build (floating content-addressed outputs, and what depends on
	// them).
	Outputs map[string]storepath.Path
	// InputDrvs maps the derivations that it is built from to those of their
	// outputs that are used.
	InputDrvs map[storepath.Path][]string
	InputSrcs []storepath.Path
}

// OutputNames returns the names of the outputs, sorted.
func (d *Derivation) OutputNames() []string {
	names := make([]string, 0, len(d.Outputs))
	for name := range d.Outputs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// MaxDerivation bounds a .drv file, in bytes; Nix holds it in memory too. The largest ones
// of nixpkgs (whole systems) have about 1 MB.
const MaxDerivation = 64 << 20

// Derivation reads a derivation from its .drv file. Lock it first. Every call
// reads the file anew.
//
// The parser is our own (aterm.go) because go-nix's pkg/derivation knows no
// store directory but /nix/store, and refuses floating content-addressed outputs
// and the format of dynamic derivations, which a backup must be able to hold.
func (s *Store) Derivation(p storepath.Path) (*Derivation, error) {
	if !p.IsDerivation() {
		return nil, fmt.Errorf("read derivation %s: its name does not end in .drv", p)
	}
	text, err := readDerivation(s.RealPath(p))
	if err != nil {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	return ParseDerivation(text, s.dir, p)
}

// ParseDerivation parses the text of the .drv file at p, a path of the store
// directory storeDir.
func ParseDerivation(text []byte, storeDir string, p storepath.Path) (*Derivation, error) {
	d, err := parseDerivation(text, storeDir)
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %w", p, err)
	}
	d.Path, d.Name = p, strings.TrimSuffix(p.Name(), ".drv")
	return d, nil
}

func readDerivation(name string) ([]byte, error) {
	// Neither a symlink to elsewhere nor a FIFO that blocks us.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxDerivation {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", name, MaxDerivation)
	}
	return io.ReadAll(io.LimitReader(f, MaxDerivation))
}

// A MissingOutput is an output of a derivation that is not valid.
type MissingOutput struct {
	Drv    storepath.Path
	Output string
	Path   storepath.Path // "" when it is not known before the build
}

// MissingOutputs returns the outputs of the derivations that are not valid, in
// the order of drvs, by output name. Paths that are no derivations are passed
// over, so that a closure can be given as it is. Outputs whose path the .drv file
// does not tell are missing when there is no realisation that does.
func (s *Store) MissingOutputs(ctx context.Context, drvs []storepath.Path) ([]MissingOutput, error) {
	outputs, err := s.outputs(ctx, drvs)
	if err != nil {
		return nil, err
	}
	if err := s.findRealised(ctx, outputs); err != nil {
		return nil, fmt.Errorf("query missing outputs: %w", err)
	}
	found, err := s.valid(ctx, known(outputs), false)
	if err != nil {
		return nil, fmt.Errorf("query missing outputs: %w", err)
	}
	return slices.DeleteFunc(outputs, func(o MissingOutput) bool {
		_, valid := slices.BinarySearch(found, o.Path)
		return valid
	}), nil
}

// outputs returns all outputs of the derivations among paths.
func (s *Store) outputs(ctx context.Context, paths []storepath.Path) ([]MissingOutput, error) {
	var outputs []MissingOutput
	for _, p := range paths {
		if !p.IsDerivation() {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		d, err := s.Derivation(p)
		if err != nil {
			return nil, err
		}
		for _, name := range d.OutputNames() {
			outputs = append(outputs, MissingOutput{Drv: p, Output: name, Path: d.Outputs[name]})
		}
	}
	return outputs, nil
}

// known returns the paths of the outputs that have one.
func known(outputs []MissingOutput) []storepath.Path {
	var paths []storepath.Path
	for _, o := range outputs {
		if o.Path != "" {
			paths = append(paths, o.Path)
		}
	}
	return paths
}
