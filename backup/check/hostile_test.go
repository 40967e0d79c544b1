package check

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestHostile checks what nobody should make: nothing is followed out of the
// backup, waited for, or read for ever.
func TestHostile(t *testing.T) {
	const huge = 1 << 42 // sparse
	for _, h := range []harm{
		{
			name: "the directory of NAR files leads out", do: func(s *scene) {
				must(s.t, os.Rename(s.path("cache/nar"), s.path("elsewhere")))
				must(s.t, os.Symlink("../elsewhere", s.path("cache/nar")))
			},
			want: func(s *scene) []string {
				return []string{"damage cache-directory cache/nar", "damage nar-data " + s.nar(s.lib), "damage nar-data " + s.nar(s.top), "damage nar-data " + s.nar(s.note)}
			},
			says: "escapes",
		}, {
			name: "a NAR file leads out", do: func(s *scene) {
				must(s.t, os.Rename(s.path(s.nar(s.lib)), s.path("nar")))
				must(s.t, os.Symlink("../../nar", s.path(s.nar(s.lib))))
			},
			want: func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.lib)} },
			says: "escapes",
		}, {
			name: "a NAR file is a pipe", do: func(s *scene) {
				s.remove(s.nar(s.lib))
				must(s.t, syscall.Mkfifo(s.path(s.nar(s.lib)), 0o644))
			},
			want: func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.lib)} },
			says: "not a regular file",
		}, {
			name: "a NAR file leads to itself", do: func(s *scene) {
				name := s.nar(s.lib)
				s.remove(name)
				must(s.t, os.Symlink(name[strings.LastIndex(name, "/")+1:], s.path(name)))
			},
			want: func(s *scene) []string { return []string{"damage nar-data " + s.nar(s.lib)} },
		}, {
			name: "a NAR file without end", do: func(s *scene) { must(s.t, os.Truncate(s.path(s.nar(s.lib)), huge)) },
			want: func(s *scene) []string { return []string{"damage nar-size " + s.nar(s.lib)} },
		}, {
			name: "a NAR file without end, and no FileSize", do: func(s *scene) {
				for _, p := range []string{narInfo(s.lib), narInfo(s.twin)} {
					s.edit(p, "FileSize: ", "Nothing: ")
				}
				s.remove("index")
				must(s.t, os.Truncate(s.path(s.nar(s.lib)), huge))
			},
			want: func(s *scene) []string { return []string{"damage nar-size " + s.nar(s.lib)} },
		}, {
			name: "a listing without end", do: func(s *scene) { must(s.t, os.Truncate(s.path("cache/"+s.lib.Hash()+".ls"), huge)) },
			want: func(s *scene) []string { return []string{"damage listing cache/" + s.lib.Hash() + ".ls"} },
			says: "is larger than",
		}, {
			name: "a narinfo without end", do: func(s *scene) { must(s.t, os.Truncate(s.path(narInfo(s.lib)), huge)) },
			want: func(s *scene) []string { return []string{"damage narinfo " + narInfo(s.lib)} },
			says: "is larger than",
		}, {
			name: "a closure without end", do: func(s *scene) { must(s.t, os.Truncate(s.path(one+"closure.txt"), huge)) },
			want: wants("damage release " + one + "closure.txt"),
		}, {
			name: "a NarSize beyond all media", do: func(s *scene) {
				s.remove("index")
				s.edit(narInfo(s.top), "NarSize: ", "NarSize: 400000000000000")
			},
			want: func(s *scene) []string {
				return []string{"damage nar-data " + s.nar(s.top), "damage release " + one + "release.json"}
			},
		}, {
			name: "a URL of something else", do: func(s *scene) {
				s.remove("index")
				text := s.read(narInfo(s.top))
				s.edit(narInfo(s.top), "URL: "+strings.TrimPrefix(s.nar(s.top), "cache/"), "URL: nix-cache-info")
				if s.read(narInfo(s.top)) == text {
					s.t.Fatal("nothing changed")
				}
			},
			want: wants("damage nar-size cache/nix-cache-info", "damage nar-data cache/nix-cache-info"),
		},
	} {
		t.Run(h.name, func(t *testing.T) {
			s := newScene(t)
			h.do(s)
			want := h.want(s)
			r := s.check(all)
			r.want(t, want...)
			h.checkDetails(t, r)
		})
	}
}
