package main

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// A pattern says which entries of a listing are looked for.
type pattern struct {
	glob  string
	whole bool // glob is for the path below the store path, not for a name
	fold  bool // upper and lower case are the same
	types string
}

// pattern makes a pattern of the argument and the flags.
func (c *findCommand) pattern(text string) (*pattern, error) {
	p := &pattern{glob: strings.Trim(text, "/"), whole: strings.Contains(text, "/"), fold: c.ignoreCase, types: c.types}
	if p.glob == "" || !doublestar.ValidatePattern(p.glob) {
		return nil, usageErrorf("%q is no pattern: see \"narvault find --help\"", text)
	}
	if strings.Trim(p.types, "fdlx") != "" {
		return nil, usageErrorf("--type is made of f (files), d (directories), l (symlinks), x (executables): %q", p.types)
	}
	if p.fold {
		p.glob = strings.ToLower(p.glob)
	}
	return p, nil
}

// matches reports whether entry i of the listing of path, which is e, is looked
// for.
func (p *pattern) matches(path storepath.Path, l *nar.Listing, i int, e nar.Entry) bool {
	if !p.typed(e) {
		return false
	}
	name := e.Name
	switch {
	case p.whole:
		name = l.Path(i)
	case i == 0:
		name = string(path)
	}
	if p.fold {
		name = strings.ToLower(name)
	}
	// The pattern is valid, so there is no error.
	ok, _ := doublestar.Match(p.glob, name)
	return ok
}

func (p *pattern) typed(e nar.Entry) bool {
	switch {
	case p.types == "":
		return true
	case e.Type == nar.Directory:
		return strings.Contains(p.types, "d")
	case e.Type == nar.Symlink:
		return strings.Contains(p.types, "l")
	}
	return strings.Contains(p.types, "f") || e.Executable && strings.Contains(p.types, "x")
}
