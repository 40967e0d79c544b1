package fusefs

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/storepath"
)

// fullBackup is a backup that has everything optional.
type fullBackup struct {
	*memBackup

	mu    sync.Mutex
	jobs  map[ReleaseID][]Job
	files map[string]string // of the cache; a name that ends in a slash is a directory
	times map[string]time.Time
	gone  error // the medium is away
}

// fullSample is sample with jobs and a cache.
func fullSample(t testing.TB) *fullBackup {
	b, _ := sample(t)
	info := strings.Repeat("1", 32) + ".narinfo"
	return &fullBackup{
		memBackup: b,
		jobs: map[ReleaseID][]Job{sampleRelease: {
			{Name: "build", System: "x86_64-linux", Output: "out", NixName: "sample-1.0", Path: samplePath},
			{Name: "build", System: "x86_64-linux", Output: "doc", NixName: "sample-1.0", Path: filePath},
		}},
		files: map[string]string{
			"nix-cache-info": "StoreDir: /nix/store\n", info: "StorePath: x\n", "nar/": "", "nar/a.nar.zst": string(content(300000)),
			"log/": "", "log/x.drv": "built\n", "log/deep/": "", "log/deep/y.drv": "y", "realisations/": "",
		},
		times: make(map[string]time.Time),
	}
}

// do runs change with the lock.
func (b *fullBackup) do(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *fullBackup) Jobs(id ReleaseID) ([]Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[id], b.gone
}

func (b *fullBackup) CacheNames(dir string) (names []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir != "" {
		dir += "/"
	}
	for name := range b.files {
		rest, ok := strings.CutPrefix(name, dir)
		if ok && rest != "" && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
			names = append(names, rest)
		}
	}
	return names, b.gone
}

func (b *fullBackup) CacheStat(name string) (FileInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone != nil {
		return FileInfo{}, b.gone
	}
	at := b.times[name]
	if at.IsZero() {
		at = time.Unix(1000, 0)
	}
	if _, ok := b.files[name+"/"]; ok || name == "" {
		return FileInfo{Dir: true, Time: at}, nil
	}
	text, ok := b.files[name]
	if !ok {
		return FileInfo{}, fmt.Errorf("stat %s: %w", name, fs.ErrNotExist)
	}
	return FileInfo{Size: int64(len(text)), Time: at}, nil
}

func (b *fullBackup) CacheOpen(name string) (Stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text, ok := b.files[name]
	if b.gone != nil || !ok {
		return nil, cmpErr(b.gone, fs.ErrNotExist)
	}
	b.memBackup.do(func() { b.memBackup.open++ })
	return &memFile{b: b.memBackup, Reader: bytes.NewReader([]byte(text))}, nil
}

func (b *fullBackup) PathInfo(p storepath.Path) (PathInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == samplePath {
		return PathInfo{NarHash: "sha256:x", References: []storepath.Path{filePath, samplePath}, Deriver: path(50, "sample.drv")}, b.gone
	}
	return PathInfo{NarHash: "sha256:y"}, b.gone
}

func (b *fullBackup) Locate(err error) Place {
	var n int64
	if _, scan := fmt.Sscanf(err.Error(), "read block %d of", &n); scan == nil {
		return Place{File: "nar/x.nar", Block: int(n), Offset: n * 1000}
	}
	return Place{Block: -1, Offset: -1}
}

func (b *fullBackup) Activity() Activity { return Activity{Generation: "gen-7"} }

// sorted returns the names that testList returns, without the dots.
func sorted(names []string) []string {
	names = slices.Clone(names[2:])
	slices.Sort(names)
	return names
}
