package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// definitionsFile is below layout.DumpsDir.
const definitionsFile = "releases.json"

// A Definition says which evaluation of a Hydra is a release, for a Hydra that
// has no tables to say so. The release itself need not be backed up yet.
type Definition struct {
	Release     ReleaseID `json:"release"`
	Description string    `json:"description"`
	Database    string    `json:"database"`
	Evaluation  int64     `json:"evaluation"`
	Created     time.Time `json:"created"`
}

// definitions is the content of the file.
type definitions struct {
	Version  int          `json:"version"`
	Releases []Definition `json:"releases"`
}

// ErrDefined is wrapped by the error of Define for a release that has a
// definition.
var ErrDefined = errors.New("is defined already: give this one another name")

// Define adds the definition of a release to the backup directory dir.
func Define(ctx context.Context, dir string, d Definition, o lock.Options) error {
	if err := define(ctx, disk.OS{}, dir, d, o); err != nil {
		return fmt.Errorf("define release %s: %w", d.Release, err)
	}
	return nil
}

func define(ctx context.Context, fsys disk.FS, dir string, d Definition, o lock.Options) error {
	if !isBackup(dir) {
		return noBackup(dir)
	}
	lock, err := lock.Take(ctx, dir, lock.Writing, o)
	if err != nil {
		return err
	}
	defer lock.Close()
	return lock.Exclusively(ctx, func() error {
		list, err := readDefinitions(dir)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(have Definition) bool { return have.Release == d.Release && have.Database == d.Database }) {
			return ErrDefined
		}
		text, err := json.MarshalIndent(definitions{Version: FormatVersion, Releases: append(list, d)}, "", "  ")
		if err != nil {
			return err
		}
		if err := disk.MkdirAll(fsys, dir, filepath.Join(dir, layout.DumpsDir)); err != nil {
			return err
		}
		return disk.WriteFile(fsys, filepath.Join(dir, layout.DumpsDir, definitionsFile), append(text, '\n'))
	})
}

// Definitions returns the releases of a Hydra's database that are defined in the
// backup directory dir, in the order in which they were; none if there is no
// backup yet.
func Definitions(dir, database string) ([]Definition, error) {
	list, err := readDefinitions(dir)
	if err != nil {
		return nil, fmt.Errorf("list defined releases: %w", err)
	}
	return slices.DeleteFunc(list, func(d Definition) bool { return d.Database != database }), nil
}

func readDefinitions(dir string) ([]Definition, error) {
	name := filepath.Join(dir, layout.DumpsDir, definitionsFile)
	text, err := layout.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d definitions
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, &bincache.DamageError{File: name, Err: err}
	}
	if d.Version > FormatVersion {
		return nil, fmt.Errorf("%s has format version %d, this narvault knows %d: use a newer one", name, d.Version, FormatVersion)
	}
	return d.Releases, nil
}
