//go:build acceptance

package narread

import (
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/testenv"
)

// TestAcceptanceContainers takes every store path of a corpus of real packages,
// as Nix dumps it, through the containers of the field.
func TestAcceptanceContainers(t *testing.T) {
	testenv.Need(t, "root", "nix")
	roots := testenv.Corpus(t, t.TempDir())
	paths := strings.Fields(testenv.Run(t, ".", "nix-store", append([]string{"-qR"}, roots...)...))
	t.Logf("%d store paths", len(paths))
	cache := NewCache(48 << 20) // as a mount has
	work := make(chan string)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for p := range work {
				t.Run(p[strings.LastIndexByte(p, '/')+1:], func(t *testing.T) { compareStorePath(t, p, cache) })
			}
		})
	}
	for _, p := range paths {
		work <- p
	}
	close(work)
	workers.Wait()
}

// compareStorePath takes one store path through all containers. That the NAR is
// what Nix calls so, its hash in Nix's database says.
func compareStorePath(t *testing.T, path string, cache *Cache) {
	n := []byte(testenv.Run(t, ".", "nix-store", "--dump", path))
	hash, err := narinfo.ParseHash(strings.TrimSpace(testenv.Run(t, ".", "nix-store", "-q", "--hash", path)))
	must(t, err)
	if optionsFor(n, "").NarHash != hash {
		t.Fatal("the dump does not have the hash that Nix knows")
	}
	l, err := listStream(strings.NewReader(string(n)), int64(len(n)))
	must(t, err)
	for _, p := range corpusPackers() {
		t.Run(p.name, func(t *testing.T) { compareCorpus(t, p, n, l, cache) })
	}
}
