package check

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/storepath"
)

// A harm is what may happen to a backup, and what the check then says: severity,
// kind and file of every finding, notes only where they are meant.
type harm struct {
	name string
	do   func(s *scene)
	o    Options
	want func(s *scene) []string
	// says is in the message of the first wanted finding; hurts are the names of
	// the store paths and the releases that it hurts.
	says, hurts string
}

const one = "releases/demo/one/"

// harms has at least one for every kind of finding.
var harms = []harm{
	{
		name: "nothing", do: func(*scene) {}, o: all,
	}, {
		name: "no nix-cache-info", do: func(s *scene) { s.remove("cache/nix-cache-info") },
		want: wants("warning cache-info cache/nix-cache-info"), says: "is missing",
	}, {
		name: "nix-cache-info of another store", do: func(s *scene) { s.edit("cache/nix-cache-info", "/nix/store", "/gnu/store") },
		want: wants("damage cache-info cache/nix-cache-info"), says: "StoreDir is /gnu/store, but ",
	}, {
		name: "nix-cache-info with a wrong priority", do: func(s *scene) { s.edit("cache/nix-cache-info", "Priority: 30", "Priority: much") },
		want: wants("damage cache-info cache/nix-cache-info"), says: "Nix does not open the cache",
	}, {
		name: "no directory for realisations", do: func(s *scene) { s.remove("cache/realisations") },
		want: wants("warning cache-directory cache/realisations"), says: "read-only medium",
	}, {
		name: "a file instead of a directory", do: func(s *scene) { s.remove("cache/log"); s.write("cache/log", "x") },
		want: wants("damage cache-directory cache/log"), says: "not a directory",
	}, {
		name: "directory leads out", do: func(s *scene) { s.remove("cache/log"); must(s.t, os.Symlink("/etc", s.path("cache/log"))) },
		want: wants("damage cache-directory cache/log"), says: "escapes",
	}, {
		name: "narvault.json is no JSON", do: func(s *scene) { s.edit("narvault.json", "{", "[") }, o: Options{},
		want: wants("damage config narvault.json", "damage index index/gen-1"), says: "invalid character",
	}, {
		name: "narinfo truncated", do: func(s *scene) { must(s.t, os.Truncate(s.path(narInfo(s.lib)), 100)) },
		want:  func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
		says:  "line 2",
		hurts: "lib demo/one",
	}, {
		name: "narinfo of another path", do: func(s *scene) { s.write(narInfo(s.lib), s.read(narInfo(s.twin))) },
		want:  func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
		says:  "another store path",
		hurts: "lib demo/one",
	}, {
		name: "narinfo leads out", do: func(s *scene) { s.edit(narInfo(s.lib), "URL: nar/", "URL: ../") },
		want: func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
		says: "leads out of the cache",
	}, {
		name: "narinfo is a link that leads out", do: func(s *scene) {
			s.remove(narInfo(s.lib))
			must(s.t, os.Symlink("/etc/passwd", s.path(narInfo(s.lib))))
		},
		want: func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
		says: "escapes",
	}, {
		name: "narinfo is a pipe", do: func(s *scene) {
			s.remove(narInfo(s.lib))
			must(s.t, syscall.Mkfifo(s.path(narInfo(s.lib)), 0o644))
		},
		want: func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
		says: "not a regular file",
	}, {
		name: "narinfo with a wrong FileHash", do: func(s *scene) { s.edit(narInfo(s.top), "FileHash: sha256:", "FileHash: sha257:") },
		want: func(s *scene) []string {
			return []string{"damage narinfo " + narInfo(s.top), "damage narinfo-differs " + narInfo(s.top)}
		},
		says: "field FileHash",
	}, {
		name: "a reference that was not there", do: func(s *scene) {
			s.edit(narInfo(s.lib), "References: ", "References: "+string(s.note))
		},
		want:  func(s *scene) []string { return []string{"damage narinfo-differs " + narInfo(s.lib)} },
		says:  `References was "[]", is "[` + "",
		hurts: "lib demo/one",
	}, {
		name: "a signature more", do: func(s *scene) {
			s.write(narInfo(s.lib), s.read(narInfo(s.lib))+"Sig: k:"+strings.Repeat("A", 86)+"==\n")
		},
		want: func(s *scene) []string { return []string{"note index-stale " + narInfo(s.lib)} },
		says: "Sig was",
	}, {
		name: "signature of no form", do: func(s *scene) { s.write(narInfo(s.lib), s.read(narInfo(s.lib))+"Sig: nonsense\n") },
		want: func(s *scene) []string { return []string{"warning narinfo-odd " + narInfo(s.lib)} },
		says: "the newest Nix refuses the narinfo",
	}, {
		name: "a field twice", do: func(s *scene) { s.write(narInfo(s.lib), s.read(narInfo(s.lib))+"Compression: zstd\n") },
		want: func(s *scene) []string {
			return []string{"warning narinfo-odd " + narInfo(s.lib), "warning narinfo-differs " + narInfo(s.lib)}
		},
		says: "Compression is there 2 times",
	}, {
		name: "a reference is gone", do: func(s *scene) {
			s.remove(narInfo(s.lib))
			s.write("cache/"+s.lib.Hash()+".ls", s.read("cache/"+s.lib.Hash()+".ls"))
		},
		want: func(s *scene) []string {
			return []string{"damage reference " + narInfo(s.top), "damage release-path " + one + "closure.txt", "note orphan cache/" + s.lib.Hash() + ".ls"}
		},
		says:  "-lib, which has no narinfo",
		hurts: "lib,top demo/one",
	}, {
		name: "a reference by another name", do: func(s *scene) { s.edit(narInfo(s.top), string(s.lib), string(s.lib)+"2") },
		want: func(s *scene) []string {
			return []string{"damage reference " + narInfo(s.top), "damage narinfo-differs " + narInfo(s.top)}
		},
		says: "but the store path with this hash is ",
	}, {
		name: "NAR file is gone", do: func(s *scene) { s.remove(s.nar(s.lib)) }, o: all,
		want:  func(s *scene) []string { return []string{"damage nar-missing " + s.nar(s.lib)} },
		hurts: "lib,twin demo/one",
	}, {
		name: "NAR file is longer", do: func(s *scene) { s.write(s.nar(s.top), s.read(s.nar(s.top))+"x") },
		want:  func(s *scene) []string { return []string{"damage nar-size " + s.nar(s.top)} },
		says:  "its narinfo says ",
		hurts: "top demo/one",
	}, {
		name: "narinfos contradict each other", do: func(s *scene) { s.edit(narInfo(s.twin), "NarSize: ", "NarSize: 1") }, o: all,
		want: func(s *scene) []string {
			return []string{"damage nar-conflict " + s.nar(s.lib), "damage narinfo-differs " + narInfo(s.twin), "damage nar-data " + s.nar(s.lib)}
		},
		says: "contradict each other",
	}, {
		name: "NAR file changed", do: func(s *scene) { s.flipAt(s.nar(s.lib), 20) }, o: all,
		want:  func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.lib)} },
		says:  "FileHash is ",
		hurts: "lib,twin demo/one",
	}, {
		name: "NarHash of another", do: func(s *scene) { s.remove("index"); s.exchange("NarHash: ") }, o: all,
		want:  func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.top)} },
		says:  "its FileHash is right",
		hurts: "top demo/one",
	}, {
		name: "FileHash of another", do: func(s *scene) { s.remove("index"); s.exchange("FileHash: ") }, o: all,
		want:  func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.top)} },
		says:  "NarHash is right",
		hurts: "top demo/one",
	}, {
		name: "two NAR files swapped", do: func(s *scene) {
			a, b := s.read(s.nar(s.lib)), s.read(s.nar(s.top))
			s.write(s.nar(s.lib), b)
			s.write(s.nar(s.top), a)
		}, o: all,
		want: func(s *scene) []string {
			return []string{
				"damage nar-size " + s.nar(s.lib), "damage nar-size " + s.nar(s.top),
				"damage nar-data " + s.nar(s.top), // the other one is longer, which is enough
			}
		},
	}, {
		name: "container is another one", do: func(s *scene) { s.edit(narInfo(s.lib), "zstd", "xz"); s.edit(narInfo(s.twin), "zstd", "xz") }, o: all,
		want: func(s *scene) []string {
			return []string{"warning nar-container " + s.nar(s.lib), "damage narinfo-differs " + narInfo(s.lib), "damage narinfo-differs " + narInfo(s.twin)}
		},
		says: "it is zstd, the narinfo says",
	}, {
		name: "listing is no JSON", do: func(s *scene) { s.edit("cache/"+s.lib.Hash()+".ls", "{", "[") },
		want: func(s *scene) []string { return []string{"damage listing cache/" + s.lib.Hash() + ".ls"} },
		says: "is no JSON",
	}, {
		name: "listing is of another path", do: func(s *scene) { s.write("cache/"+s.lib.Hash()+".ls", s.read("cache/"+s.top.Hash()+".ls")) }, o: all,
		want:  func(s *scene) []string { return []string{"damage listing cache/" + s.lib.Hash() + ".ls"} },
		says:  "contradicts the archive",
		hurts: "lib demo/one",
	}, {
		name: "content address is wrong", do: func(s *scene) { s.edit(narInfo(s.note), "CA: text:sha256:1", "CA: text:sha256:0") }, o: all,
		want: func(s *scene) []string {
			return []string{"damage content-address " + narInfo(s.note), "damage content-address " + narInfo(s.note), "damage narinfo-differs " + narInfo(s.note)}
		},
		hurts: "note demo/one",
	}, {
		name: "release.json is no JSON", do: func(s *scene) { s.edit(one+"release.json", "{", "[") },
		want:  wants("damage release " + one + "release.json"),
		hurts: " demo/one",
	}, {
		name: "release.json was changed", do: func(s *scene) { s.edit(one+"release.json", "again", "never") },
		want: wants("damage release " + one + "release.json"), says: "checksum",
	}, {
		name: "release.json is gone", do: func(s *scene) { s.remove(one + "release.json") },
		want: wants("damage release " + one + "release.json"), says: "is missing",
	}, {
		name: "closure.txt is gone", do: func(s *scene) { s.remove(one + "closure.txt") },
		want: wants("damage release " + one + "closure.txt"), says: "is missing",
	}, {
		name: "closure.txt is empty", do: func(s *scene) { s.write(one+"closure.txt", "") },
		want: wants("damage release " + one + "closure.txt"), says: "names no store path", hurts: " demo/one",
	}, {
		name: "closure.txt lacks a store path", do: func(s *scene) { s.edit(one+"closure.txt", s.lib.In("/nix/store")+"\n", "") },
		want:  wants("damage release "+one+"release.json", "damage release-closure "+one+"closure.txt"),
		says:  "-lib, which ",
		hurts: "lib demo/one",
	}, {
		name: "closure.txt names what is not there", do: func(s *scene) { s.edit(one+"closure.txt", "-lib\n", "-lib2\n") },
		want: wants("damage release-path "+one+"closure.txt", "damage release-closure "+one+"closure.txt"),
		says: "-lib2, which has no narinfo",
	}, {
		name: "a backup was interrupted", do: func(s *scene) {
			s.write(one+"previous/closure.txt", s.read(one+"closure.txt"))
			s.write(one+"previous/release.json", s.read(one+"release.json"))
			s.write(one+"closure.txt", s.note.In("/nix/store")+"\n")
		},
		want: wants("warning release " + one + "release.json"), says: "a backup was interrupted",
	}, {
		name: "closure.txt and release.json contradict each other", do: func(s *scene) {
			s.remove(one + "previous")
			s.write(one+"closure.txt", s.note.In("/nix/store")+"\n")
		},
		want: wants("damage release " + one + "release.json"), says: "says 4 store paths, closure.txt has 1", hurts: " demo/one",
	}, {
		name: "hydra.json is no JSON", do: func(s *scene) { s.write(one+"hydra.json", "{") },
		want: wants("damage release " + one + "hydra.json"), hurts: " demo/one",
	}, {
		name: "the record before is damaged", do: func(s *scene) { s.edit(one+"previous/closure.txt", "/nix", "/nox") },
		want: wants("damage release " + one + "previous/closure.txt"), hurts: " demo/one",
	}, {
		name: "realisation", do: func(s *scene) {
			s.write("cache/realisations/sha256:1!out.doi", `{"id":"sha256:1!out","outPath":"`+string(s.lib)+`"}`)
			s.write("cache/realisations/sha256:2!out.doi", `{"id":"sha256:2!out","outPath":"`+absent+`"}`)
			s.write("cache/realisations/sha256:3!out.doi", `{"id":"sha256:4!out","outPath":"`+string(s.lib)+`"}`)
			s.write("cache/build-trace-v2/"+absent+".drv/out.doi", `{"outPath":"`+string(s.lib)+`"}`)
			s.write("cache/build-trace-v2/"+absent+".drv/dev.doi", `{"outPath":`)
		},
		want: wants("warning realisation cache/realisations/sha256:2!out.doi", "damage realisation cache/realisations/sha256:3!out.doi",
			"damage realisation cache/build-trace-v2/"+absent+".drv/dev.doi"),
		says: "unexpected end of JSON",
	}, {
		name: "debuginfo", do: func(s *scene) {
			s.write("cache/debuginfo/1.debug", `{"archive":"../`+strings.TrimPrefix(s.nar(s.lib), "cache/")+`","member":"x"}`)
			s.write("cache/debuginfo/2.debug", `{"archive":"../nar/gone.nar.xz","member":"x"}`)
			s.write("cache/debuginfo/3.debug", `{"archive":"../../../x","member":"x"}`)
		},
		want: wants("warning debuginfo cache/debuginfo/2.debug", "damage debuginfo cache/debuginfo/3.debug"),
		says: "leads out",
	}, {
		name: "log", do: func(s *scene) { must(s.t, os.Mkdir(s.path("cache/log/x.drv"), 0o755)) },
		want: wants("damage log cache/log/x.drv"),
	}, {
		name: "dump of a database", do: func(s *scene) {
			r, err := backup.AddDump(s.t.Context(), s.dir, backup.DumpRequest{Write: func(_ context.Context, w io.Writer) (string, json.RawMessage, error) {
				_, err := io.WriteString(w, strings.Repeat("SELECT 1;\n", 1000))
				return "hydra", nil, err
			}})
			must(s.t, err)
			s.dump, err = filepath.Rel(s.dir, r.Dump.File)
			must(s.t, err)
			s.check(all).want(s.t)
			s.flipAt(s.dump, 15)
		}, o: all,
		want: func(s *scene) []string { return []string{"damage dump " + s.dump} },
	}, {
		name: "orphans", do: func(s *scene) {
			s.write("cache/nar/x.nar.zst", "x")
			s.write("cache/y.nar.xz", "y")
			s.write("cache/"+strings.Repeat("0", 32)+".ls", "{}")
			s.write("cache/notes.txt", "notes")
			s.write("releases/demo/README", "x")
		},
		want: wants("note orphan cache/nar/x.nar.zst", "note orphan cache/y.nar.xz", "note orphan cache/"+strings.Repeat("0", 32)+".ls",
			"note orphan cache/notes.txt", "note orphan releases/demo/README"),
	}, {
		name: "leftovers", do: func(s *scene) {
			s.write("cache/.narvault-1.tmp", "x")
			s.write("cache/nar/x.nar.tmp.12.3", "x")
			s.write(one+".narvault-2.tmp", "x")
		},
		want: wants("note leftover cache/.narvault-1.tmp", "note leftover cache/nar/x.nar.tmp.12.3", "note leftover "+one+".narvault-2.tmp"),
	}, {
		name: "the index is truncated", do: func(s *scene) { must(s.t, os.Truncate(s.path("index/gen-1/records/000001.sst"), 1000)) },
		want: wants("damage index index/gen-1/records/000001.sst"), says: "has 1000 bytes",
	}, {
		name: "the index is of another version of narvault", do: func(s *scene) {
			before := s.read("index/gen-1/manifest")
			s.edit("index/gen-1/manifest", `"version": `, `"version": 9`)
			sum := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
			s.edit("index/CURRENT", sum(before), sum(s.read("index/gen-1/manifest")))
		},
		want: wants("warning index index/gen-1/manifest"), says: "this narvault knows",
	}, {
		name: "the index lacks a path", do: func(s *scene) {
			must(s.t, os.Remove(s.path("index/CURRENT")))
			s.indexWithout(s.note)
		},
		want: wants("note index-stale index"), says: "lacks 1 store paths",
	}, {
		name: "what was verified cannot be noted", do: func(s *scene) { must(s.t, os.Mkdir(s.path(memoryFile), 0o755)) }, o: all,
		want: wants("note memory " + memoryFile),
	}, {
		name: "NAR that some Nix refuses", do: func(s *scene) { s.replace(s.lib, unsortedNAR) }, o: all,
		want: func(s *scene) []string {
			return []string{"warning nar-portable " + s.nar(s.lib), "damage listing cache/" + s.lib.Hash() + ".ls", "damage narinfo-differs " + narInfo(s.lib)}
		},
		says: "directory is not sorted",
	}, {
		name: "NAR that no Nix reads", do: func(s *scene) { s.replace(s.lib, strs("nix-archive-1", "(", "type", "socket", ")")) }, o: all,
		want: func(s *scene) []string {
			return []string{"damage nar-format " + s.nar(s.lib), "damage narinfo-differs " + narInfo(s.lib), "damage release " + one + "release.json"}
		},
		says: "no Nix reads it",
	}, {
		name: "signed by nobody", do: func(*scene) {}, o: Options{TrustedKeys: []signature.PublicKey{testKey}},
		want: func(s *scene) []string {
			return []string{"warning unsigned " + narInfo(s.lib), "warning unsigned " + narInfo(s.twin), "warning unsigned " + narInfo(s.top)}
		},
		says: "no trusted key",
	}, {
		name: "wrongly signed", do: func(s *scene) {
			for _, p := range []storepath.Path{s.lib, s.twin, s.top} {
				s.write(narInfo(p), s.read(narInfo(p))+"Sig: test-1:"+strings.Repeat("A", 86)+"==\n")
			}
		}, o: Options{TrustedKeys: []signature.PublicKey{testKey}},
		want: func(s *scene) []string {
			return []string{"damage signature " + narInfo(s.lib), "damage signature " + narInfo(s.twin), "damage signature " + narInfo(s.top)}
		},
		says: "the signature of test-1 is wrong",
	},
}

