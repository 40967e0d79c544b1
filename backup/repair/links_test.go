package repair

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/index/bincache"
)

// Damaged realisations, debuginfo and logs come from another cache, realisations
// only if that can be believed; else they are quarantined, and it is said why.
func TestLinks(t *testing.T) {
	s := newScene(t)
	second := filepath.Join(t.TempDir(), "second")
	must(t, os.CopyFS(second, os.DirFS(whole())))
	secret, public, err := signature.GenerateKeypair("key-1", nil)
	must(t, err)
	sign := func(text string) signature.Signature {
		sig, err := secret.Sign(nil, text)
		must(t, err)
		return sig
	}
	info, err := s.open(whole()).Cache.Lookup(s.top)
	must(t, err)
	id := "sha256:" + strings.Repeat("0a", 32) + "!out"
	realised := fmt.Sprintf(`{"dependentRealisations":{},"id":"%s","outPath":"%s"`, id, s.top)
	traced := sign(fmt.Sprintf(`{"key":{"drvPath":"%s.drv","outputName":"out"},"value":{"outPath":"%s"}}`, s.lib, s.top)).String()
	good := map[string]string{
		"cache/realisations/" + id + ".doi":                      fmt.Sprintf(`%s,"signatures":["%s"]}`, realised, sign(realised+"}")),
		"cache/build-trace-v2/" + string(s.lib) + ".drv/out.doi": fmt.Sprintf(`{"outPath":"%s","signatures":[{"keyName":"key-1","sig":"%s"}]}`, s.top, strings.TrimPrefix(traced, "key-1:")),
		"cache/debuginfo/0123.debug":                             fmt.Sprintf(`{"archive":"../%s","member":"lib/x"}`, info.URL),
		"cache/log/" + string(s.lib) + ".drv":                    "a log\n",
	}
	for name, text := range good {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(second, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(second, name), []byte(text), 0o644))
	}
	harm := func() {
		for name := range good {
			must(t, os.RemoveAll(s.path(name)))
			if strings.Contains(name, "/log/") {
				must(t, os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
				must(t, os.Symlink("/etc/hostname", s.path(name)))
			} else {
				s.write(name, "{")
			}
		}
	}
	_, other, err := signature.GenerateKeypair("key-1", nil)
	must(t, err)
	for name, c := range map[string]struct {
		keys        []signature.PublicKey
		noCheckSigs bool
		repaired    int
	}{
		"no key":          {repaired: 2},
		"another key":     {keys: []signature.PublicKey{other}, repaired: 2},
		"the key":         {keys: []signature.PublicKey{public}, repaired: 4},
		"--no-check-sigs": {noCheckSigs: true, repaired: 4},
	} {
		t.Run(name, func(t *testing.T) {
			harm()
			o := s.options(itself)
			o.Request.From = append(o.Request.From, s.open(second))
			o.Request.TrustedKeys, o.Request.NoCheckSigs = c.keys, c.noCheckSigs
			o.Request.DryRun = true
			before := tree(t, s.dir, derived...)
			if r := s.repair(o); len(r.Repaired) != c.repaired || len(diff(before, tree(t, s.dir, derived...))) > 0 {
				t.Errorf("a dry run: %+v", r)
			}
			o.Request.DryRun = false
			r := s.repair(o)
			if len(r.Repaired) != c.repaired || len(r.Quarantined) != len(good)-c.repaired || len(r.Remaining) > 0 {
				t.Errorf("got %+v", r)
			}
			for _, q := range r.Quarantined {
				if !strings.Contains(q.Reason, second+": has it, but no trusted key has signed it") {
					t.Errorf("%s: %s", q.File, q.Reason)
				}
			}
			for _, m := range r.Repaired {
				if text := s.read(m.File); text != good[m.File] || m.From != second {
					t.Errorf("%+v is %q", m, text)
				}
			}
		})
	}
}

// What another cache has as badly does no harm, nor what leads to nothing here.
func TestLinksWithoutSource(t *testing.T) {
	s := newScene(t)
	second := filepath.Join(t.TempDir(), "second")
	must(t, os.CopyFS(second, os.DirFS(whole())))
	const id = "sha256:00!out"
	for name, text := range map[string]string{
		"cache/realisations/sha256:aa!out.doi": "{",
		"cache/realisations/sha256:bb!out.doi": `{"id":"` + id + `","outPath":"` + string(s.top) + `"}`,
		"cache/realisations/sha256:00!out.doi": `{"id":"` + id + `","outPath":"` + strings.Repeat("0", 32) + `-none"}`,
		"cache/debuginfo/absent":               `{"archive":"../nar/none","member":"x"}`,
		"cache/debuginfo/outside":              `{"archive":"../../../etc/passwd","member":"x"}`,
		"cache/debuginfo/none":                 "",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(second, name)), 0o755))
		if text != "" {
			must(t, os.WriteFile(filepath.Join(second, name), []byte(text), 0o644))
		}
		s.write(name, "[")
	}
	s.write("cache/log/"+string(s.top)+".drv/x", "a directory where a log has to be")
	must(t, os.WriteFile(filepath.Join(second, "cache", bincache.LogDir, string(s.top)+".drv"), []byte("log"), 0o644))
	o := s.options(itself)
	o.Request.From, o.Request.NoCheckSigs = append(o.Request.From, s.open(second)), true
	r := s.repair(o)
	if len(r.Repaired) > 0 || len(r.Quarantined) != 7 {
		t.Errorf("repaired %+v, quarantined %+v", r.Repaired, r.Quarantined)
	}
}
