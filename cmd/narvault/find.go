package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// findCommand is "narvault find".
type findCommand struct {
	s          streams
	tty        bool
	releases   []string
	ignoreCase bool
	types      string
	long       bool
	json       bool
}

func (c *findCommand) cobra(s streams) *cobra.Command {
	c.s, c.tty = s, terminal(s.out)
	cmd := &cobra.Command{
		Use:   "find BACKUP PATTERN",
		Short: "Find archived files by name, in all releases at once",
		Long: `Lists the archived files, directories and symlinks whose name matches PATTERN, as
PATH arguments for the other commands. In PATTERN, * stands for any characters,
? for one, [...] for one of these.

A PATTERN without a slash is compared with the last component of each path, at
the top of a store path with its HASH-NAME. One with slashes is compared with all
that is below the store path; ** stands for any number of directories there:

  narvault find /media/backup 'libssl.so*'
  narvault find /media/backup 'bin/hello'
  narvault find /media/backup 'share/**/*.conf'

No archive is unpacked: the index knows what is in each. An index that is missing
or out of date (of a foreign or read-only cache) is made first.`,
		Args: argRange(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.releases, "release", nil, "look only in the release `PROJECT/NAME` (may be repeated)")
	f.BoolVarP(&c.ignoreCase, "ignore-case", "i", false, "take upper and lower case for the same")
	f.StringVarP(&c.types, "type", "t", "", "list only files (f), directories (d), symlinks (l), executables (x), or several of these")
	f.BoolVarP(&c.long, "long", "l", false, "show mode, size and the targets of symlinks")
	f.BoolVar(&c.json, "json", false, "write JSON")
	return cmd
}

func (c *findCommand) run(ctx context.Context, dir, text string) error {
	p, err := c.pattern(text)
	if err != nil {
		return err
	}
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	live := backup.NewLive(b, func(err error) { c.warn(err) })
	c.useIndex(ctx, live)
	defer live.CloseIndex()
	paths, err := c.paths(live)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.s.out)
	found, err := c.search(ctx, live, paths, p, out)
	if err == nil || errors.Is(err, errDamage) {
		if c.json {
			err = errors.Join(err, printJSON(out, found))
		}
	}
	// What was found is said, whatever became of the rest.
	return errors.Join(err, out.Flush())
}

func (c *findCommand) warn(err error) {
	fmt.Fprintf(c.s.err, "narvault: %s\n", message(err.Error()))
}

// useIndex brings the index up to date if nobody else does. Without one, the
// archives are read.
func (c *findCommand) useIndex(ctx context.Context, live *backup.Live) {
	err := live.UseIndex()
	if err == nil {
		err = live.TendIndex(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.warn(fmt.Errorf("slower, without index: %w", err))
	}
}

// paths returns the store paths to look into, sorted.
func (c *findCommand) paths(live *backup.Live) ([]storepath.Path, error) {
	if len(c.releases) == 0 {
		return live.Paths()
	}
	var all []storepath.Path
	for _, name := range c.releases {
		id, err := backup.ParseReleaseID(name)
		if err != nil {
			return nil, err
		}
		closure, err := live.Closure(id)
		if err != nil {
			return nil, err
		}
		all = append(all, closure...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// A finding is the JSON of "narvault find".
type finding struct {
	Version int     `json:"version"`
	Matches []match `json:"matches"`
}

// A match is an archived file that was looked for.
type match struct {
	StorePath string `json:"storePath"`
	Path      string `json:"path"`                // below the store path, "" for itself
	PathBytes []byte `json:"pathBytes,omitempty"` // when path is not UTF-8
	Type      string `json:"type"`
	Size      *int64 `json:"size,omitempty"` // bytes, of a regular file
	Target    string `json:"target,omitempty"`

	entry nar.Entry
}

// searchGroup is how many store paths are searched before their matches are
// written: it bounds what is held in memory.
const searchGroup = 256

// search looks through the listings of paths, on all processors, and writes
// what it finds in their order. Store paths that cannot be listed are named,
// and make the result errDamage.
func (c *findCommand) search(ctx context.Context, live *backup.Live, paths []storepath.Path, p *pattern, w io.Writer) (finding, error) {
	found := finding{Version: backup.FormatVersion, Matches: []match{}}
	damaged := 0
	for group := range slices.Chunk(paths, searchGroup) {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		for _, r := range searchGroupOf(live, group, p) {
			if r.err != nil {
				damaged++
				c.warn(r.err)
			}
			if c.json {
				found.Matches = append(found.Matches, r.matches...)
				continue
			}
			for _, m := range r.matches {
				c.line(w, m)
			}
		}
	}
	if damaged > 0 {
		return found, fmt.Errorf("%w: %s could not be searched", errDamage, count(damaged, "store path"))
	}
	return found, nil
}

type searched struct {
	matches []match
	err     error
}

func searchGroupOf(live *backup.Live, paths []storepath.Path, p *pattern) []searched {
	results := make([]searched, len(paths))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, path := range paths {
		g.Go(func() error {
			results[i].matches, results[i].err = searchPath(live, path, p)
			return nil
		})
	}
	g.Wait()
	return results
}

func searchPath(live *backup.Live, path storepath.Path, p *pattern) (matches []match, err error) {
	tree, err := live.OpenTree(path)
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	l, err := tree.Listing()
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", path, err)
	}
	for i := range l.Len() {
		if e := l.Entry(i); p.matches(path, l, i, e) {
			matches = append(matches, newMatch(path, l.Path(i), e))
		}
	}
	return matches, nil
}

func newMatch(path storepath.Path, below string, e nar.Entry) match {
	m := match{StorePath: string(path), Path: below, Type: e.Type.String(), Target: e.Target, entry: e}
	if e.Type == nar.Regular {
		m.Size = &m.entry.Size
	}
	if !utf8.ValidString(below) {
		m.PathBytes = []byte(below)
	}
	return m
}

func (c *findCommand) line(w io.Writer, m match) {
	name := m.StorePath
	if m.Path != "" {
		name += "/" + m.Path
	}
	writeEntry(w, m.entry, name, c.long, c.tty)
}
