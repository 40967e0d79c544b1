package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A Method says what belongs to a release beside its roots. The words are
// those of the nix-store manual page, under --query --requisites.
type Method string

// The methods.
const (
	Binary     Method = "binary" // the closure of outputs: all that is needed to run them
	SourceOnly Method = "source" // the closure of derivations: all that is needed to build them
	Cached     Method = "cached" // the closure of derivations and the outputs that are valid
)

// ParseMethod accepts a method's name; "cache" is the old way to write cached.
func ParseMethod(s string) (Method, error) {
	switch m := Method(s); m {
	case Binary, SourceOnly, Cached:
		return m, nil
	case "cache":
		return Cached, nil
	}
	return "", fmt.Errorf("method %q is not binary, source or cached", s)
}

// A Store is where store paths are backed up from; *nixstore.Store is the local
// Nix store, and FromCache makes one of a binary cache.
type Store interface {
	Dir() string
	// Dump writes the NAR of a path to w and returns its listing, and warnings
	// about what newer or other Nix would refuse. That it has the recorded hash is
	// for the caller to check.
	Dump(ctx context.Context, w io.Writer, p storepath.Path) (*nar.Listing, []string, error)
	// RealPath says where the content of a path is, for messages.
	RealPath(storepath.Path) string
	Lock(context.Context, []storepath.Path) error
	Closure(ctx context.Context, roots []storepath.Path, includeOutputs bool) ([]storepath.Path, error)
	Infos(context.Context, []storepath.Path) ([]nixstore.PathInfo, error)
	Derivation(storepath.Path) (*nixstore.Derivation, error)
	MissingOutputs(ctx context.Context, drvs []storepath.Path) ([]nixstore.MissingOutput, error)
	Realise(ctx context.Context, drvs []storepath.Path) error
}

// A selection is what a request comes to: every store path of the release.
type selection struct {
	roots   []Root
	closure []storepath.Path // sorted
	missing []nixstore.MissingOutput
}

// selectPaths finds out what belongs to a release, and protects it from Nix's
// garbage collector for as long as the store is open.
func selectPaths(ctx context.Context, store Store, req *Request) (*selection, error) {
	tops, err := lockTops(ctx, store, req)
	if err != nil {
		return nil, err
	}
	if req.ForceRealise && req.Method == Cached {
		if err := realiseClosure(ctx, store, tops); err != nil {
			return nil, err
		}
	}
	s := new(selection)
	if s.closure, err = store.Closure(ctx, tops, req.Method == Cached); err != nil {
		return nil, err
	}
	slices.Sort(s.closure)
	if err := store.Lock(ctx, s.closure); err != nil {
		return nil, err
	}
	if req.Method == Cached {
		if s.missing, err = store.MissingOutputs(ctx, derivations(s.closure)); err != nil {
			return nil, err
		}
	}
	if req.byRecord() {
		s.roots = rootsFor(req.Method, req.Record.Roots)
		return s, nil
	}
	s.roots, err = describe(ctx, store, req.Method, tops, s.closure)
	return s, err
}

// lockTops returns the paths whose closure is asked for, locked in the store.
func lockTops(ctx context.Context, store Store, req *Request) ([]storepath.Path, error) {
	if req.byRecord() {
		return lockRoots(ctx, store, req)
	}
	args := slices.Compact(slices.Sorted(slices.Values(req.Roots)))
	if len(args) == 0 {
		return nil, errors.New("no store path to back up")
	}
	if err := store.Lock(ctx, args); err != nil {
		return nil, err
	}
	return methodRoots(ctx, store, req.Method, args)
}

// methodRoots returns the paths whose closure the method asks for: derivations,
// found through their outputs where need be, unless the method is binary.
func methodRoots(ctx context.Context, store Store, m Method, args []storepath.Path) ([]storepath.Path, error) {
	if m == Binary {
		return args, nil
	}
	infos, err := store.Infos(ctx, args)
	if err != nil {
		return nil, err
	}
	var drvs []storepath.Path
	for _, info := range infos {
		switch {
		case info.Path.IsDerivation():
			drvs = append(drvs, info.Path)
		case info.Deriver == "":
			return nil, fmt.Errorf("%s has no known deriver: give its .drv, or use --method binary", info.Path.In(store.Dir()))
		default:
			drvs = append(drvs, info.Deriver)
		}
	}
	slices.Sort(drvs)
	drvs = slices.Compact(drvs)
	err = store.Lock(ctx, drvs)
	var invalid *nixstore.InvalidPathsError
	if errors.As(err, &invalid) {
		return nil, fmt.Errorf("the derivations are not in the store any more, instantiate them again or use --method binary: %w", err)
	}
	return drvs, err
}

func realiseClosure(ctx context.Context, store Store, tops []storepath.Path) error {
	closure, err := store.Closure(ctx, tops, false)
	if err != nil {
		return err
	}
	return store.Realise(ctx, derivations(closure))
}

func derivations(paths []storepath.Path) []storepath.Path {
	var drvs []storepath.Path
	for _, p := range paths {
		if p.IsDerivation() {
			drvs = append(drvs, p)
		}
	}
	return drvs
}

// describe makes the root records of a release. What Nix no longer knows (a
// derivation that was collected) is left out of them.
func describe(ctx context.Context, store Store, m Method, tops, closure []storepath.Path) ([]Root, error) {
	infos, err := store.Infos(ctx, tops)
	if err != nil {
		return nil, err
	}
	var roots []Root
	for _, info := range infos {
		switch {
		case m == Cached:
			roots = append(roots, outputRoots(store, info.Path, closure)...)
		case info.Path.IsDerivation():
			roots = append(roots, derivationRoot(store, info.Path))
		default:
			roots = append(roots, outputRoot(store, info))
		}
	}
	return roots, nil
}

// outputRoots returns a root for each output of drv that is archived; if none
// is, the derivation is the root.
func outputRoots(store Store, drv storepath.Path, closure []storepath.Path) []Root {
	base := derivationRoot(store, drv)
	d, err := store.Derivation(drv)
	if err != nil {
		return []Root{base}
	}
	var roots []Root
	for _, name := range sortedKeys(d.Outputs) {
		if _, archived := slices.BinarySearch(closure, d.Outputs[name]); archived {
			root := base
			root.Output, root.StorePath = name, d.Outputs[name]
			roots = append(roots, root)
		}
	}
	if roots == nil {
		return []Root{base}
	}
	return roots
}

func derivationRoot(store Store, drv storepath.Path) Root {
	root := Root{StorePath: drv, DrvPath: drv, NixName: trimDrv(drv.Name())}
	if d, err := store.Derivation(drv); err == nil {
		root.System = d.System
		root.NixName = d.Name
	}
	root.Job = packageName(root.NixName)
	return root
}

func outputRoot(store Store, info nixstore.PathInfo) Root {
	root := Root{StorePath: info.Path, DrvPath: info.Deriver, NixName: info.Path.Name()}
	if info.Deriver != "" {
		if d, err := store.Derivation(info.Deriver); err == nil {
			root.System, root.NixName = d.System, d.Name
			for _, name := range sortedKeys(d.Outputs) {
				if d.Outputs[name] == info.Path {
					root.Output = name
				}
			}
		}
	}
	root.Job = packageName(root.NixName)
	return root
}
