package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/narvault/narvault/backup"
)

//go:embed packages.nix
var packages string

const nixConfig = "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n"

// releaseNames are few, so that releases are often updated.
var releaseNames = []string{"a/1", "a/2", "a/3", "b/1", "b/2", "b/3"}

// A soak is one run.
type soak struct {
	dir      string
	narvault string
	rng      *rand.Rand
	tops     []string            // store paths to back up
	hashes   map[string]string   // NAR hash of each store path, as Nix has it
	sizes    map[string]int64    // NAR size
	closures map[string][]string // of each top, sorted
	check    bool                // there is a narvault check

	mu       sync.Mutex
	done     map[string]int // guarded by mu: operations that ended by themselves
	killed   map[string]int // guarded by mu
	busy     int            // guarded by mu: ended because others were at work
	releases map[string]possible
	verified map[fileKey]string // NAR hashes of NAR files that were read
	read     int64              // bytes that were read and compared
	lost     int64
	closed   bool
}

// possible are the closures that a release may have: several after a kill. An
// absent release is the empty one.
type possible [][]string

func newSoak(ctx context.Context, dir string, o options) (*soak, error) {
	s := &soak{
		dir: dir, narvault: o.narvault, rng: rand.New(rand.NewPCG(o.seed, 1)),
		hashes: make(map[string]string), sizes: make(map[string]int64), closures: make(map[string][]string),
		done: make(map[string]int), killed: make(map[string]int),
		releases: make(map[string]possible), verified: make(map[fileKey]string),
	}
	for _, name := range releaseNames {
		s.releases[name] = possible{nil}
	}
	expression := filepath.Join(dir, "packages.nix")
	if err := os.WriteFile(expression, []byte(packages), 0o644); err != nil {
		return nil, err
	}
	out, err := s.nix(ctx, "nix-build", expression, "--out-link", filepath.Join(dir, "root"), "-j", "2")
	if err != nil {
		return nil, err
	}
	s.tops = strings.Fields(out)
	if err := s.learn(ctx); err != nil {
		return nil, err
	}
	help, _ := s.command(ctx, "help").Output()
	s.check = bytes.Contains(help, []byte("\n  check "))
	return s, os.Mkdir(s.path("mnt"), 0o755)
}

func (s *soak) path(elem ...string) string { return filepath.Join(append([]string{s.dir}, elem...)...) }
func (s *soak) backup() string             { return s.path("backup") }

// learn asks Nix what the store paths are.
func (s *soak) learn(ctx context.Context) error {
	for _, top := range s.tops {
		out, err := s.nix(ctx, "nix-store", "-qR", top)
		if err != nil {
			return err
		}
		s.closures[top] = slices.Sorted(slices.Values(strings.Fields(out)))
		for _, p := range s.closures[top] {
			s.hashes[p] = ""
		}
	}
	paths := slices.Sorted(maps.Keys(s.hashes))
	hashes, err := s.nix(ctx, "nix-store", append([]string{"-q", "--hash"}, paths...)...)
	if err != nil {
		return err
	}
	sizes, err := s.nix(ctx, "nix-store", append([]string{"-q", "--size"}, paths...)...)
	if err != nil {
		return err
	}
	hash, size := strings.Fields(hashes), strings.Fields(sizes)
	for i, p := range paths {
		s.hashes[p] = hash[i]
		var n int64
		fmt.Sscan(size[i], &n)
		s.sizes[p] = n
	}
	return nil
}

func (s *soak) nix(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG="+nixConfig)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, stderr.Bytes())
	}
	return string(out), nil
}

// close unmounts what may be mounted. It may be called twice.
func (s *soak) close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	exec.Command("umount", "-l", s.path("mnt")).Run() // if there is one
	return nil
}

func (s *soak) report(out io.Writer, took time.Duration) {
	total, kills := 0, 0
	for _, name := range slices.Sorted(maps.Keys(s.done)) {
		fmt.Fprintf(out, "  %-12s %5d  killed %d\n", name, s.done[name]+s.killed[name], s.killed[name])
		total, kills = total+s.done[name]+s.killed[name], kills+s.killed[name]
	}
	fmt.Fprintf(out, "soak: %d operations in %.0f s, %d of them killed, %d found others at work; %d MB read and compared, %d bytes lost\n",
		total, took.Seconds(), kills, s.busy, s.read/1e6, s.lost)
}

// open opens the backup; nil if there is none yet.
func (s *soak) open() (*backup.Backup, error) {
	if _, err := os.Stat(s.path("backup", "cache", "nix-cache-info")); err != nil {
		return nil, nil
	}
	return backup.Open(s.backup(), cacheOptions)
}
