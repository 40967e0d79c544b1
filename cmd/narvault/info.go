package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// infoCommand is "narvault info".
type infoCommand struct {
	s    streams
	json bool
}

func (c *infoCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:         "info BACKUP [PATH|P/N]",
		Short:       "Describe a backup, a release, a store path or a file",
		Annotations: map[string]string{uncaught: ""},
		Args:        argRange(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := ""
			if len(args) == 2 {
				p = args[1]
			}
			return c.run(cmd.Context(), args[0], p)
		},
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "write JSON")
	return cmd
}

func (c *infoCommand) run(ctx context.Context, dir, path string) error {
	b, err := openBackup(dir, c.s.err)
	if err != nil {
		return err
	}
	defer b.Close()
	if path == "" {
		return c.backup(ctx, b)
	}
	if id, isRelease := releaseArgument(b, path); isRelease {
		return c.release(b, id)
	}
	place, err := findPath(b, path, false)
	if err != nil {
		return err
	}
	if place.Node != nil {
		defer place.Node.Close()
		return c.node(b, place.Node)
	}
	switch {
	case place.ID.Name != "":
		return c.release(b, place.ID)
	case place.Dir != "":
		return usageErrorf("%s is a list; \"narvault ls\" shows what is in it", path)
	}
	return c.backup(ctx, b)
}

// A backupInfo describes a whole backup.
type backupInfo struct {
	Version  int                `json:"version"`
	Dir      string             `json:"dir"`
	ID       string             `json:"id,omitempty"`
	Created  *time.Time         `json:"created,omitempty"`
	StoreDir string             `json:"storeDir"`
	Releases []backup.ReleaseID `json:"releases"`
	backup.Totals
}

func (c *infoCommand) backup(ctx context.Context, b *backup.Backup) error {
	totals, damage, err := b.Totals(ctx)
	if err != nil {
		return err
	}
	ids, err := b.Releases()
	if err != nil {
		return err
	}
	info := backupInfo{
		Version: backup.FormatVersion, Dir: b.Dir(), StoreDir: b.Cache.StoreDir(),
		Releases: append([]backup.ReleaseID{}, ids...), Totals: totals,
	}
	kind := "binary cache"
	if !b.Foreign() {
		kind = "backup"
	}
	if config := b.Config(); config.ID != "" {
		info.ID, info.Created = config.ID, &config.Created
	}
	if err := c.print(info, func(t *table) {
		t.row(kind, b.Dir())
		if info.Created != nil {
			t.row("id", info.ID)
			t.row("created", info.Created.Format(time.RFC3339))
		}
		t.row("store directory", info.StoreDir)
		t.row("releases", fmt.Sprint(len(ids)))
		t.row("store paths", fmt.Sprint(totals.Paths))
		t.row("as NARs", size(totals.NarSize))
		t.row("NAR files", fmt.Sprintf("%d, %s", totals.NarFiles, size(totals.FileSize)))
	}); err != nil {
		return err
	}
	return damage
}

func (c *infoCommand) release(b *backup.Backup, id backup.ReleaseID) error {
	r, err := b.Release(id)
	if err != nil {
		return err
	}
	paths, err := b.Closure(id)
	if err != nil {
		return err
	}
	return c.print(r, func(t *table) {
		t.row("release", id.String())
		t.optional("description", r.Description)
		t.optional("method", string(r.Method))
		if !r.Created.IsZero() {
			t.row("created", r.Created.Format(time.RFC3339))
		}
		t.optional("from", origin(&r.Source))
		t.row("store paths", fmt.Sprint(len(paths)))
		if r.NarSize > 0 {
			t.row("as NARs", size(r.NarSize))
		}
		for _, root := range r.Roots {
			text := root.StorePath.In(b.Cache.StoreDir())
			if root.Build != 0 {
				text += fmt.Sprintf("  (%s.%s, %s, build %d)", root.Job, root.System, root.Output, root.Build)
			}
			t.row("root", text)
		}
	})
}

