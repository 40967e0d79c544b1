package gc

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// BenchmarkGC collects one half of a cache of many store paths, each of which
// refers to a few before it.
func BenchmarkGC(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		b.StopTimer()
		dir := manyPaths(b, n)
		b.StartTimer()
		r, err := run(b.Context(), backuptest.Memory{}, dir, Options{})
		if err != nil || len(r.Kept) != n/2 {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/path")
}

// manyPaths makes a backup of two releases with n store paths in all.
func manyPaths(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, layout.CacheDir, bincache.NARDir), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, layout.CacheDir, bincache.InfoFile), []byte("StoreDir: /nix/store\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	var paths [2][]storepath.Path
	for i := range n {
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		p := storepath.Path(nixbase32.EncodeToString(sum[:20]) + "-x")
		info := &narinfo.NarInfo{
			StoreDir: "/nix/store", StorePath: p, URL: fmt.Sprintf("nar/%d.nar", i), Compression: "none",
			FileSize: 1, NarHash: narinfo.Hash(sum), NarSize: 1,
		}
		same := &paths[i%2]
		for k := range min(4, len(*same)) {
			info.References = append(info.References, (*same)[len(*same)*k/4])
		}
		*same = append(*same, p)
		name := filepath.Join(dir, layout.CacheDir, p.Hash()+bincache.NarInfoExt)
		if err := os.WriteFile(name, info.Bytes(), 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, layout.CacheDir, info.URL), []byte("x"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	record := filepath.Join(dir, layout.ReleasesDir, "p", "r")
	if err := os.MkdirAll(record, 0o755); err != nil {
		b.Fatal(err)
	}
	var closure strings.Builder
	for _, p := range paths[0] {
		closure.WriteString(p.In("/nix/store") + "\n")
	}
	if err := os.WriteFile(filepath.Join(record, layout.ClosureFile), []byte(closure.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	return dir
}
