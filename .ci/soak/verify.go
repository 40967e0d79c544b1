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
func (s *soak) verify() error { return errors.Join(s.verifyVault(s.main), s.verifyVault(s.copy)) }

func (s *soak) verifyVault(v *vault) error {
	b, err := v.open()
	if err != nil || b == nil {
		return err
	}
	defer b.Close()
	var errs []error
	for _, name := range releaseNames {
		errs = append(errs, s.verifyRelease(v, b, name))
	}
	return errors.Join(append(errs, verifyCache(b))...)
}

func (s *soak) verifyRelease(v *vault, b *backup.Backup, name string) error {
	id, err := backup.ParseReleaseID(name)
	if err != nil {
		return err
	}
	var have []string
	paths, err := b.Closure(id)
	switch {
	case errors.Is(err, backup.ErrNoRelease):
	case err != nil:
		s.loseRelease(v, name)
		return fmt.Errorf("release %s: %w", name, err)
	}
	for _, p := range paths {
		have = append(have, p.In(b.Cache.StoreDir()))
	}
	if !slices.ContainsFunc(v.releases[name], func(c []string) bool { return slices.Equal(c, have) }) {
		s.loseRelease(v, name)
		return fmt.Errorf("release %s of %s has %d store paths; possible are %v", name, v.dir, len(have), v.releases[name])
	}
	v.releases[name] = possible{have}
	var errs []error
	for _, p := range paths {
		if err := s.verifyPath(v, b, p); err != nil {
			s.lose(s.sizes[p.In(b.Cache.StoreDir())])
			errs = append(errs, fmt.Errorf("release %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// loseRelease counts what is lost with a release.
func (s *soak) loseRelease(v *vault, name string) {
	for _, p := range v.releases[name][0] {
		s.lose(s.sizes[p])
	}
}

// verifyPath reads a store path whole, unless its NAR file was read before.
func (s *soak) verifyPath(v *vault, b *backup.Backup, p storepath.Path) error {
	info, err := b.Cache.Lookup(p)
	if err != nil {
		return err
	}
	st, err := os.Stat(v.path("cache", info.URL))
	if err != nil {
		return err
	}
	key := fileKey{info.URL, st.Size(), st.ModTime()}
	if v.verified[key] == "" {
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
		s.readBytes(n)
		v.verified[key] = narinfo.Hash(sum.Sum(nil)).String()
	}
	if want := s.hashes[p.In(b.Cache.StoreDir())]; v.verified[key] != want {
		return fmt.Errorf("%s: NAR hash %s, not %s", p, v.verified[key], want)
	}
	return nil
}

// verifyCache checks that every narinfo has its NAR file and its references.
func verifyCache(b *backup.Backup) error {
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
	cmd := s.command(timed, "mount", s.main.dir, mnt, "--links=raw")
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
		if err = s.compare(filepath.Join(mnt, "releases", name), s.main.releases[name][0]); err != nil {
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

// compareRestored compares what was restored into a directory with the Nix store:
// all of a closure if that was restored whole, else what has its name.
func (s *soak) compareRestored(dir string, closure []string, whole bool) error {
	there := slices.DeleteFunc(slices.Clone(closure), func(p string) bool {
		_, err := os.Lstat(filepath.Join(dir, filepath.Base(p)))
		return err != nil && !whole
	})
	if err := s.compare(dir, there); err != nil {
		return fmt.Errorf("restored: %w", err)
	}
	if !whole || s.rng.IntN(2) == 0 {
		return nil
	}
	exec.Command("chmod", "-R", "u+w", dir).Run()
	return os.RemoveAll(dir)
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
	s.readBytes(int64(len(x)))
	return nil
}

func (s *soak) readBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += n
}

func (s *soak) lose(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += n
}

// final lets plain Nix restore every release, as somebody who trusts the key of
// the backup only, and the backup be cleaned up: then nothing may be left but
// what the releases need.
func (s *soak) final(ctx context.Context) error {
	if !s.main.exists() {
		return nil
	}
	store := s.path("store")
	defer exec.Command("chmod", "-R", "u+w", store).Run()
	sign := &operation{name: "sign", args: []string{"sign", s.main.dir, "--sign-key", s.key}, keep: true}
	if err := s.run(ctx, sign); err != nil {
		return err
	}
	for _, name := range s.sure(s.main, nil) {
		args := []string{
			"--store", store, "--option", "substituters", "file://" + s.main.path("cache"),
			"--option", "substitute", "true", "--option", "trusted-public-keys", s.public, "--realise",
		}
		if _, err := s.nix(ctx, "nix-store", append(args, s.main.releases[name][0]...)...); err != nil {
			return fmt.Errorf("release %s: %w", name, err)
		}
	}
	for _, v := range []*vault{s.main, s.copy} {
		if !v.exists() {
			continue
		}
		gc := &operation{name: "gc --now", args: []string{"gc", v.dir, "--now", "--allow-no-releases"}, keep: true}
		if err := s.run(ctx, gc); err != nil {
			return err
		}
		if err := errors.Join(s.verify(), s.noLeftovers(v)); err != nil {
			return err
		}
	}
	return nil
}

// noLeftovers checks that nothing is left but what the releases need.
func (s *soak) noLeftovers(v *vault) error {
	needed := make(map[string]bool)
	for _, name := range s.sure(v, nil) {
		for _, p := range v.releases[name][0] {
			needed[filepath.Base(p)[:storepath.HashLen]] = true
		}
	}
	narInfos, _ := filepath.Glob(v.path("cache", "*.narinfo"))
	if len(narInfos) != len(needed) {
		return fmt.Errorf("%d narinfos are left, %d are needed", len(narInfos), len(needed))
	}
	return filepath.WalkDir(v.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".tmp") {
			err = fmt.Errorf("%s is left", name)
		}
		return err
	})
}
