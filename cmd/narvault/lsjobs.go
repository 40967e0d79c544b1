package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
)

// jobs lists jobs and what is below it, as the mount shows it: projects,
// releases, jobs, and the links to their outputs. It reports whether name is one
// of these; what is below an output is not.
func (c *lsCommand) jobs(w io.Writer, b *backup.Backup, name string) (bool, error) {
	parts := strings.Split(strings.TrimRight(name, "/"), "/")
	if parts[0] != jobsDir || len(parts) > 4 {
		return false, nil
	}
	if len(parts) < 3 {
		return true, c.jobReleases(w, b, parts[1:])
	}
	id, err := backup.ParseReleaseID(parts[1] + "/" + parts[2])
	if err != nil {
		return true, err
	}
	if len(parts) == 4 {
		outputs, err := jobOutputs(b, id.Project, id.Name, parts[3])
		if err != nil {
			return true, err
		}
		return true, c.outputs(w, b.Cache.StoreDir(), outputs)
	}
	jobs, err := jobNames(b, id)
	if err != nil {
		return true, err
	}
	return true, c.directories(w, slices.Sorted(maps.Keys(jobs)))
}

// jobReleases lists the projects, or the names of the releases of one.
func (c *lsCommand) jobReleases(w io.Writer, b *backup.Backup, project []string) error {
	ids, err := b.Releases()
	if err != nil {
		return err
	}
	var names []string
	for _, id := range ids {
		switch {
		case len(project) == 0:
			names = append(names, id.Project)
		case id.Project == project[0]:
			names = append(names, id.Name)
		}
	}
	if len(project) > 0 && names == nil {
		return fmt.Errorf("project %s %w", project[0], backup.ErrNoRelease)
	}
	slices.Sort(names)
	return c.directories(w, slices.Compact(names))
}

func (c *lsCommand) directories(w io.Writer, names []string) error {
	return c.names(w, func(l *listing) *[]string { return &l.Directories }, names)
}

// outputs lists the outputs of a job as links to their store paths.
func (c *lsCommand) outputs(w io.Writer, storeDir string, outputs map[string]storepath.Path) error {
	if c.json {
		return printJSON(w, listing{Version: backup.FormatVersion, Outputs: outputs})
	}
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		target := outputs[name].In(storeDir)
		writeEntry(w, nar.Entry{Type: nar.Symlink, Target: target, Size: int64(len(target))}, name, c.long, c.tty)
	}
	return nil
}
