package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

var cacheOptions bincache.Options

// A fileKey tells versions of a NAR file apart.
type fileKey struct {
	url   string
	size  int64
	mtime time.Time
}

// verify looks whether every release is one that it may be, and whether all its
// store paths are there, with the content that Nix knows; and whether every
// narinfo has what it promises.
func (s *soak) verify() error {
	b, err := s.open()
	if err != nil || b == nil {
		return err
	}
	defer b.Close()
	var errs []error
	for _, name := range releaseNames {
		errs = append(errs, s.verifyRelease(b, name))
	}
	return errors.Join(append(errs, s.verifyCache(b))...)
}

func (s *soak) verifyRelease(b *backup.Backup, name string) error {
	id, err := backup.ParseReleaseID(name)
	if err != nil {
		return err
	}
	var have []string
	paths, err := b.Closure(id)
	switch {
	case errors.Is(err, backup.ErrNoRelease):
	case err != nil:
		s.loseRelease(name)
		return fmt.Errorf("release %s: %w", name, err)
	}
	for _, p := range paths {
		have = append(have, p.In(b.Cache.StoreDir()))
	}
	if !slices.ContainsFunc(s.releases[name], func(c []string) bool { return slices.Equal(c, have) }) {
		s.loseRelease(name)
		return fmt.Errorf("release %s has %d store paths; possible are %v", name, len(have), s.releases[name])
	}
	s.releases[name] = possible{have}
	var errs []error
	for _, p := range paths {
		if err := s.verifyPath(b, p); err != nil {
			s.lost += s.sizes[p.In(b.Cache.StoreDir())]
			errs = append(errs, fmt.Errorf("release %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// loseRelease counts what is lost with a release.
func (s *soak) loseRelease(name string) {
	for _, p := range s.releases[name][0] {
		s.lost += s.sizes[p]
	}
}

// verifyPath reads a store path whole, unless its NAR file was read before.
func (s *soak) verifyPath(b *backup.Backup, p storepath.Path) error {
	info, err := b.Cache.Lookup(p)
	if err != nil {
		return err
	}
	st, err := os.Stat(s.path("backup", "cache", info.URL))
	if err != nil {
		return err
	}
	key := fileKey{info.URL, st.Size(), st.ModTime()}
	if s.verified[key] == "" {
		archive, err := b.Cache.Archive(info)
		if err != nil {
			return err
		}
		defer archive.Close()
		sum := sha256.New()
		n, err := archive.WriteTo(sum)
		if err != nil {
			return err
		}
		s.read += n
		s.verified[key] = narinfo.Hash(sum.Sum(nil)).String()
	}
	if want := s.hashes[p.In(b.Cache.StoreDir())]; s.verified[key] != want {
		return fmt.Errorf("%s: NAR hash %s, not %s", p, s.verified[key], want)
	}
	return nil
}

// verifyCache checks that every narinfo has its NAR file and its references.
func (s *soak) verifyCache(b *backup.Backup) error {
	hashes, err := b.Cache.Hashes()
	if err != nil {
		return err
	}
	var errs []error
	err = b.Cache.Scan(context.Background(), hashes, func(info *narinfo.NarInfo) {
		f, _, err := b.Cache.OpenNAR(info)
		if err != nil {
			errs = append(errs, err)
			return
		}
		f.Close()
		for _, ref := range info.References {
			if has, err := b.Cache.Has(ref.Hash()); !has || err != nil {
				errs = append(errs, fmt.Errorf("%s refers to %s, which is not there (%v)", info.StorePath, ref, err))
			}
		}
	}, func(d *bincache.DamageError) { errs = append(errs, d) })
	return errors.Join(append(errs, err)...)
}

// mountAndCompare compares releases in a mount with the Nix store, while others
// are at work, and ends the mount, at times with a kill.
func (s *soak) mountAndCompare(ctx context.Context, names []string, kill bool) error {
	if len(names) == 0 {
		return nil
	}
	mnt := s.path("mnt")
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := s.command(timed, "mount", s.backup(), mnt, "--links=raw")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	defer exec.Command("umount", "-l", mnt).Run() // if it is still there
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return errors.Join(fmt.Errorf("mount: %w\n%s", err, said.String()), cmd.Wait())
	}
	for _, name := range names {
		if err = s.compare(filepath.Join(mnt, "releases", name), s.releases[name][0]); err != nil {
			err = fmt.Errorf("release %s in the mount: %w\n%s", name, err, said.String())
			break
		}
	}
	signal := os.Interrupt
	if kill {
		signal = os.Kill
	}
	cmd.Process.Signal(signal)
	if end := cmd.Wait(); end != nil && !kill {
		err = errors.Join(err, fmt.Errorf("mount ended with %w\n%s", end, said.String()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if kill {
		s.killed["mount"]++
	} else {
		s.done["mount"]++
	}
	return err
}

// compare compares the store paths of a release with the Nix store.
func (s *soak) compare(dir string, closure []string) error {
	for _, p := range closure {
		err := filepath.WalkDir(p, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			shown := filepath.Join(dir, strings.TrimPrefix(name, filepath.Dir(p)))
			return s.compareFile(name, shown, d.Type())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) compareFile(want, got string, kind fs.FileMode) error {
	read := os.ReadFile
	if kind == fs.ModeSymlink {
		read = func(name string) ([]byte, error) {
			target, err := os.Readlink(name)
			return []byte(target), err
		}
	}
	x, err := read(want)
	if err != nil {
		return err
	}
	y, err := read(got)
	if err != nil {
		return err
	}
	if string(x) != string(y) {
		s.lose(int64(len(x)))
		return fmt.Errorf("%s differs", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += int64(len(x))
	return nil
}

func (s *soak) lose(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += n
}

// final lets plain Nix restore every release, and the backup be cleaned up: then
// nothing may be left but what the releases need.
func (s *soak) final(ctx context.Context) error {
	store := s.path("store")
	defer exec.Command("chmod", "-R", "u+w", store).Run()
	for _, name := range s.sure(nil) {
		args := []string{
			"--store", store, "--option", "substituters", "file://" + s.path("backup", "cache"),
			"--option", "substitute", "true", "--option", "require-sigs", "false", "--realise",
		}
		if _, err := s.nix(ctx, "nix-store", append(args, s.releases[name][0]...)...); err != nil {
			return fmt.Errorf("release %s: %w", name, err)
		}
	}
	if !s.exists() {
		return nil
	}
	gc := &operation{name: "gc --now", args: []string{"gc", s.backup(), "--now", "--allow-no-releases"}, keep: true}
	if err := s.run(ctx, gc); err != nil {
		return err
	}
	if err := s.verify(); err != nil {
		return err
	}
	return s.noLeftovers()
}

// noLeftovers checks that nothing is left but what the releases need.
func (s *soak) noLeftovers() error {
	needed := make(map[string]bool)
	for _, name := range s.sure(nil) {
		for _, p := range s.releases[name][0] {
			needed[filepath.Base(p)[:storepath.HashLen]] = true
		}
	}
	narInfos, _ := filepath.Glob(s.path("backup", "cache", "*.narinfo"))
	if len(narInfos) != len(needed) {
		return fmt.Errorf("%d narinfos are left, %d are needed", len(narInfos), len(needed))
	}
	return filepath.WalkDir(s.backup(), func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".tmp") {
			err = fmt.Errorf("%s is left", name)
		}
		return err
	})
}
