package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// lsCommand is "narvault ls".
type lsCommand struct {
	s         streams
	long      bool
	recursive bool
	json      bool
	tty       bool
}

func (c *lsCommand) cobra(s streams) *cobra.Command {
	c.s, c.tty = s, terminal(s.out)
	cmd := &cobra.Command{
		Use:         "ls BACKUP [PATH]",
		Short:       "List releases, store paths and archived files",
		Annotations: map[string]string{uncaught: ""},
		Long: `Lists a backup, or any other binary cache. PATH is

  releases, releases/PROJECT             releases
  PROJECT/NAME, releases/PROJECT/NAME    the store paths of a release
  jobs/PROJECT/NAME                      its jobs, below each its outputs
  store                                  all store paths
  a store path, its hash part, store/HASH-NAME, releases/PROJECT/NAME/HASH-NAME or
  jobs/PROJECT/NAME/JOB.SYSTEM/OUTPUT,
  and what is below it                   archived files
  a path in a mount of the backup        what that shows`,
		Args: argRange(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := ""
			if len(args) == 2 {
				p = args[1]
			}
			return c.run(cmd, args[0], p)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&c.long, "long", "l", false, "show mode, size and the targets of symlinks")
	f.BoolVarP(&c.recursive, "recursive", "R", false, "list what is in directories, too")
	f.BoolVar(&c.json, "json", false, "write JSON")
	return cmd
}

func (c *lsCommand) run(cmd *cobra.Command, dir, path string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	if id, isRelease := releaseArgument(b, path); isRelease {
		path = "releases/" + id.String()
	}
	if path, err = insideMount(b, path); err != nil {
		return err
	}
	out := bufio.NewWriter(c.s.out)
	if isJob, err := c.jobs(out, b, path); isJob {
		return errors.Join(err, out.Flush())
	}
	place, err := findPath(b, path, false)
	if err != nil {
		return err
	}
	switch {
	case place.Node != nil:
		defer place.Node.Close()
		err = c.node(out, place.Node)
	case place.ID.Name != "":
		err = c.release(out, b, place.ID)
	case place.Dir == "releases":
		err = c.releases(out, b, place.ID.Project)
	case place.Dir == "store":
		err = c.store(cmd, out, b)
	default:
		err = c.directories(out, []string{jobsDir, "releases", "store"})
	}
	// What could be listed is, whatever became of the rest.
	return errors.Join(err, out.Flush())
}

// A listing is the JSON of a list of names: one of the lists is there.
type listing struct {
	Version     int      `json:"version"`
	Directories []string `json:"directories,omitzero"`
	Releases    []string `json:"releases,omitzero"`
	StorePaths  []string `json:"storePaths,omitzero"`
	StorePath   string   `json:"storePath,omitempty"`

	Outputs map[string]storepath.Path `json:"outputs,omitempty"` // of a job
	Entry   *jsonEntry                `json:"entry,omitempty"`
}

// names lists words; in JSON they are the list that in returns.
func (c *lsCommand) names(w io.Writer, in func(*listing) *[]string, names []string) error {
	if c.json {
		l := listing{Version: backup.FormatVersion}
		*in(&l) = append([]string{}, names...)
		return printJSON(w, l)
	}
	for _, name := range names {
		fmt.Fprintln(w, shown(name, c.tty))
	}
	return nil
}

// releases lists all of them, or those of one project.
func (c *lsCommand) releases(w io.Writer, b *backup.Backup, project string) error {
	ids, err := b.Releases()
	if err != nil {
		return err
	}
	var names []string
	for _, id := range ids {
		if project == "" || id.Project == project {
			names = append(names, id.String())
		}
	}
	if project != "" && names == nil {
		return fmt.Errorf("project %s %w", project, backup.ErrNoRelease)
	}
	return c.names(w, func(l *listing) *[]string { return &l.Releases }, names)
}

func (c *lsCommand) release(w io.Writer, b *backup.Backup, id backup.ReleaseID) error {
	paths, err := b.Closure(id)
	if err != nil {
		return err
	}
	return c.storePaths(w, paths)
}

// store lists every store path of the backup. Damaged narinfos are named and
// make the command fail, after the others.
func (c *lsCommand) store(cmd *cobra.Command, w io.Writer, b *backup.Backup) error {
	paths, damage, err := b.Paths(cmd.Context())
	if err != nil {
		return err
	}
	return errors.Join(c.storePaths(w, paths), damage)
}

func (c *lsCommand) storePaths(w io.Writer, paths []storepath.Path) error {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = string(p)
	}
	return c.names(w, func(l *listing) *[]string { return &l.StorePaths }, names)
}

