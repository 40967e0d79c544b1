package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// checkLinks checks the files of a cache that lead to store paths and NAR files
// by other names, and the build logs.
func (c *checker) checkLinks(context.Context) error {
	for _, name := range c.namesIn("realisations") {
		c.checkLink(Realisation, "realisations/"+name, c.realisation)
	}
	for _, drv := range c.namesIn("build-trace-v2") {
		for _, name := range c.namesIn("build-trace-v2/" + drv) {
			c.checkLink(Realisation, "build-trace-v2/"+drv+"/"+name, c.buildTrace)
		}
	}
	for _, name := range c.namesIn("debuginfo") {
		c.checkLink(DebugInfo, "debuginfo/"+name, c.debugInfo)
	}
	for _, name := range c.namesIn("log") {
		f, _, err := c.cache.OpenFile("log/" + name)
		if err == nil {
			f.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			c.add(trouble(BuildLog, c.fileName("log/"+name), err, c.again("it")))
		}
	}
	return nil
}

// namesIn returns the names in a directory of the cache. Those of temporary
// files are reported at the end.
func (c *checker) namesIn(dir string) (names []string) {
	entries, err := c.cache.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.add(trouble(CacheDir, c.fileName(dir), err, "make it a directory again"))
	}
	for _, e := range entries {
		if backup.Temporary(e.Name()) {
			c.files.leftover = append(c.files.leftover, path.Join(dir, e.Name()))
		} else {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// errDangling is wrapped by what leads to nothing: that is no damage, but of no
// use.
var errDangling = errors.New("is not in the cache")

// checkLink reads a file, and reports what check says about it.
func (c *checker) checkLink(kind Kind, name string, check func(name string, text []byte) error) {
	text, err := c.cache.ReadFile(name, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := c.cache.Lstat(name); err != nil {
			return // it went
		}
	}
	if err == nil {
		err = check(name, text)
	}
	switch {
	case errors.Is(err, errDangling):
		c.add(Finding{Kind: kind, Severity: Warning, File: c.fileName(name), Message: err.Error(), Remedy: "remove it, or back up again what it leads to"})
	case err != nil:
		c.add(trouble(kind, c.fileName(name), err, "remove it, or "+c.again("it")))
	}
}

// realisation checks realisations/<id>.doi of Nix 2.4 to 2.34.
func (c *checker) realisation(name string, text []byte) error {
	var r struct {
		ID      string `json:"id"`
		OutPath string `json:"outPath"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	if r.ID+".doi" != path.Base(name) {
		return fmt.Errorf("is the realisation of %q", r.ID)
	}
	return c.outPath(r.OutPath)
}

// buildTrace checks build-trace-v2/<drv>/<output>.doi of Nix since 2.35.
func (c *checker) buildTrace(name string, text []byte) error {
	var r struct {
		OutPath string `json:"outPath"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	if drv := path.Base(path.Dir(name)); !strings.HasSuffix(drv, ".drv") {
		return fmt.Errorf("%q is no derivation", drv)
	}
	return c.outPath(r.OutPath)
}

func (c *checker) outPath(base string) error {
	p, err := storepath.Parse(base)
	if err != nil {
		return fmt.Errorf("outPath: %w", err)
	}
	if _, err := c.cache.Lookup(p); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("leads to %s, which %w", p, errDangling)
	}
	return nil // what is wrong with its narinfo was said
}

// debugInfo checks debuginfo/<build id>, which leads to a file in a NAR.
func (c *checker) debugInfo(name string, text []byte) error {
	var r struct {
		Archive string `json:"archive"`
		Member  string `json:"member"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	url := path.Join(path.Dir(name), r.Archive)
	if r.Archive == "" || r.Member == "" {
		return errors.New("names no archive or no member of it")
	}
	if err := bincache.CheckURL(url); err != nil {
		return err
	}
	if _, err := c.cache.Lstat(url); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("leads to %s, which %w", url, errDangling)
	}
	return nil
}
