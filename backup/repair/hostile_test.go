package repair

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// marker is in all that a hostile cache tries to bring in.
const marker = "hostile-content-that-nobody-asked-for"

// hostileNAR is a NAR of one file with the marker.
func hostileNAR() string {
	str := func(s string) string {
		n := len(s)
		return string([]byte{byte(n), byte(n >> 8), 0, 0, 0, 0, 0, 0}) + s + strings.Repeat("\x00", -n&7)
	}
	return str("nix-archive-1") + str("(") + str("type") + str("regular") + str("contents") + str(marker) + str(")")
}

// A hostile is a copy of the whole backup in which somebody has changed something.
type hostile struct {
	*scene
	*backup.Backup
}

func (s *scene) hostile() *hostile {
	h := &scene{T: s.T, dir: filepath.Join(s.TempDir(), "hostile")}
	must(s, os.CopyFS(h.dir, os.DirFS(whole())))
	return &hostile{scene: h}
}

// info changes what a narinfo says.
func (h *hostile) info(p storepath.Path, change func(*narinfo.NarInfo)) {
	info, err := narinfo.Parse([]byte(h.read(narInfo(p))))
	must(h, err)
	change(info)
	h.write(narInfo(p), string(info.Bytes()))
}

// content gives a store path other content.
func (h *hostile) content(p storepath.Path, nar string, lie bool) {
	sum := narinfo.Hash(sha256.Sum256([]byte(nar)))
	h.info(p, func(info *narinfo.NarInfo) {
		if lie { // another file in the place of the right one
			h.write("cache/"+info.URL, nar)
			info.Compression, info.FileHash, info.FileSize = "none", sum.String(), int64(len(nar))
			return
		}
		info.URL, info.Compression, info.FileHash, info.FileSize = "nar/"+sum.Nix32()+".nar", "none", sum.String(), int64(len(nar))
		info.NarHash, info.NarSize = sum, int64(len(nar))
		h.write("cache/"+info.URL, nar)
	})
}

// TestHostile repairs from caches that lie. Nothing of theirs gets in.
func TestHostile(t *testing.T) {
	lost := func(s *scene) { s.flip(s.nar(s.top), 20) }
	forgotten := func(s *scene) { s.remove(narInfo(s.top), "index") }
	for name, c := range map[string]struct {
		harm func(*scene)
		lie  func(h *hostile, p storepath.Path)
		o    func(*Options)
	}{
		"other content":             {harm: lost, lie: func(h *hostile, p storepath.Path) { h.content(p, hostileNAR(), false) }},
		"other content, same words": {harm: lost, lie: func(h *hostile, p storepath.Path) { h.content(p, hostileNAR(), true) }},
		"other content, same FileHash": {harm: lost, lie: func(h *hostile, p storepath.Path) {
			h.write(h.nar(p), hostileNAR())
		}},
		"no end": {harm: lost, lie: func(h *hostile, p storepath.Path) {
			h.content(p, hostileNAR()+strings.Repeat(marker, 1<<20), true)
		}},
		"URL leads out": {harm: lost, lie: func(h *hostile, p storepath.Path) {
			h.write("secret", marker)
			h.info(p, func(info *narinfo.NarInfo) { info.URL = "../secret" })
		}},
		"NAR is a link": {harm: lost, lie: func(h *hostile, p storepath.Path) {
			h.write("secret", marker)
			name := h.nar(p)
			h.remove(name)
			must(h, os.Symlink(h.path("secret"), h.path(name)))
		}},
		"nobody vouches": {harm: forgotten, lie: func(h *hostile, p storepath.Path) { h.content(p, hostileNAR(), false) }},
		"references left out": {harm: forgotten, lie: func(h *hostile, p storepath.Path) {
			h.info(p, func(info *narinfo.NarInfo) {
				info.References, info.Deriver = nil, storepath.Path(strings.Repeat("0", 32)+"-"+marker)
			})
		}},
		"another key": {harm: forgotten, lie: func(h *hostile, p storepath.Path) {
			secret, _, err := signature.GenerateKeypair("mine-1", nil)
			must(h, err)
			h.content(p, hostileNAR(), false)
			h.info(p, func(info *narinfo.NarInfo) {
				sig, err := secret.Sign(nil, info.Fingerprint())
				must(h, err)
				info.Sigs = []string{sig.String()}
			})
		}, o: func(o *Options) {
			_, public, err := signature.GenerateKeypair("mine-1", nil)
			if err != nil {
				panic(err)
			}
			o.Request.TrustedKeys = []signature.PublicKey{public}
		}},
		"a record": {harm: func(s *scene) { s.remove(one+"release.json", one+"previous"); s.write(one+"closure.txt", "x") }, lie: func(h *hostile, p storepath.Path) {
			h.edit(one+"release.json", "again", marker)
		}},
		"rows of Hydra": {harm: func(s *scene) { s.write(one+"hydra.json", "[") }, lie: func(h *hostile, p storepath.Path) {
			h.edit(one+"release.json", "again", marker)
			h.write(one+"hydra.json", `"`+marker+`"`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.harm(s)
			h := s.hostile()
			c.lie(h, s.top)
			o := s.options(itself)
			o.Request.From = []*backup.Backup{s.open(h.dir)}
			if c.o != nil {
				c.o(&o)
			}
			if r := s.repair(o); len(r.Remaining) == 0 {
				t.Errorf("nothing remains: %+v", r.Repaired)
			}
			for name, text := range tree(t, s.dir) {
				if strings.Contains(text, marker) {
					t.Errorf("%s has got in", name)
				}
			}
			s.again(itself)
		})
	}
}

// TestTrusted takes a narinfo of which nothing is known any more from another
// cache: when a trusted key has signed it, or when that is asked for.
func TestTrusted(t *testing.T) {
	s := newScene(t)
	secret, public, err := signature.GenerateKeypair("ours-1", nil)
	must(t, err)
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte(secret.String()), 0o600))
	signKey, err := backup.LoadKey(key)
	must(t, err)
	other := s.hostile()
	_, _, err = backup.Sign(t.Context(), other.dir, backup.SignRequest{Keys: []backup.SignKey{signKey}})
	must(t, err)
	for name, change := range map[string]func(*Options){
		"signed":          func(o *Options) { o.Request.TrustedKeys = []signature.PublicKey{public} },
		"--no-check-sigs": func(o *Options) { o.Request.NoCheckSigs = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.remove(s.nar(s.top), narInfo(s.top), narInfo(s.lib), "index")
			o := s.options(itself)
			o.Request.From = []*backup.Backup{s.open(other.dir)}
			change(&o)
			if r := s.repair(o); len(r.Remaining) > 0 {
				t.Errorf("remaining: %+v", r.Remaining)
			}
			if got, want := s.read(narInfo(s.top)), other.read(narInfo(s.top)); got != want {
				t.Errorf("narinfo is %s, want %s", got, want)
			}
		})
	}
}
