package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/index/bincache"
)

// An oldName is a script that backed up Hydra before. Each had a configuration
// file as its only argument.
type oldName struct {
	command string // does its work
	args    func(config string) ([]string, error)
}

// oldNames are those: the binary does their work when it is called so, through a
// link.
var oldNames = map[string]oldName{
	"hydra-backup": {"backup", func(config string) ([]string, error) {
		return []string{"--config", config}, nil
	}},
	"hydra-collect-backup-garbage": {"gc", func(config string) ([]string, error) {
		c, err := hydra.ReadConfig(config)
		if err != nil {
			return nil, err
		}
		return []string{c.OutDir}, nil
	}},
	"hydra-restore": {"restore", func(config string) ([]string, error) {
		c, err := hydra.ReadConfig(config)
		if err != nil {
			return nil, err
		}
		names, err := archivedReleases(c)
		return append([]string{c.OutDir}, names...), err
	}},
}

// archivedReleases returns the releases that a configuration names. What it
// selects without a name is all that the backup has of the project.
func archivedReleases(c *hydra.Config) ([]string, error) {
	b, err := backup.Open(c.OutDir, bincache.Options{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	ids, err := b.Releases()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, sel := range c.Releases {
		before := len(names)
		for _, id := range ids {
			if id.Project == sel.Project && (sel.Name == "" || sel.Matches(id.Name)) {
				names = append(names, id.String())
			}
		}
		if len(names) == before {
			return nil, fmt.Errorf("release %s/%s: %w (narvault ls %s releases shows what is)", sel.Project, sel.Name, backup.ErrNoRelease, c.OutDir)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// asCalled returns the arguments of narvault for how the program was called.
func asCalled(args []string) ([]string, error) {
	name := filepath.Base(args[0])
	old, ok := oldNames[name]
	if !ok || len(args) == 2 && args[1] == "--version" {
		return args[1:], nil
	}
	if len(args) != 2 {
		return nil, usageErrorf("usage: %s CONFIG.json (it is narvault %s)", name, old.command)
	}
	if args[1] == "--help" || args[1] == "-h" {
		return []string{old.command, "--help"}, nil
	}
	rest, err := old.args(args[1])
	return append([]string{old.command}, rest...), err
}
