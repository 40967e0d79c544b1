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
	"github.com/narvault/narvault/narread/testenv/blockfs"
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
	key      string              // file of a secret key
	public   string
	disk     *blockfs.FS // what is changed lies on it
	cuts     int         // of the power

	main, copy *vault // the second is only copied into, and repaired from

	mu      sync.Mutex
	running map[*exec.Cmd]bool // guarded by mu
	off     bool               // guarded by mu: the power is off, nothing starts any more
	done    map[string]int     // guarded by mu: operations that ended by themselves
	killed  map[string]int     // guarded by mu
	busy    int                // guarded by mu: ended because others were at work
	read    int64              // guarded by mu: bytes that were read and compared
	lost    int64              // guarded by mu
	flipped int                // bits, each of which was found
	closed  bool
}

// A vault is a backup and what it may hold.
type vault struct {
	dir      string
	releases map[string]possible
	verified map[fileKey]string // NAR hashes of NAR files that were read
}

// possible are the closures that a release may have: several after a kill. An
// absent release is the empty one.
type possible [][]string

func newVault(dir string) *vault {
	v := &vault{dir: dir, releases: make(map[string]possible), verified: make(map[fileKey]string)}
	for _, name := range releaseNames {
		v.releases[name] = possible{nil}
	}
	return v
}

func (v *vault) path(elem ...string) string {
	return filepath.Join(append([]string{v.dir}, elem...)...)
}

func (v *vault) exists() bool {
	_, err := os.Stat(v.path("cache", "nix-cache-info"))
	return err == nil
}

// open opens the backup; nil if there is none yet.
func (v *vault) open() (*backup.Backup, error) {
	if !v.exists() {
		return nil, nil
	}
	return backup.Open(v.dir, cacheOptions)
}

func newSoak(ctx context.Context, dir string, o options) (*soak, error) {
	s := &soak{
		dir: dir, narvault: o.narvault, rng: rand.New(rand.NewPCG(o.seed, 1)),
		hashes: make(map[string]string), sizes: make(map[string]int64), closures: make(map[string][]string),
		done: make(map[string]int), killed: make(map[string]int), running: make(map[*exec.Cmd]bool),
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
	for _, name := range []string{"mnt", "disk"} {
		if err := os.Mkdir(s.path(name), 0o755); err != nil {
			return nil, err
		}
	}
	if s.disk, err = blockfs.Make(s.path("image"), s.path("disk"), diskSize); err != nil {
		return nil, err
	}
	s.main, s.copy = newVault(s.path("disk", "backup")), newVault(s.path("disk", "copy"))
	s.key = s.path("key")
	public, err := s.command(ctx, "keygen", "soak-1", s.key).Output()
	s.public = strings.TrimSpace(string(public))
	return s, err
}

// diskSize is how large the disk is, in MiB: an index wants 64 of them free, and
// all store paths together have 16.
const diskSize = 512

func (s *soak) path(elem ...string) string { return filepath.Join(append([]string{s.dir}, elem...)...) }

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
	return s.disk.Drop()
}

func (s *soak) report(out io.Writer, took time.Duration) {
	total, kills := 0, 0
	for _, name := range slices.Sorted(maps.Keys(s.done)) {
		fmt.Fprintf(out, "  %-12s %5d  killed %d\n", name, s.done[name]+s.killed[name], s.killed[name])
		total, kills = total+s.done[name]+s.killed[name], kills+s.killed[name]
	}
	fmt.Fprintf(out, "soak: %d operations in %.0f s, %d of them killed, %d found others at work; the power was cut %d times, %d bits were flipped and mended; %d MB read and compared, %d bytes lost\n",
		total, took.Seconds(), kills, s.busy, s.cuts, s.flipped, s.read/1e6, s.lost)
}
