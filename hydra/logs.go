package hydra

import (
	"os"
	"path/filepath"

	"github.com/narvault/narvault/narread/storepath"
)

// logSuffixes are how Hydra and Nix name build logs, by how they are compressed.
var logSuffixes = []string{"", ".bz2", ".zst"}

// LogDirs returns where build logs may be on this machine: Hydra's directory
// (below $HYDRA_DATA, if that is set) and Nix's (below $NIX_LOG_DIR).
func LogDirs() []string {
	return []string{
		filepath.Join(env("HYDRA_DATA", "/var/lib/hydra"), "build-logs"),
		filepath.Join(env("NIX_LOG_DIR", "/nix/var/log/nix"), "drvs"),
	}
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// FindLogs returns the files that hold the build logs of derivations: each is
// DIR/<first 2 characters>/<the others> in one of dirs, plain, .bz2 or .zst.
// Derivations of which there is no log are left out.
func FindLogs(dirs []string, drvs []storepath.Path) map[storepath.Path]string {
	found := make(map[storepath.Path]string)
	for _, drv := range drvs {
		if file := findLog(dirs, drv); file != "" {
			found[drv] = file
		}
	}
	return found
}

func findLog(dirs []string, drv storepath.Path) string {
	for _, dir := range dirs {
		for _, suffix := range logSuffixes {
			file := filepath.Join(dir, string(drv[:2]), string(drv[2:])+suffix)
			if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
				return file
			}
		}
	}
	return ""
}
