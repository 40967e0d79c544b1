package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

// readLimits are how much of the machine reading archives may take, as flags.
type readLimits struct {
	cache byteSize // of memory for decompressed blocks
}

func defaultLimits() readLimits { return readLimits{cache: 48 << 20} }

// addFlags sets the limits to their defaults, and adds their flags.
func (l *readLimits) addFlags(f *pflag.FlagSet) {
	*l = defaultLimits()
	f.Var(&l.cache, "cache-size", "how much memory decompressed blocks may take")
}

// args returns the flags for another command that has them.
func (l *readLimits) args() []string {
	return []string{"--cache-size=" + l.cache.String()}
}

// options is how the archives of a cache are read within the limits.
func (l *readLimits) options(warn func(error)) bincache.Options {
	return bincache.Options{
		Blocks:   narread.NewCache(int64(l.cache)),
		SpoolDir: spoolDir(),
		Warn:     warn,
	}
}

// openBackup opens a backup or a foreign cache for reading. What is odd but
// harmless goes to stderr.
func openBackup(dir string, stderr io.Writer) (*backup.Backup, error) {
	return backup.Open(dir, cacheOptions(stderr))
}

// cacheOptions is how the archives of a cache are read.
func cacheOptions(stderr io.Writer) bincache.Options {
	limits := defaultLimits()
	return limits.options(func(err error) { fmt.Fprintf(stderr, "narvault: warning: %s\n", message(err.Error())) })
}

// spoolDir is where archives without random access are unpacked: the user's
// cache directory, "" (the system's temporary directory) if there is none.
func spoolDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir := filepath.Join(cache, "narvault")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	return dir
}

// printJSON writes a document for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
