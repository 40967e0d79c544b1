package check

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"

	"github.com/narvault/narvault/narread/testenv"
)

func openOptions() bincache.Options { return bincache.Options{} }

// everyBit makes the test flip all bits and not one of each byte: eight times as
// long.
const everyBit = "NARVAULT_EVERY_BIT"

// TestEveryByteFlipped flips each byte of a backup in turn. The check must find
// it, or the change must be one of those in harmless.
func TestEveryByteFlipped(t *testing.T) {
	masks := func(offset int) []byte { return []byte{1 << (offset % 8)} }
	if os.Getenv(everyBit) != "" {
		masks = func(int) []byte { return []byte{1, 2, 4, 8, 16, 32, 64, 128} }
	}
	first := newScene(t)
	first.check(all).want(t)
	work := make(chan flip)
	go func() {
		defer close(work)
		for _, name := range first.files() {
			for offset := 0; offset < len(first.read(name)); offset += testenv.Thin(16) {
				for _, mask := range masks(offset) {
					work <- flip{name, offset, mask}
				}
			}
		}
	}()
	results := make(chan flipped)
	blocks := narread.NewCache(0)
	for range runtime.GOMAXPROCS(0) {
		s := newScene(t)
		go func() {
			for f := range work {
				results <- s.flip(t, f, blocks)
			}
			results <- flipped{end: true}
		}()
	}
	seen := make(map[string]int)
	flips := 0
	for ends := 0; ends < runtime.GOMAXPROCS(0); {
		r := <-results
		switch {
		case r.end:
			ends++
			continue
		case r.problem != "":
			t.Error(r.problem)
		case r.reason != "":
			seen[r.reason]++
		}
		flips++
	}
	for reason, n := range seen {
		t.Logf("%d of %d flips are harmless: %s", n, flips, reason)
	}
	t.Logf("%d flips", flips)
}

type flip struct {
	name   string
	offset int
	mask   byte
}

type flipped struct {
	problem, reason string
	end             bool
}

// files returns the names of the files of a backup, but for the memory of check
// itself.
func (s *scene) files() (names []string) {
	must(s.t, filepath.WalkDir(s.dir, func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.dir, name)
		// README.txt is a text for people, which nothing reads.
		if err == nil && d.Type().IsRegular() && rel != memoryFile && rel != "README.txt" {
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	}))
	return names
}

// flip changes a file, checks, and changes it back.
func (s *scene) flip(t *testing.T, f flip, blocks *narread.Cache) flipped {
	name := s.path(f.name)
	good, err := os.ReadFile(name)
	if err != nil {
		return flipped{problem: err.Error()}
	}
	bad := bytes.Clone(good)
	bad[f.offset] ^= f.mask
	at := fmt.Sprintf("%s at %d: %q becomes %q", f.name, f.offset, good[f.offset], bad[f.offset])
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		return flipped{problem: err.Error()}
	}
	defer os.WriteFile(name, good, 0o644)
	o := all
	o.Cache.Blocks = blocks
	r, err := Run(context.Background(), s.dir, o)
	if err != nil {
		return flipped{} // it does not say that all is well
	}
	reason := harmless(f.name, good, bad)
	if r.Counts[Damage] > 0 {
		if i := slices.IndexFunc(r.Findings, func(x Finding) bool { return concerns(x, f.name) }); i < 0 {
			return flipped{problem: fmt.Sprintf("%s: blamed on others: %+v", at, r.Findings)}
		}
		return flipped{}
	}
	if reason == "" && r.Counts[Warning] == 0 {
		return flipped{problem: fmt.Sprintf("%s: not found: %+v", at, r.Findings)}
	}
	return flipped{reason: reason}
}

// concerns reports whether a finding leads to the file that was changed.
func concerns(f Finding, name string) bool {
	switch {
	case f.File == name, strings.HasPrefix(name, f.File+"/"), path.Dir(f.File) == path.Dir(name):
		return true
	case strings.HasPrefix(name, "index/"), name == "narvault.json":
		return strings.HasPrefix(f.File, "index")
	case strings.HasPrefix(name, "cache/"):
		return strings.HasPrefix(f.File, "cache/") || strings.HasPrefix(f.File, "releases/")
	}
	return false
}

// harmless says why it does no harm that a file of a backup has changed, or "".
// No checksum covers these bytes, and nothing that is restored depends on them.
func harmless(name string, good, bad []byte) string {
	switch {
	case name == "lock", strings.HasPrefix(name, "locks/"), name == "index/lock":
		return "locks: tell who had them last"
	case name == "index/CURRENT" && bytes.EqualFold(bytes.TrimSpace(good), bad[:min(len(bad), len(good)-1)]):
		return "index/CURRENT: hexadecimal digits in upper case, and its last byte"
	case name == "narvault.json":
		return sameConfig(good, bad)
	case path.Base(name) == "release.json":
		return sameRelease(good, bad)
	case path.Base(name) == bincache.InfoFile:
		if storeDirLine(good) == storeDirLine(bad) {
			return "nix-cache-info: which cache Nix prefers"
		}
	case strings.Contains(name, "/previous/closure.txt"):
		return "previous/: may name what is no longer there"
	}
	return ""
}

func storeDirLine(text []byte) string {
	i := bytes.Index(text, []byte("StoreDir:"))
	if i < 0 {
		return ""
	}
	line, _, _ := bytes.Cut(text[i:], []byte("\n"))
	return string(line)
}

// sameConfig accepts changes of what only informs, and of how new NARs will be
// packed.
func sameConfig(good, bad []byte) string {
	var a, b backup.Config
	if json.Unmarshal(good, &a) != nil || json.Unmarshal(bad, &b) != nil || a.ID != b.ID || a.Version != b.Version {
		return ""
	}
	return "narvault.json: when the backup was made, and how new NARs will be packed"
}

// sameRelease accepts a change of the name of the checksum, which then is none:
// all the rest is as it was.
func sameRelease(good, bad []byte) string {
	var a, b map[string]any
	if json.Unmarshal(good, &a) != nil || json.Unmarshal(bad, &b) != nil {
		return ""
	}
	for key := range b {
		if _, known := a[key]; !known {
			delete(b, key)
		}
	}
	delete(a, "checksum")
	delete(b, "checksum")
	if reflect.DeepEqual(a, b) {
		return "release.json: the name of its checksum"
	}
	return ""
}
