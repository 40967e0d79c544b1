// Package layout says how things are called in a backup directory, and reads its
// small files. What they are for is told by package backup; how things are called
// in the cache, by index/bincache.
package layout

import (
	"fmt"
	"os"
	"path/filepath"
)

// The names in a backup directory.
const (
	ConfigFile  = "narvault.json"
	ReadmeFile  = "README.txt"
	JournalFile = "nars.journal"
	LockFile    = "lock"
	LocksDir    = "locks"
	MutexFile   = "mutex" // below LocksDir
	TurnFile    = "turn"  // below LocksDir
	CacheDir    = "cache"
	ReleasesDir = "releases"
	DumpsDir    = "hydra"
	IndexDir    = "index"
	TrashDir    = "trash"
)

// The names in the directory of a release, releases/<project>/<name>.
const (
	ClosureFile = "closure.txt"
	ReleaseFile = "release.json"
	HydraFile   = "hydra.json" // the rows of Hydra's database that belong to it
	PreviousDir = "previous"   // the same files, as they were before the last change
)

// Release returns the directory of a release, relative to the backup.
func Release(project, name string) string { return filepath.Join(ReleasesDir, project, name) }

// Plain returns an error unless all directories on the way to a file of the
// backup in dir are real ones: what is behind a symlink is not ours to take away.
func Plain(dir, name string) error {
	for at := filepath.Dir(name); at != "."; at = filepath.Dir(at) {
		st, err := os.Lstat(filepath.Join(dir, at))
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is no directory but %s, which is not followed", filepath.Join(dir, at), st.Mode().Type())
		}
	}
	return nil
}
