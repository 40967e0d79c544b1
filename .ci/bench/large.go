package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A shape is a made-up backup with many store paths: what counts is how many
// there are, so they share a few archives.
type shape struct {
	name  string
	paths int
	dirs  []string // of each path, beside its root
	files int      // in each directory, on average
}

// shapes have a million entries each: 10 a store path, as in collections of
// small packages, and 50, as in those of common ones.
func shapes() []shape {
	return []shape{
		{"large", 100_000, []string{"share"}, 4},
		{"wide", 20_000, []string{"bin", "lib", "lib/y", "share", "share/y", "share/y/z"}, 6},
	}
}

// largeArchives is how many archives the store paths of a shape share.
const largeArchives = 64

// make writes the backup into the directory with the name of the shape.
func (s *shape) make() (first string, err error) {
	rnd := rand.New(rand.NewPCG(1, uint64(s.paths)))
	for _, dir := range []string{"cache/nar", "releases"} {
		if err := os.MkdirAll(filepath.Join(s.name, dir), 0o755); err != nil {
			return "", err
		}
	}
	for file, text := range map[string]string{
		"narvault.json":        `{"version": 1, "id": "` + s.name + `", "compression": "zstd", "level": 3}`,
		"cache/nix-cache-info": "StoreDir: /nix/store\n",
	} {
		if err := os.WriteFile(filepath.Join(s.name, file), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	var archives [largeArchives]narinfo.NarInfo
	for i := range archives {
		if err := s.archive(rnd, &archives[i]); err != nil {
			return "", err
		}
	}
	return s.narInfos(rnd, archives[:])
}

// archive writes a NAR file, and says in info what it is.
func (s *shape) archive(rnd *rand.Rand, info *narinfo.NarInfo) error {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	write := func(depth int, name string, t nar.Type) error {
		return w.WriteHeader(nar.Header{Depth: depth, Name: name, Type: t})
	}
	if err := write(0, "", nar.Directory); err != nil {
		return err
	}
	for _, dir := range append(s.dirs, "") {
		depth := 1
		if dir != "" {
			depth += strings.Count(dir, "/") + 1
			if err := write(depth-1, filepath.Base(dir), nar.Directory); err != nil {
				return err
			}
		}
		for i := range s.files - 1 + rnd.IntN(3) {
			if err := write(depth, fmt.Sprintf("x-%d-%s", i, word(rnd)), nar.Regular); err != nil {
				return err
			}
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	sum := narinfo.Hash(sha256.Sum256(b.Bytes()))
	*info = narinfo.NarInfo{
		StoreDir: "/nix/store", Compression: "none", URL: "nar/" + sum.Nix32() + ".nar",
		FileHash: sum.String(), FileSize: int64(b.Len()), NarHash: sum, NarSize: int64(b.Len()),
	}
	return os.WriteFile(filepath.Join(s.name, "cache", info.URL), b.Bytes(), 0o644)
}

// narInfos writes the narinfos of all store paths, each with a few references.
func (s *shape) narInfos(rnd *rand.Rand, archives []narinfo.NarInfo) (first string, err error) {
	var paths []storepath.Path
	for i := range s.paths {
		hash := narinfo.Hash(sha256.Sum256(fmt.Append(nil, i))).Nix32()[:storepath.HashLen]
		p := storepath.Path(fmt.Sprintf("%s-%s-%d.%d", hash, word(rnd), rnd.IntN(10), rnd.IntN(40)))
		paths = append(paths, p)
		info := archives[rnd.IntN(len(archives))]
		info.StorePath, info.Deriver = p, p+".drv"
		for range rnd.IntN(10) {
			info.References = append(info.References, paths[rnd.IntN(len(paths))])
		}
		if err := os.WriteFile(filepath.Join(s.name, "cache", p.Hash()+".narinfo"), info.Bytes(), 0o644); err != nil {
			return "", err
		}
		if i == 0 {
			first = string(p)
		}
	}
	return first, nil
}

func word(rnd *rand.Rand) string {
	b := make([]byte, 3+rnd.IntN(14))
	for i := range b {
		b[i] = "eeettaaooinnsrhldcumfpgwybvkxjqz"[rnd.IntN(32)]
	}
	return string(b)
}

// system returns the mount of a shape.
func (s *shape) system() system {
	return system{name: "narvault", archive: s.name + "/index", mount: `"$narvault" mount ` + s.name + ` mnt`, tree: "store", status: ".narvault/status.json"}
}

// largeMounts measures mounts of many store paths, and how long their index
// takes to be built.
func (b *bench) largeMounts(ctx context.Context) error {
	for _, s := range shapes() {
		if !b.only.MatchString(s.name) {
			continue
		}
		first, err := s.make()
		if err != nil {
			return fmt.Errorf("make %s: %w", s.name, err)
		}
		about := fmt.Sprintf("%d store paths", s.paths)
		fmt.Printf("\n%s: %s, a million entries\n", s.name, about)
		index := comparison{name: "index", rows: []row{{"narvault index", `"$narvault" index ` + s.name + ` > index.log`, s.name + "/index"}}, prepare: "rm -rf " + s.name + "/index"}
		if err := index.measure(ctx, b.rounds); err != nil {
			return err
		}
		c := &content{first: first}
		for _, t := range []task{
			{name: "mount: " + s.name, about: func(*content) string { return "until a store path can be seen" }},
			{name: "mount: find in " + s.name, about: func(*content) string { return about }, args: func(*content) []string { return []string{"find", "."} }},
		} {
			if err := b.task(ctx, t, c, []system{s.system()}); err != nil {
				return err
			}
		}
	}
	return nil
}