// origin says where a release was taken from, if that is not a Nix store.
func origin(s *backup.Source) string {
	switch {
	case s.Kind == "hydra" && s.Evaluation != 0:
		return fmt.Sprintf("Hydra, database %s, evaluation %d", s.Database, s.Evaluation)
	case s.Kind == "hydra":
		return fmt.Sprintf("Hydra, database %s", s.Database)
	case s.Kind == "cache":
		return "another backup or binary cache"
	}
	return ""
}

// A pathInfo describes a store path, or a file in one.
type pathInfo struct {
	Version    int              `json:"version"`
	StorePath  string           `json:"storePath"`
	File       string           `json:"file,omitempty"`
	Type       string           `json:"type"`
	Size       *int64           `json:"size,omitempty"`
	Executable bool             `json:"executable,omitempty"`
	Target     string           `json:"target,omitempty"`
	NarHash    narinfo.Hash     `json:"narHash"`
	NarSize    int64            `json:"narSize"`
	Entries    int              `json:"entries"` // files, directories and links in the archive
	URL        string           `json:"url"`
	Compress   string           `json:"compression"`
	FileSize   int64            `json:"fileSize,omitempty"`
	References []storepath.Path `json:"references"`
	Deriver    storepath.Path   `json:"deriver,omitempty"`
	Sigs       []string         `json:"signatures,omitempty"`
	CA         string           `json:"ca,omitempty"`
}

func (c *infoCommand) node(b *backup.Backup, n *backup.Node) error {
	narInfo, err := b.Cache.Lookup(n.Path)
	if err != nil {
		return err
	}
	e := n.Listing.Entry(n.Entry)
	info := pathInfo{
		Version: backup.FormatVersion, StorePath: n.Path.In(narInfo.StoreDir), File: n.Listing.Path(n.Entry),
		Type: e.Type.String(), Executable: e.Executable, Target: e.Target,
		NarHash: narInfo.NarHash, NarSize: narInfo.NarSize, Entries: n.Listing.Len(),
		URL: narInfo.URL, Compress: narInfo.Compression, FileSize: narInfo.FileSize,
		References: append([]storepath.Path{}, narInfo.References...), Deriver: narInfo.Deriver,
		Sigs: narInfo.Sigs, CA: narInfo.CA,
	}
	if e.Type == nar.Regular {
		info.Size = &e.Size
	}
	return c.print(info, func(t *table) { info.rows(t) })
}

func (info *pathInfo) rows(t *table) {
	t.row("store path", info.StorePath)
	t.optional("file", info.File)
	t.row("type", info.Type)
	if info.Size != nil {
		t.row("size", fmt.Sprintf("%d bytes", *info.Size))
		t.row("executable", fmt.Sprint(info.Executable))
	}
	t.optional("target", info.Target)
	t.row("NAR hash", info.NarHash.String())
	t.row("NAR size", fmt.Sprintf("%d bytes, %d entries", info.NarSize, info.Entries))
	t.row("NAR file", fmt.Sprintf("%s, %s, %d bytes", info.URL, info.Compress, info.FileSize))
	for _, ref := range info.References {
		t.row("reference", string(ref))
	}
	t.optional("deriver", string(info.Deriver))
	for _, sig := range info.Sigs {
		t.row("signature", sig)
	}
	t.optional("content address", info.CA)
}

// print writes v as JSON, or what text makes of it.
func (c *infoCommand) print(v any, text func(*table)) error {
	if c.json {
		return printJSON(c.s.out, v)
	}
	t := &table{w: tabwriter.NewWriter(c.s.out, 0, 0, 2, ' ', 0), tty: terminal(c.s.out)}
	text(t)
	return t.w.Flush()
}

// A table has two columns: what it is, and its value.
type table struct {
	w interface {
		io.Writer
		Flush() error
	}
	tty bool
}

func (t *table) row(key, value string) { fmt.Fprintf(t.w, "%s\t%s\n", key, shown(value, t.tty)) }

func (t *table) optional(key, value string) {
	if value != "" {
		t.row(key, value)
	}
}
