package backup

import (
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// A Difference is what one release has and another has not.
type Difference struct {
	Packages []PackageDifference `json:"packages"` // sorted by name
	Common   int                 `json:"common"`   // store paths that both have
	Removed  []storepath.Path    `json:"removed"`  // only the first has them
	Added    []storepath.Path    `json:"added"`    // only the second has them
	NarSize  int64               `json:"narSize"`  // bytes by which the second is larger, as NARs
}

// A PackageDifference is what of a package differs between two releases. Where
// the versions are the same on both sides, it was built anew, from other
// sources or with other dependencies.
type PackageDifference struct {
	Name    string   `json:"name"`
	Before  []string `json:"before"` // versions, sorted; "" is a package without version
	After   []string `json:"after"`
	NarSize int64    `json:"narSize"` // bytes by which the second is larger, as NARs
}

// Diff compares the closures of two releases.
func (b *Backup) Diff(before, after ReleaseID) (*Difference, error) {
	old, err := b.Closure(before)
	if err != nil {
		return nil, err
	}
	recent, err := b.Closure(after)
	if err != nil {
		return nil, err
	}
	old, recent = slices.Sorted(slices.Values(old)), slices.Sorted(slices.Values(recent))
	d := &Difference{Removed: subtract(old, recent), Added: subtract(recent, old)}
	d.Common = len(old) - len(d.Removed)
	packages := make(map[string]*PackageDifference)
	for _, p := range d.Removed {
		if err := d.take(b, packages, p, false); err != nil {
			return nil, err
		}
	}
	for _, p := range d.Added {
		if err := d.take(b, packages, p, true); err != nil {
			return nil, err
		}
	}
	d.Packages = make([]PackageDifference, 0, len(packages))
	for _, name := range sortedKeys(packages) {
		p := packages[name]
		p.Before, p.After = versions(p.Before), versions(p.After)
		d.Packages = append(d.Packages, *p)
	}
	return d, nil
}

// take counts a store path that only one side has.
func (d *Difference) take(b *Backup, packages map[string]*PackageDifference, path storepath.Path, added bool) error {
	info, err := b.Cache.Lookup(path)
	if err != nil {
		return b.promised(path, err)
	}
	name := packageName(path.Name())
	version := strings.TrimPrefix(path.Name()[len(name):], "-")
	p := packages[name]
	if p == nil {
		p = &PackageDifference{Name: name}
		packages[name] = p
	}
	change := info.NarSize
	if added {
		p.After = append(p.After, version)
	} else {
		p.Before = append(p.Before, version)
		change = -change
	}
	p.NarSize += change
	d.NarSize += change
	return nil
}

func versions(all []string) []string {
	slices.Sort(all)
	return append([]string{}, slices.Compact(all)...)
}

// WhyDepends returns a shortest chain of references from one store path to
// another, both included, or nil when the first does not need the second.
func (b *Backup) WhyDepends(from, to storepath.Path) ([]storepath.Path, error) {
	parent := map[storepath.Path]storepath.Path{from: from}
	todo := []storepath.Path{from}
	for len(todo) > 0 && parent[to] == "" {
		p := todo[0]
		todo = todo[1:]
		info, err := b.Cache.Lookup(p)
		if err != nil {
			return nil, b.promised(p, err)
		}
		for _, ref := range info.References {
			if parent[ref] == "" {
				parent[ref] = p
				todo = append(todo, ref)
			}
		}
	}
	if parent[to] == "" {
		return nil, nil
	}
	chain := []storepath.Path{to}
	for p := to; p != from; {
		p = parent[p]
		chain = append(chain, p)
	}
	slices.Reverse(chain)
	return chain, nil
}