const absent = "00000000000000000000000000000000-absent"

var testKey = func() signature.PublicKey {
	k, err := signature.ParsePublicKey("test-1:1RWDFsyt3sbJxWu4gN2oGUyr3XdAGHYmznPxjePuD2s=")
	if err != nil {
		panic(err)
	}
	return k
}()

func wants(findings ...string) func(*scene) []string {
	return func(*scene) []string { return findings }
}

func TestFindings(t *testing.T) {
	seen := make(map[Kind]bool)
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			s := newScene(t)
			h.do(s)
			r := s.check(h.o)
			var want []string
			if h.want != nil {
				want = h.want(s)
			}
			r.want(t, slices.Clone(want)...)
			for _, text := range want {
				seen[Kind(strings.Fields(text)[1])] = true
			}
			if len(want) > 0 {
				h.checkDetails(t, r)
			}
			for _, f := range r.Findings {
				if f.Severity == Damage && f.Remedy == "" {
					t.Errorf("%s %s: no remedy", f.Kind, f.File)
				}
			}
		})
	}
	for _, k := range Kinds() {
		if !seen[k] {
			t.Errorf("no test has a finding of kind %s", k)
		}
	}
}

// checkDetails looks for a finding that says and hurts what is wanted.
func (h *harm) checkDetails(t *testing.T, r *Report) {
	t.Helper()
	var all []string
	for _, f := range r.Findings {
		var names []string
		for _, p := range f.StorePaths {
			names = append(names, p.Name())
		}
		slices.Sort(names)
		hurts := strings.Join(names, ",") + " " + joinReleases(f.Releases)
		if strings.Contains(f.Message, h.says) && (h.hurts == "" || h.hurts == hurts) {
			return
		}
		all = append(all, fmt.Sprintf("%s %s: %s; hurts %s", f.Kind, path.Base(f.File), f.Message, hurts))
	}
	t.Errorf("no finding says %q and hurts %q:\n%s", h.says, h.hurts, strings.Join(all, "\n"))
}

func joinReleases(ids []backup.ReleaseID) string {
	var words []string
	for _, id := range ids {
		words = append(words, id.String())
	}
	return strings.Join(words, ",")
}
