package bincache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// Open opens the binary cache in dir. One without nix-cache-info, as a copy of
// a cache may be, is accepted if it has a narinfo: these tell the store
// directory as well. The error is fs.ErrNotExist when dir is no binary cache, a
// *DamageError when nix-cache-info is damaged.
func Open(dir string, o Options) (*Cache, error) {
	c, err := openRoot(dir, o)
	if err != nil {
		return nil, err
	}
	if err := c.readInfo(); err != nil {
		c.root.Close()
		return nil, err
	}
	return c, nil
}

// OpenDamaged is Open for whoever looks for damage: of nix-cache-info it is
// returned beside a cache, whose store directory is then the one that most of
// the narinfos name that were looked at.
func OpenDamaged(dir string, o Options) (c *Cache, damage *DamageError, err error) {
	if c, err = openRoot(dir, o); err != nil {
		return nil, nil, err
	}
	err = c.readInfo()
	sampled, name := c.sampleStoreDir()
	switch {
	case errors.As(err, &damage):
		if c.storeDir, c.witness = sampled, InfoFile; sampled == "" {
			c.storeDir = DefaultStoreDir
		}
		return c, damage, nil
	case err != nil:
		c.root.Close()
		return nil, nil, err
	case sampled != "" && sampled != c.storeDir:
		damage = &DamageError{File: c.path(InfoFile), Err: fmt.Errorf("StoreDir is %s, but %s and others are of %s", c.storeDir, name, sampled)}
		c.storeDir = sampled
	}
	return c, damage, nil
}

// Is reports whether dir is a binary cache, damaged or not.
func Is(dir string) bool {
	if st, err := os.Stat(dir + "/" + InfoFile); err == nil && st.Mode().IsRegular() {
		return true
	}
	c, err := openRoot(dir, Options{})
	if err != nil {
		return false
	}
	defer c.root.Close()
	_, name := c.sampleStoreDir()
	return name != ""
}

func openRoot(dir string, o Options) (*Cache, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open binary cache: %w", err)
	}
	return &Cache{root: root, options: o}, nil
}

// readInfo sets what nix-cache-info tells.
func (c *Cache) readInfo() error {
	text, err := c.ReadFile(InfoFile, maxNarInfo)
	if errors.Is(err, fs.ErrNotExist) {
		if c.storeDir, c.witness = c.sampleStoreDir(); c.witness != "" {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("open binary cache: %w", err)
	}
	c.witness = InfoFile
	if c.storeDir, err = parseCacheInfo(text); err != nil {
		return &DamageError{File: c.path(InfoFile), Err: err}
	}
	return nil
}

// parseCacheInfo returns the store directory. Like Nix, it ignores lines that
// it does not know, and takes an empty file.
func parseCacheInfo(text []byte) (string, error) {
	storeDir := DefaultStoreDir
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		if key != "StoreDir" {
			continue
		}
		storeDir = strings.TrimSpace(value)
		if !strings.HasPrefix(storeDir, "/") || strings.HasSuffix(storeDir, "/") {
			return "", fmt.Errorf("StoreDir %q is not an absolute path", storeDir)
		}
	}
	return storeDir, nil
}

// samples is how many narinfos are asked which store directory they are of: a
// few of them may be damaged.
const samples = 9

// sampleStoreDir returns the store directory that most of the first narinfos
// are of, and the name of one of these; both are "" when there is none.
func (c *Cache) sampleStoreDir() (storeDir, name string) {
	votes := make(map[string]int)
	asked := 0
	c.eachName(func(file string) bool {
		hash, ok := strings.CutSuffix(file, NarInfoExt)
		if !ok || !storepath.ValidHash(hash) {
			return true
		}
		text, err := c.ReadFile(file, maxNarInfo)
		if err != nil {
			return true
		}
		if info, err := narinfo.Parse(text); err == nil && info.StorePath.Hash() == hash {
			if votes[info.StoreDir]++; votes[info.StoreDir] > votes[storeDir] {
				storeDir, name = info.StoreDir, file
			}
		}
		asked++
		return asked < samples
	})
	return storeDir, name
}

// eachName calls f for the names at the top of the cache, until it returns
// false or reading fails.
func (c *Cache) eachName(f func(string) bool) {
	dir, err := c.root.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if !f(name) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// StoreDirKnown reports whether the cache has a nix-cache-info; if not, its
// store directory was taken from its narinfos.
func (c *Cache) StoreDirKnown() bool { return c.witness == InfoFile }

// Present is an error when the cache cannot be read any more, because its
// medium went away: then what looks like damage is none.
func (c *Cache) Present() error {
	f, _, err := c.OpenFile(c.witness)
	if errors.Is(err, fs.ErrNotExist) && c.witness != InfoFile {
		// That store path may have been removed: is there another one?
		if _, name := c.sampleStoreDir(); name != "" {
			return nil
		}
	}
	if err != nil {
		return c.named(c.witness, err)
	}
	defer f.Close()
	var one [1]byte
	if _, err := f.Read(one[:]); err != nil && err != io.EOF {
		return c.named(c.witness, err)
	}
	return nil
}
