package backup

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// narText is a NAR made of its strings, whatever Nix would say to it.
func narText(words ...string) []byte {
	var b bytes.Buffer
	for _, w := range append([]string{"nix-archive-1"}, words...) {
		binary.Write(&b, binary.LittleEndian, uint64(len(w)))
		b.WriteString(w)
		b.Write(make([]byte, -len(w)&7))
	}
	return b.Bytes()
}

func narNode(kind string, words ...string) []string {
	return append(append([]string{"(", "type", kind}, words...), ")")
}

func narEntry(name string, node []string) []string {
	return append(append([]string{"entry", "(", "name", name, "node"}, node...), ")")
}

// narCache makes a binary cache of one store path with this NAR, and returns
// the store that it is.
func narCache(t *testing.T, content []byte) (*CacheStore, storepath.Path) {
	t.Helper()
	dir, p, sum := t.TempDir(), sp("odd"), newSum()
	sum.Write(content)
	info := narinfo.NarInfo{
		StoreDir: "/nix/store", StorePath: p, URL: "nar/x.nar", Compression: "none",
		FileHash: sum.sum().String(), FileSize: sum.size, NarHash: sum.sum(), NarSize: sum.size,
	}
	if err := os.Mkdir(filepath.Join(dir, bincache.NARDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"nix-cache-info": []byte("StoreDir: /nix/store\n"), p.Hash() + bincache.NarInfoExt: info.Bytes(), info.URL: content} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return FromCache(b, false), p
}

// What Nix 2.8 put into a cache and newer ones, or another system's, refuse, is
// backed up and said: which file, why, which Nix. Whether the NAR file is taken
// over or packed anew.
func TestWarningsOfNARs(t *testing.T) {
	deep := narNode("regular", "contents", "")
	for range 64 {
		deep = narNode("directory", narEntry("d", deep)...)
	}
	files := func(names ...string) []byte {
		var entries []string
		for _, name := range names {
			entries = append(entries, narEntry(name, narNode("regular", "contents", ""))...)
		}
		return narText(narNode("directory", entries...)...)
	}
	odd := "/nix/store/" + string(sp("odd"))
	for name, c := range map[string]struct {
		nar  []byte
		want []string // in the warning
	}{
		"order": {files("b", "a"), []string{odd + ": ", `not sorted: "a" after "b"`, "Nix from 2.23.4"}},
		"depth": {narText(deep...), []string{odd + strings.Repeat("/d", 64) + ": nested 64 deep", "Nix from 2.28.7"}},
		"case":  {files("A", "a"), []string{odd + `/A: differs from "a" in case only`, "macOS"}},
	} {
		store, p := narCache(t, c.nar)
		dir := filepath.Join(t.TempDir(), "backup")
		for _, compression := range []string{"", "zstd"} {
			req := request("r", p)
			req.Compression = compression
			r := mustRun(t, dir+compression, store, req)
			if len(r.Warnings) != 1 || slices.ContainsFunc(c.want, func(w string) bool { return !strings.Contains(r.Warnings[0], w) }) {
				t.Errorf("%s, compression %q: %q", name, compression, r.Warnings)
			}
			backuptest.CheckWhole(t, dir+compression, "p/r")
		}
	}
}

// What no Nix could ever restore is not backed up: it is damage, and named, and
// the release is not recorded.
func TestTargetsNobodyRestores(t *testing.T) {
	for want, target := range map[string]string{
		"a target of 4096 bytes": strings.Repeat("x", 4096),
		"an empty target":        "",
		"contains NUL":           "a\x00b",
	} {
		store, p := narCache(t, narText(narNode("symlink", "target", target)...))
		dir := filepath.Join(t.TempDir(), "backup")
		_, err := run(t.Context(), backuptest.Memory{}, dir, store, request("r", p))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		} else if !strings.Contains(err.Error(), string(p)) && !strings.Contains(err.Error(), "x.nar") {
			t.Errorf("it does not say where: %v", err)
		}
		if b, err := Open(dir, bincache.Options{}); err == nil {
			if ids, err := b.Releases(); err != nil || len(ids) > 0 {
				t.Errorf("%s: releases %v, %v", want, ids, err)
			}
			b.Close()
		}
		backuptest.CheckNoTemp(t, dir)
	}
	// The longest that there may be is no reason to say anything.
	store, p := narCache(t, narText(narNode("symlink", "target", strings.Repeat("x", 4095))...))
	if r := mustRun(t, filepath.Join(t.TempDir(), "backup"), store, request("r", p)); len(r.Warnings) > 0 {
		t.Errorf("the longest: %q", r.Warnings)
	}
}
