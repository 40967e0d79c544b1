// Package bincache reads a Nix binary cache from its directory, file by file:
//
//	nix-cache-info        StoreDir, WantMassQuery, Priority
//	<hash>.narinfo        one per store path, named by its hash part
//	<hash>.ls             listing, a hint that is never trusted
//	nar/<file>.nar.<ext>  the archives; a narinfo's URL says which
//
// It serves every cache that Nix can read, those of nix-push 1.x (NAR files at
// the root) and copies without nix-cache-info included, and never writes. What a
// cache means to a backup (releases, garbage) is the business of package backup;
// what is inside a NAR file that of package narread.
package bincache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/spool"
	"github.com/narvault/narvault/narread/storepath"
)

const (
	// InfoFile marks a directory as a binary cache.
	InfoFile = "nix-cache-info"
	// DefaultStoreDir is the store directory of a cache that names none.
	DefaultStoreDir = "/nix/store"

	// maxNarInfo bounds what is read of one narinfo, in bytes. 10,000
	// references, ten times as many as seen, are 600 KB.
	maxNarInfo = 4 << 20
)

// A Cache is an open binary cache directory. Its methods may be called
// concurrently. Close it when done; archives opened through it stay usable.
type Cache struct {
	root     *os.Root
	storeDir string
	witness  string // a file that is there as long as the medium is
	options  Options
}

// Options say how archives are read. The zero value works.
type Options struct {
	Blocks   *narread.Cache // decoded blocks, shared by all archives; nil: each archive keeps its own few
	Spool    *spool.Dir     // where decoded NARs of archives without random access are kept; nil: nowhere
	SpoolDir string         // where they are decoded to without a Spool; "": the system's temporary directory
	Warn     func(error)    // told of what is odd but harmless; may be nil
}

// A DamageError says that a file of the cache is not what it has to be.
// (Damage inside a NAR file is a *narread.DamageError.)
type DamageError struct {
	File string // path of the file
	Err  error
}

func (e *DamageError) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// Close releases the directory.
func (c *Cache) Close() error { return c.root.Close() }

// Dir returns the directory's path as given to Open.
func (c *Cache) Dir() string { return c.root.Name() }

// StoreDir returns the store directory that the cache is for.
func (c *Cache) StoreDir() string { return c.storeDir }

func (c *Cache) path(name string) string { return c.root.Name() + "/" + name }

// Stat describes the directory itself; its modification time changes when a
// narinfo comes or goes.
func (c *Cache) Stat() (fs.FileInfo, error) { return c.root.Stat(".") }

// Hashes returns the hash parts of all store paths that have a narinfo, sorted.
func (c *Cache) Hashes() ([]string, error) {
	dir, err := c.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list binary cache: %w", err)
	}
	defer dir.Close()
	var hashes []string
	for {
		names, err := dir.Readdirnames(1024)
		hashes = appendHashes(hashes, names)
		if err == io.EOF {
			slices.Sort(hashes)
			return hashes, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list binary cache: %w", err)
		}
	}
}

// appendHashes appends the hash parts of narinfos. They share the memory of one
// string, which is less than that of the names: there may be very many.
func appendHashes(hashes, names []string) []string {
	var text strings.Builder
	text.Grow(storepath.HashLen * len(names))
	for _, name := range names {
		if hash, ok := strings.CutSuffix(name, NarInfoExt); ok && storepath.ValidHash(hash) {
			text.WriteString(hash)
		}
	}
	for rest := text.String(); rest != ""; rest = rest[storepath.HashLen:] {
		hashes = append(hashes, rest[:storepath.HashLen])
	}
	return hashes
}

