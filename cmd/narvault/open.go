package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/spool"
)

// readLimits are how much of the machine reading archives may take, as flags.
type readLimits struct {
	cache byteSize // of memory for decompressed blocks
	spool byteSize // of the disk for decompressed archives
}

// defaultLimits are those of a command without flags for them. 8 GiB is some ten
// times what the largest store paths of a desktop system have.
func defaultLimits() readLimits {
	l := readLimits{cache: 48 << 20, spool: 8 << 30}
	l.fromEnvironment() // an error was told before the command began
	return l
}

// spoolSizeVar names the environment variable for the size of the spool, in which
// all commands keep archives, with a flag for it or without.
const spoolSizeVar = "NARVAULT_SPOOL_SIZE"

// fromEnvironment sets what the environment says.
func (l *readLimits) fromEnvironment() error {
	text := os.Getenv(spoolSizeVar)
	if text == "" {
		return nil
	}
	if err := l.spool.Set(text); err != nil {
		return usageErrorf("$%s: %v", spoolSizeVar, err)
	}
	return nil
}

// addFlags sets the limits to their defaults, and adds their flags.
func (l *readLimits) addFlags(f *pflag.FlagSet) {
	*l = defaultLimits()
	f.Var(&l.cache, "cache-size", "how much memory decompressed blocks may take")
	f.Var(&l.spool, "spool-size", "how much of the disk archives may take that can only be decompressed as a whole; they are kept in the user's cache directory (for all commands: $"+spoolSizeVar+")")
}

// args returns the flags for another command that has them.
func (l *readLimits) args() []string {
	return []string{"--cache-size=" + l.cache.String(), "--spool-size=" + l.spool.String()}
}

// options is how the archives of a cache are read within the limits.
func (l *readLimits) options(warn func(error)) bincache.Options {
	o := bincache.Options{
		Blocks:   narread.NewCache(int64(l.cache)),
		SpoolDir: spoolDir(),
		Warn:     warn,
	}
	if o.SpoolDir != "" && l.spool > 0 {
		o.Spool = spool.New(filepath.Join(o.SpoolDir, "spool"), int64(l.spool))
	}
	return o
}

// openBackup opens a backup or a foreign cache for reading. What is odd but
// harmless goes to stderr.
func openBackup(dir string, stderr io.Writer) (*backup.Backup, error) {
	return openToRead(dir, cacheOptions(stderr))
}

// openToRead opens a backup, or a foreign cache, also when the file is damaged
// that says how it was made: what is in it can be read all the same. o.Warn is
// told.
func openToRead(dir string, o bincache.Options) (*backup.Backup, error) {
	b, damaged, err := backup.OpenToRead(dir, o)
	if err != nil {
		return nil, err
	}
	if damaged != nil {
		o.Warn(fmt.Errorf("%w; \"narvault repair %s\" mends it", damaged, word(dir)))
	}
	return b, nil
}

// cacheOptions is how the archives of a cache are read.
func cacheOptions(stderr io.Writer) bincache.Options {
	limits := defaultLimits()
	return limits.options(func(err error) { fmt.Fprintf(stderr, "narvault: warning: %s\n", message(err.Error())) })
}

// spoolDir is where archives without random access are decompressed: the user's
// cache directory, "" (the system's temporary directory) if there is none, or
// none that is safe from others.
func spoolDir() string {
	dir, err := index.OwnCache("")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		_, err = index.OwnCache("") // somebody else may have been faster
	}
	if err != nil {
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
