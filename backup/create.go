package backup

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

//go:embed readme.txt
var readmeText string

// create makes dir, of which MayCreate said that it can be, a backup for the
// given store directory, or completes one that a crash left half made, and
// opens it.
func create(fsys disk.FS, dir, storeDir string, c Config, o bincache.Options) (*Backup, error) {
	// What is there is asked before anything is written: one that hydra-backup
	// made may have no nix-cache-info, and must not get a wrong one.
	if err := suitsStore(dir, storeDir, o); err != nil {
		return nil, err
	}
	if err := populate(fsys, dir, storeDir, c); err != nil {
		return nil, fmt.Errorf("create backup in %s: %w", dir, err)
	}
	return Open(dir, o)
}

// Create makes an empty backup for a store directory in dir, as Run would, of
// which only compression and level of c count. A backup that is there already
// stays as it is.
func Create(ctx context.Context, dir, storeDir string, c Config, o lock.Options) error {
	return createEmpty(ctx, disk.OS{}, dir, storeDir, c, o)
}

func createEmpty(ctx context.Context, fsys disk.FS, dir, storeDir string, c Config, o lock.Options) error {
	if isBackup(dir) {
		return nil
	}
	if err := MayCreate(dir); err != nil {
		return err
	}
	if err := fsys.Mkdir(dir); err != nil {
		return fmt.Errorf("create backup: %w", err)
	}
	lock, err := lock.Take(ctx, dir, lock.Writing, o)
	if err != nil {
		return err
	}
	defer lock.Close()
	return lock.Exclusively(ctx, func() error {
		var made Config
		made.Compression, made.Level = new(Request).pack(c)
		b, err := create(fsys, dir, storeDir, made, bincache.Options{})
		if err != nil {
			return err
		}
		return b.Close()
	})
}

// suitsStore refuses the backup in dir, if there is one, when it is of another
// store directory.
func suitsStore(dir, storeDir string, o bincache.Options) error {
	if !bincache.Is(filepath.Join(dir, layout.CacheDir)) {
		return nil
	}
	b, err := Open(dir, o)
	if err != nil {
		return err
	}
	defer b.Close()
	if got := b.Cache.StoreDir(); got != storeDir {
		return fmt.Errorf("%s is a backup of the store directory %s, not of %s: use another directory", dir, got, storeDir)
	}
	return nil
}

// MayCreate reports why dir cannot be or become a backup; Run does so first of
// all, too. Nothing is written. The parent of dir must exist: a mistyped mount
// point shall not become a directory.
func MayCreate(dir string) error {
	if err := mayCreate(dir); err != nil {
		return fmt.Errorf("create backup: %w", err)
	}
	return nil
}

func mayCreate(dir string) error {
	if dir == "" {
		return errors.New("the name of its directory is empty")
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mayMake(dir)
	case disk.IsNotDir(err):
		return fmt.Errorf("%s is a file, not a directory", dir)
	case err != nil:
		return err
	}
	if isBackup(dir) {
		return nil
	}
	if bincache.Is(dir) {
		return fmt.Errorf("%s is a binary cache that another program keeps: use another directory", dir)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"lost+found", layout.LockFile, layout.LocksDir}, e.Name()) && !disk.IsTemp(e.Name()) {
			return fmt.Errorf("%s is not empty and no backup (it holds %q): use an empty or a new directory", dir, e.Name())
		}
	}
	return nil
}

// mayMake reports why a directory that is not there cannot be made.
func mayMake(dir string) error {
	if st, err := os.Lstat(dir); err == nil {
		if st.IsDir() {
			return nil // another backup has just made it
		}
		return fmt.Errorf("%s is a symlink that leads nowhere", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if st, err := os.Stat(parent); err != nil || !st.IsDir() {
		return fmt.Errorf("%s is to be made in %s, which is no directory: make that first, or mount what belongs there", dir, parent)
	}
	return nil
}

// isBackup reports whether a directory is a backup, perhaps half made.
func isBackup(dir string) bool {
	return disk.IsFile(filepath.Join(dir, layout.ConfigFile)) || bincache.Is(filepath.Join(dir, layout.CacheDir))
}

// populate makes what is missing. narvault.json comes first, so that what a
// crash leaves is known as ours, nix-cache-info after the directories that Nix
// expects beside it.
func populate(fsys disk.FS, dir, storeDir string, c Config) error {
	if err := fsys.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	c.Version, c.ID, c.Created = FormatVersion, uuid.NewString(), time.Now().UTC().Truncate(time.Second)
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := writeMissing(fsys, filepath.Join(dir, layout.ConfigFile), append(config, '\n')); err != nil {
		return err
	}
	for _, sub := range append([]string{""}, bincache.Dirs()...) {
		if err := disk.MkdirAll(fsys, dir, filepath.Join(dir, layout.CacheDir, sub)); err != nil {
			return err
		}
	}
	if err := writeMissing(fsys, filepath.Join(dir, layout.CacheDir, bincache.InfoFile), cacheInfo(storeDir)); err != nil {
		return err
	}
	if err := disk.MkdirAll(fsys, dir, filepath.Join(dir, layout.ReleasesDir)); err != nil {
		return err
	}
	return writeMissing(fsys, filepath.Join(dir, layout.ReadmeFile), []byte(readmeFor(storeDir)))
}

// cacheInfo returns the nix-cache-info of a backup.
func cacheInfo(storeDir string) []byte {
	return fmt.Appendf(nil, "StoreDir: %s\nWantMassQuery: 1\nPriority: 30\n", storeDir)
}

// readmeFor returns the README.txt of a backup.
func readmeFor(storeDir string) string { return strings.ReplaceAll(readmeText, "/nix/store", storeDir) }

// writeMissing leaves a file that is there as it is, but makes it durable: the
// run that wrote it may have been killed before it did.
func writeMissing(fsys disk.FS, name string, data []byte) error {
	if disk.IsFile(name) {
		return fsys.SyncDir(filepath.Dir(name))
	}
	return disk.WriteFile(fsys, name, data)
}