// Has reports whether there is a narinfo for a hash part; it does not read it.
func (c *Cache) Has(hash string) (bool, error) {
	_, err := c.root.Lstat(hash + NarInfoExt)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// NarInfo reads the narinfo of the store path with the given hash part. The
// error is fs.ErrNotExist when there is none, a *DamageError when it is not
// what Nix accepts or belongs to another path or store directory.
func (c *Cache) NarInfo(hash string) (*narinfo.NarInfo, error) {
	info, _, err := c.NarInfoText(hash)
	return info, err
}

// NarInfoText is NarInfo, and returns the bytes of the file as well, also when
// they are damaged.
func (c *Cache) NarInfoText(hash string) (info *narinfo.NarInfo, text []byte, err error) {
	text, err = c.ReadNarInfo(hash)
	if err != nil {
		return nil, nil, err
	}
	info, err = narinfo.Parse(text)
	if err == nil {
		err = c.fits(hash, info)
	}
	if err != nil {
		return nil, text, &DamageError{File: c.path(hash + NarInfoExt), Err: err}
	}
	return info, text, nil
}

// fits checks a narinfo against its place.
func (c *Cache) fits(hash string, info *narinfo.NarInfo) error {
	if info.StorePath.Hash() != hash {
		return fmt.Errorf("field StorePath: %s is another store path than the file's name says", info.StorePath)
	}
	if info.StoreDir != c.storeDir {
		return fmt.Errorf("field StorePath: %s is not in the store directory of the cache, %s", info.StorePath.In(info.StoreDir), c.storeDir)
	}
	if err := CheckURL(info.URL); err != nil {
		return fmt.Errorf("field URL: %w", err)
	}
	return nil
}

// ReadNarInfo returns the bytes of the narinfo of the store path with the given
// hash part, whatever they are.
func (c *Cache) ReadNarInfo(hash string) ([]byte, error) {
	if !storepath.ValidHash(hash) {
		return nil, fmt.Errorf("%q is no hash part of a store path: %w", hash, fs.ErrNotExist)
	}
	return c.ReadFile(hash+NarInfoExt, maxNarInfo)
}

// Lookup is NarInfo for a whole store path: one with the same hash part but
// another name is fs.ErrNotExist.
func (c *Cache) Lookup(p storepath.Path) (*narinfo.NarInfo, error) {
	info, _, err := c.LookupText(p)
	return info, err
}

// LookupText is Lookup, and returns the bytes of the file as well.
func (c *Cache) LookupText(p storepath.Path) (info *narinfo.NarInfo, text []byte, err error) {
	info, text, err = c.NarInfoText(p.Hash())
	if err != nil {
		return nil, nil, err
	}
	if info.StorePath != p {
		return nil, nil, fmt.Errorf("%s: %w (the cache holds %s)", p, fs.ErrNotExist, info.StorePath)
	}
	return info, text, nil
}

// CheckURL accepts the URL of a NAR file only if it names a file below the
// cache directory: relative, without empty, "." and ".." parts. Nix 2.8 follows
// any URL; newer ones have the same rule (checkBinaryCachePath).
func CheckURL(url string) error {
	if strings.Contains(url, "://") {
		return fmt.Errorf("%q is not a file of this cache", url)
	}
	if !fs.ValidPath(url) || url == "." || strings.ContainsRune(url, 0) {
		return fmt.Errorf("%q leads out of the cache or is no file name", url)
	}
	return nil
}

// OpenNAR opens the NAR file that info names, for reading only, and returns its
// size in bytes. A symlink that leads out of the cache is an error, and so is a
// file that is not as large as info says.
func (c *Cache) OpenNAR(info *narinfo.NarInfo) (*os.File, int64, error) {
	f, size, err := c.openNAR(info)
	if err == nil {
		if err = c.checkSize(info, size); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

func (c *Cache) checkSize(info *narinfo.NarInfo, size int64) error {
	if info.FileSize <= 0 || size == info.FileSize {
		return nil
	}
	return &DamageError{File: c.path(info.URL), Err: fmt.Errorf("has %d bytes, its narinfo says %d", size, info.FileSize)}
}

func (c *Cache) openNAR(info *narinfo.NarInfo) (*os.File, int64, error) {
	if err := CheckURL(info.URL); err != nil {
		return nil, 0, &DamageError{File: c.path(info.StorePath.Hash() + NarInfoExt), Err: err}
	}
	f, st, err := c.OpenFile(c.NARName(info))
	if err != nil {
		return nil, 0, c.narError(info, err)
	}
	return f, st.Size(), nil
}

// NARName returns what the NAR file of a narinfo is called, relative to the
// cache: as its URL, which has to pass CheckURL. The URLs of some servers end in
// a query, which who copies them to files may leave out of the name.
func (c *Cache) NARName(info *narinfo.NarInfo) string {
	name, _, query := strings.Cut(info.URL, "?")
	if !query || CheckURL(name) != nil {
		return info.URL
	}
	if _, err := c.root.Lstat(info.URL); !errors.Is(err, fs.ErrNotExist) {
		return info.URL
	}
	return name
}

// narError makes a missing NAR file damage: its narinfo promises it.
func (c *Cache) narError(info *narinfo.NarInfo, err error) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &DamageError{File: c.path(info.URL), Err: fmt.Errorf("NAR file of %s is missing", info.StorePath)}
	}
	return fmt.Errorf("NAR of %s: %w", info.StorePath, c.named(info.URL, err))
}

// Archive opens the NAR of a store path for random access. Closing the archive
// closes its file. Options.Warn is told of a file that is not as large as info
// says: of one that is cut off much may be left, and of one that is whole all is
// compared with the NarHash before any of it is read.
func (c *Cache) Archive(info *narinfo.NarInfo) (*narread.Archive, error) {
	return c.ArchiveByLayout(info, nil)
}

// ArchiveByLayout is Archive with the layout of the container, which saves
// reading it; nil if it is not known (see narread.Options).
func (c *Cache) ArchiveByLayout(info *narinfo.NarInfo, layout []byte) (*narread.Archive, error) {
	return c.archive(info, narread.Options{Layout: layout, Spool: c.options.Spool})
}

// ArchiveOnce is Archive for who reads it once, from beginning to end: neither
// is anything kept for the next one, nor read that was (see narread.Options).
func (c *Cache) ArchiveOnce(info *narinfo.NarInfo) (*narread.Archive, error) {
	return c.archive(info, narread.Options{Once: true})
}

// archive completes o and opens an archive.
func (c *Cache) archive(info *narinfo.NarInfo, o narread.Options) (*narread.Archive, error) {
	f, size, err := c.openNAR(info)
	if err != nil {
		return nil, err
	}
	if err := c.checkSize(info, size); err != nil && c.options.Warn != nil {
		c.options.Warn(err)
	}
	o.Name, o.Compression, o.NarSize, o.NarHash, o.FileSize = c.path(info.URL), info.Compression, info.NarSize, info.NarHash, info.FileSize
	o.Cache, o.SpoolDir, o.Warn = c.options.Blocks, c.options.SpoolDir, c.options.Warn
	a, err := narread.Open(f, size, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}
