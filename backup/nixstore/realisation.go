package nixstore

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// A Realisation says what an output of a content-addressed derivation was built
// to, if that only the build could tell.
type Realisation struct {
	ID   string // "sha256:<64 digits>!<output>"
	Path storepath.Path
	Text []byte // JSON, byte by byte what "nix copy" puts into a binary cache, as realisations/<ID>.doi
}

// realisationID is Nix's DrvOutput. It becomes a file name.
var realisationID = regexp.MustCompile(`^sha256:[0-9a-f]{64}![0-9a-zA-Z+._?=-]+$`)

// maxRealisationArgs is how many derivations are asked about at once.
const maxRealisationArgs = 200

// Realisations returns those of the derivations among paths, sorted by ID. Only
// floating ones have some. What is not valid, or was not built, has none; nothing
// is built or fetched.
//
// A derivation that is built from other floating ones is resolved first. Nix has a
// realisation of both, and the resolved one as Deriver of what was built: who knows
// that only does not get the other's.
func (s *Store) Realisations(ctx context.Context, paths []storepath.Path) (found []Realisation, err error) {
	var drvs []string
	for _, p := range unique(paths) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if floating, err := s.floating(p); err != nil {
			return nil, err
		} else if floating {
			drvs = append(drvs, p.In(s.dir))
		}
	}
	for some := range slices.Chunk(drvs, maxRealisationArgs) {
		more, err := s.realisations(ctx, some)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	slices.SortFunc(found, func(a, b Realisation) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(found, func(a, b Realisation) bool { return a.ID == b.ID }), nil
}

// findRealised completes those of the outputs whose path only a realisation tells.
func (s *Store) findRealised(ctx context.Context, outputs []MissingOutput) error {
	realised := make(map[storepath.Path]map[string]storepath.Path)
	for i := range outputs {
		o := &outputs[i]
		if o.Path != "" {
			continue
		}
		if realised[o.Drv] == nil {
			found, err := s.realisations(ctx, []string{o.Drv.In(s.dir)})
			if err != nil {
				return err
			}
			byName := make(map[string]storepath.Path)
			for _, r := range found {
				byName[r.ID[strings.Index(r.ID, "!")+1:]] = r.Path
			}
			realised[o.Drv] = byName
		}
		o.Path = realised[o.Drv][o.Output]
	}
	return nil
}

// floating reports whether a path is a derivation, and there, some output of which
// is known only after the build.
func (s *Store) floating(p storepath.Path) (bool, error) {
	if !p.IsDerivation() {
		return false, nil
	}
	d, err := s.Derivation(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, out := range d.Outputs {
		if out == "" {
			return true, nil
		}
	}
	return false, nil
}

// What Nix says when a derivation was not built, and when its configuration knows
// no content-addressed ones; it is not told to, as it would change its database.
const (
	notBuilt   = "cannot operate on"
	noFloating = "'ca-derivations' is disabled"
)

// says reports whether an error has words of Nix.
func says(err error, words string) bool {
	var command *CommandError
	return errors.As(err, &command) && strings.Contains(command.Stderr, words)
}

// realisations asks for those of some derivations. One that was not built makes
// Nix answer nothing about the others: then each is asked about alone.
func (s *Store) realisations(ctx context.Context, drvs []string) ([]Realisation, error) {
	found, err := s.realisationInfo(ctx, drvs)
	switch {
	case says(err, noFloating), says(err, notBuilt) && len(drvs) == 1:
		return nil, nil
	case !says(err, notBuilt):
		return found, err
	}
	for _, drv := range drvs {
		more, err := s.realisations(ctx, []string{drv})
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// realisationInfo runs "nix realisation info". All outputs of a derivation are its
// path up to Nix 2.14, and with ^* from 2.13 on.
func (s *Store) realisationInfo(ctx context.Context, drvs []string) ([]Realisation, error) {
	outputs := make([]string, len(drvs))
	for i, drv := range drvs {
		outputs[i] = drv + "^*"
	}
	found, err := s.askRealisations(ctx, outputs)
	if errors.As(err, new(*CommandError)) && !says(err, notBuilt) && !says(err, noFloating) {
		found, err = s.askRealisations(ctx, drvs)
	}
	return found, err
}

func (s *Store) askRealisations(ctx context.Context, installables []string) ([]Realisation, error) {
	// With --offline, no substituter is asked.
	args := append([]string{"--offline", "--extra-experimental-features", "nix-command",
		"realisation", "info", "--json"}, installables...)
	out, err := s.nix.output(ctx, "nix", args...)
	if err != nil {
		return nil, err
	}
	return parseRealisations(out)
}

// parseRealisations reads the answer: an array of what a binary cache has as one
// file each, and of paths that have no realisation.
func parseRealisations(text []byte) (found []Realisation, err error) {
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	for _, raw := range all {
		var r struct{ ID, OutPath string }
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, err
		}
		p, err := storepath.Parse(r.OutPath)
		if err == nil && realisationID.MatchString(r.ID) {
			found = append(found, Realisation{ID: r.ID, Path: p, Text: raw})
		}
	}
	return found, nil
}
