package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

// blockCacheSize bounds the decoded blocks in memory, in bytes.
const blockCacheSize = 48 << 20

// openBackup opens a backup or a foreign cache for reading. What is odd but
// harmless goes to stderr.
func openBackup(dir string, stderr io.Writer) (*backup.Backup, error) {
	return backup.Open(dir, cacheOptions(stderr))
}

// cacheOptions is how the archives of a cache are read.
func cacheOptions(stderr io.Writer) bincache.Options {
	return bincache.Options{
		Blocks:   narread.NewCache(blockCacheSize),
		SpoolDir: spoolDir(),
		Warn:     func(err error) { fmt.Fprintf(stderr, "narvault: warning: %s\n", message(err.Error())) },
	}
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
