package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/storepath"
)

// A Build is what release.json says about a build of Hydra's.
type Build struct {
	ID          int64     `json:"id"`
	Finished    time.Time `json:"finished"`
	Description string    `json:"description,omitempty"`
	Products    []Product `json:"products,omitempty"`
}

// A Product is a file in an output that Hydra offers, such as a manual or an
// installation image.
type Product struct {
	Type        string `json:"type"` // "file", "doc", ...
	Subtype     string `json:"subtype,omitempty"`
	Name        string `json:"name"`
	Path        string `json:"path,omitempty"`        // absolute
	Size        int64  `json:"size,omitempty"`        // bytes, 0 for a directory
	SHA256      string `json:"sha256,omitempty"`      // hexadecimal
	DefaultPath string `json:"defaultPath,omitempty"` // what to show of a directory
}

// A GoneError names roots that are not where they are to be backed up from.
type GoneError struct {
	Roots []Root
	Total int    // how many there are in all
	Where string // they are not, for messages: "in the store"
	Err   error
}

// rootsShown bounds the text of errors that could name every root.
const rootsShown = 20

func (e *GoneError) Error() string {
	var names []string
	for _, r := range e.Roots[:min(len(e.Roots), rootsShown)] {
		names = append(names, "\n  "+r.describe())
	}
	if more := len(e.Roots) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("\n  and %d more", more))
	}
	return fmt.Sprintf("%d of %d are not %s any more (Hydra lets its garbage collector have what nothing keeps): "+
		"take them from another cache, with --from, or leave these builds out:%s", len(e.Roots), e.Total, e.Where, strings.Join(names, ""))
}

// Unwrap returns the store's own error.
func (e *GoneError) Unwrap() error { return e.Err }

// describe names a root for messages.
func (r *Root) describe() string {
	text := r.Job
	if r.System != "" {
		text += "." + r.System
	}
	if r.Output != "" {
		text += ", output " + r.Output
	}
	if r.Build != 0 {
		text += fmt.Sprintf(", build %d", r.Build)
	}
	return fmt.Sprintf("%s: %s", text, r.StorePath)
}

// byRecord reports whether the roots are those of the record.
func (req *Request) byRecord() bool { return req.Record != nil && len(req.Roots) == 0 }

// rootsFor returns roots as a method has them: with source, a release is made of
// derivations.
func rootsFor(m Method, roots []Root) []Root {
	if m != SourceOnly {
		return roots
	}
	seen := make(map[Root]bool)
	var derivations []Root
	for _, r := range roots {
		r.StorePath, r.Output = r.DrvPath, ""
		if !seen[r] {
			seen[r] = true
			derivations = append(derivations, r)
		}
	}
	return derivations
}

// lockRoots returns the store paths whose closure the method asks for, locked in
// the store. Those that are gone are a *GoneError.
func lockRoots(ctx context.Context, store Store, req *Request) ([]storepath.Path, error) {
	roots := req.Record.Roots
	wanted := rootsFor(req.Method, roots)
	switch {
	case req.ForceRealise:
		wanted = rootsFor(SourceOnly, roots)
	case req.Method == Cached:
		// Also the derivations: an output may have several, and Nix remembers one.
		wanted = slices.Concat(roots, rootsFor(SourceOnly, roots))
	}
	var tops []storepath.Path
	for _, r := range wanted {
		tops = append(tops, r.StorePath)
	}
	if len(tops) == 0 {
		return nil, errors.New("the release has no roots: there is nothing to back up")
	}
	slices.Sort(tops)
	tops = slices.Compact(tops)
	err := store.Lock(ctx, tops)
	var invalid *nixstore.InvalidPathsError
	if !errors.As(err, &invalid) {
		return tops, err
	}
	gone := &GoneError{Total: len(wanted), Where: placeOf(store), Err: err}
	for _, r := range wanted {
		if _, found := slices.BinarySearch(invalid.Paths, r.StorePath); found {
			gone.Roots = append(gone.Roots, r)
		}
	}
	return nil, gone
}

// placeOf says where the paths of a store are, for messages.
func placeOf(store Store) string {
	if other, ok := store.(interface{ where() string }); ok {
		return other.where()
	}
	return "in the store"
}
