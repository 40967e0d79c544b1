package check

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/testenv"
)

// Signatures and content addresses that Nix makes are right.
func TestNixSignsAndAddresses(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "user"))
	nix := func(name string, args ...string) string {
		return strings.TrimSpace(testenv.Run(t, dir, name, args...))
	}
	must(t, os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "sub", "file"), []byte("text\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "flat"), bytes.Repeat([]byte("text\n"), 1000), 0o644))
	top := build(t, "testdata/small.nix")
	rewritten := nix("nix", "--extra-experimental-features", "ca-derivations", "store", "make-content-addressed", "--json", top)
	var made struct{ Rewrites map[string]string }
	must(t, json.Unmarshal([]byte(rewritten), &made))
	paths := []string{
		nix("nix-store", "--add", "tree"), nix("nix-store", "--add-fixed", "sha256", "flat"), nix("nix-store", "--add-fixed", "md5", "flat"),
		nix("nix-store", "--add-fixed", "--recursive", "sha1", "tree"), made.Rewrites[top],
	}
	cache := filepath.Join(dir, "cache")
	nix("nix", append([]string{"copy", "--to", "file://" + cache + "?compression=zstd&write-nar-listing=true"}, paths...)...)
	nix("nix-store", "--generate-binary-cache-key", "test-2", "secret", "public")
	nix("nix", append([]string{"store", "sign", "--store", "file://" + cache, "--key-file", "secret"}, paths...)...)
	text, err := os.ReadFile(filepath.Join(dir, "public"))
	must(t, err)
	key, err := signature.ParsePublicKey(string(text))
	must(t, err)
	o := all
	o.TrustedKeys = []signature.PublicKey{key}
	r, err := Run(t.Context(), cache, o)
	must(t, err)
	r.want(t)
	if r.StorePaths < len(paths) {
		t.Errorf("%d store paths", r.StorePaths)
	}
	for _, p := range paths {
		name := filepath.Join(cache, filepath.Base(p)[:32]+bincache.NarInfoExt)
		text, err := os.ReadFile(name)
		must(t, err)
		if !bytes.Contains(text, []byte("\nCA: ")) {
			t.Errorf("%s has no content address:\n%s", p, text)
		}
	}
	// The content of one under the address of another.
	spoil(t, cache, paths[1], "CA: fixed:sha256:", "CA: fixed:r:sha256:")
	spoil(t, cache, paths[4], "Sig: test-2:", "Sig: test-2:A")
	r, err = Run(t.Context(), cache, o)
	must(t, err)
	base := func(p string) string { return filepath.Base(p)[:32] + bincache.NarInfoExt }
	r.want(t, "damage content-address "+base(paths[1]), "damage content-address "+base(paths[1]), "warning narinfo-odd "+base(paths[4]))
}

func spoil(t *testing.T, cache, path, old, new string) {
	t.Helper()
	name := filepath.Join(cache, filepath.Base(path)[:32]+bincache.NarInfoExt)
	text, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	must(t, os.WriteFile(name, bytes.Replace(text, []byte(old), []byte(new), 1), 0o644))
}
