// Package backup knows a backup directory: how it is laid out, how store paths
// and releases get into it, and how they come out again.
//
//	BACKUP/
//	  README.txt       how to restore with plain Nix, without narvault
//	  narvault.json    format version, id, creation time, compression (Config)
//	  lock, locks/     held, with flock, by whoever is at work (see lock.Options)
//	  nars.journal     finished NAR files whose narinfo is not yet written
//	  cache/           a standard Nix binary cache (package index/bincache)
//	  releases/<project>/<name>/
//	    closure.txt    the store paths of the release, one per line
//	    release.json   what it is and where it came from (Release)
//	    hydra.json     the rows of Hydra's database that belong to it, if it is from Hydra
//	    previous/      these files as they were before the last change
//	  hydra/           dumps of databases (Dump)
//	  index/           derived from the cache, may be deleted (package index)
//	  verified         when a check last read each NAR file whole; may be deleted
//	  trash/           what forget and gc took out, until it is purged (package backup/trash)
//
// The files are the truth, and plain Nix can read all that matters of them.
// Writing keeps an order that leaves a valid cache at every instant, on disk
// too: NAR files are durable before the narinfo that names them, the narinfos
// of references before those that refer, and a release after all its paths. A
// narinfo therefore proves that its closure is there.
//
// A directory that hydra-backup wrote (the same, without narvault.json and
// release.json) is a backup as well, and any other binary cache can be read as
// one without releases. What the kernel sees of a backup is the business of fusefs, what
// is inside an archive that of narread; the Nix store on this machine is
// reached through backup/nixstore. What is kept, and what goes, is decided by
// backup/gc.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

// FormatVersion is that of narvault.json and release.json.
const FormatVersion = 1

// A Config is the content of narvault.json.
type Config struct {
	Version     int       `json:"version"`
	ID          string    `json:"id"` // a UUID
	Created     time.Time `json:"created"`
	Compression string    `json:"compression"` // for new archives: "zstd", "xz", "bzip2" or "none"
	Level       int       `json:"level"`       // of the compression
}

// A Backup is a backup directory, or a foreign binary cache, open for reading.
// Nothing is written to it through this type. Its methods may be called
// concurrently.
type Backup struct {
	Cache   *bincache.Cache
	dir     string
	foreign bool // only a binary cache: no releases
	config  Config
}

// ErrNoBackup is the error of Open for a directory that is none.
var ErrNoBackup = errors.New("is neither a backup nor a binary cache")

// Open opens a backup directory or any directory that is a binary cache. The
// caller closes it.
func Open(dir string, o bincache.Options) (*Backup, error) {
	b := &Backup{dir: dir}
	var err error
	if b.config, err = readConfig(dir); err != nil {
		var damage *bincache.DamageError
		if errors.As(err, &damage) {
			err = fmt.Errorf("%w: move this file away: all can be read without it, and the next backup makes a new one", err)
		}
		return nil, err
	}
	at, err := b.locate()
	if err != nil {
		return nil, err
	}
	b.Cache, err = bincache.Open(at, o)
	return b, err
}

// OpenToRead is Open for whoever only reads: a damaged narvault.json, which says
// how the backup was made, is returned beside the backup.
func OpenToRead(dir string, o bincache.Options) (b *Backup, damaged *bincache.DamageError, err error) {
	b = &Backup{dir: dir}
	if b.config, err = readConfig(dir); errors.As(err, &damaged) {
		b.config = Config{}
	} else if err != nil {
		return nil, nil, err
	}
	at, err := b.locate()
	if err != nil {
		return nil, damaged, err
	}
	b.Cache, err = bincache.Open(at, o)
	return b, damaged, err
}

// OpenDamaged is Open for whoever looks for damage: that of narvault.json and
// nix-cache-info is returned beside a backup that can be read all the same.
func OpenDamaged(dir string, o bincache.Options) (b *Backup, damage []*bincache.DamageError, err error) {
	b = &Backup{dir: dir}
	var d *bincache.DamageError
	if b.config, err = readConfig(dir); errors.As(err, &d) {
		damage = append(damage, d)
	} else if err != nil {
		return nil, nil, err
	}
	at, err := b.locate()
	if err != nil {
		return nil, damage, err
	}
	if b.Cache, d, err = bincache.OpenDamaged(at, o); d != nil {
		damage = append(damage, d)
	}
	return b, damage, err
}

// locate finds the binary cache, and whether it is all there is.
func (b *Backup) locate() (string, error) {
	at := filepath.Join(b.dir, layout.CacheDir)
	switch {
	case bincache.Is(at):
		return at, nil
	case bincache.Is(b.dir):
		b.foreign = true
		return b.dir, nil
	case b.config.Version != 0:
		return "", &bincache.DamageError{File: filepath.Join(at, bincache.InfoFile), Err: errors.New("is missing: a backup into this directory completes it")}
	}
	return "", noBackup(b.dir)
}

func noBackup(dir string) error {
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("open backup: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("open backup: %s is a file, not a directory: %w", dir, ErrNoBackup)
	}
	return fmt.Errorf("open backup: %s %w: it has no %s and no .narinfo files, and neither has its %s", dir, ErrNoBackup, bincache.InfoFile, layout.CacheDir)
}

// readConfig returns the zero Config when there is no narvault.json.
func readConfig(dir string) (Config, error) {
	var c Config
	name := filepath.Join(dir, layout.ConfigFile)
	text, err := layout.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || disk.IsNotDir(err) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("open backup: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, &bincache.DamageError{File: name, Err: err}
	}
	if c.Version < 1 || c.Version > FormatVersion {
		return c, fmt.Errorf("open backup: %s has format version %d, this narvault knows %d: use a newer one", name, c.Version, FormatVersion)
	}
	if err := checkCompression(c.Compression, c.Level); err != nil {
		return c, &bincache.DamageError{File: name, Err: err}
	}
	return c, nil
}

// Close releases what Open opened.
func (b *Backup) Close() error { return b.Cache.Close() }

// Dir returns the directory as given to Open.
func (b *Backup) Dir() string { return b.dir }

// Config returns the content of narvault.json, zero when there is none.
func (b *Backup) Config() Config { return b.config }

// Foreign reports whether this is a binary cache and no more.
func (b *Backup) Foreign() bool { return b.foreign }

// Lock keeps what is in the backup there until the result is closed: gc waits
// for it, or gives up. Where nobody can write, nothing has to be locked. The
// error is *lock.HeldError while gc is at work, for longer than o says.
func (b *Backup) Lock(ctx context.Context, o lock.Options) (io.Closer, error) {
	if b.foreign {
		return io.NopCloser(nil), nil
	}
	l, err := lock.Take(ctx, b.dir, lock.Reading, o)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return io.NopCloser(nil), nil
	}
	return l, err
}

func (b *Backup) Path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}