// node lists a directory, or shows a file or symlink.
func (c *lsCommand) node(w io.Writer, n *backup.Node) error {
	e := n.Listing.Entry(n.Entry)
	if c.json {
		entry := c.tree(n, n.Entry, 0)
		return printJSON(w, listing{Version: backup.FormatVersion, StorePath: string(n.Path), Entry: &entry})
	}
	if e.Type != nar.Directory {
		c.line(w, e, path.Base(n.Name()))
		return nil
	}
	c.children(w, n, e, "")
	return nil
}

// children lists the entries of a directory; it uses a stack of its own,
// because archives may be deep.
func (c *lsCommand) children(w io.Writer, n *backup.Node, dir nar.Entry, prefix string) {
	type level struct {
		next, end int
		prefix    string
	}
	stack := []level{{dir.First, dir.First + dir.N, prefix}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == top.end {
			stack = stack[:len(stack)-1]
			continue
		}
		e := n.Listing.Entry(top.next)
		top.next++
		name := top.prefix + e.Name
		c.line(w, e, name)
		if c.recursive && e.Type == nar.Directory {
			stack = append(stack, level{e.First, e.First + e.N, name + "/"})
		}
	}
}

func (c *lsCommand) line(w io.Writer, e nar.Entry, name string) {
	writeEntry(w, e, name, c.long, c.tty)
}

// writeEntry writes the line of an archived file.
func writeEntry(w io.Writer, e nar.Entry, name string, long, tty bool) {
	name = shown(name, tty)
	if !long {
		fmt.Fprintln(w, name)
		return
	}
	target := ""
	if e.Type == nar.Symlink {
		target = " -> " + shown(e.Target, tty)
	}
	fmt.Fprintf(w, "%s %12d %s%s\n", mode(e), e.Size, name, target)
}

func mode(e nar.Entry) string {
	switch {
	case e.Type == nar.Directory:
		return "dr-xr-xr-x"
	case e.Type == nar.Symlink:
		return "lrwxrwxrwx"
	case e.Executable:
		return "-r-xr-xr-x"
	}
	return "-r--r--r--"
}

// A jsonEntry is a node of the archive, with the words of Nix's listings. JSON
// has no bytes: names and targets that are not UTF-8 are there a second time,
// in base64.
type jsonEntry struct {
	Name        string      `json:"name,omitempty"`
	NameBytes   []byte      `json:"nameBytes,omitempty"`
	Type        string      `json:"type"`
	Size        *int64      `json:"size,omitempty"`
	Executable  bool        `json:"executable,omitempty"`
	Target      string      `json:"target,omitempty"`
	TargetBytes []byte      `json:"targetBytes,omitempty"`
	Entries     []jsonEntry `json:"entries,omitempty"`
}

// tree describes an entry and its children, with --recursive all below it. The
// depth is bounded by what package nar accepts.
func (c *lsCommand) tree(n *backup.Node, entry, depth int) jsonEntry {
	e := n.Listing.Entry(entry)
	j := jsonEntry{Name: e.Name, Type: e.Type.String(), Executable: e.Executable, Target: e.Target}
	if e.Type == nar.Regular {
		j.Size = &e.Size
	}
	if !utf8.ValidString(e.Name) {
		j.NameBytes = []byte(e.Name)
	}
	if !utf8.ValidString(e.Target) {
		j.TargetBytes = []byte(e.Target)
	}
	if depth == 0 || c.recursive {
		for i := range e.N {
			j.Entries = append(j.Entries, c.tree(n, e.First+i, depth+1))
		}
	}
	return j
}
