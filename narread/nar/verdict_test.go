package nar

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/testenv"
)

// What each reader says about a NAR.
const (
	all      = "strict tolerant nix" // everybody accepts it
	tolerant = "tolerant nix"        // not the newest Nix
	nix      = "nix"                 // Nix 2.8 restores it, and we refuse
	none     = ""
	unasked  = "-" // we refuse, and Nix 2.8 is better not asked
)

type verdict struct {
	name   string
	nar    []byte
	accept string
}

func verdicts() []verdict {
	const zero8 = raw("\x00\x00\x00\x00\x00\x00\x00\x00")
	a, b := in("a", file("1")), in("b", file("2"))
	return []verdict{
		// Good.
		{"empty file", magic(file("")), all},
		{"file", magic(file("hello")), all},
		{"file without padding", magic(file("12345678")), all},
		{"program", magic(program("x")), all},
		{"symlink", magic(link("/nix/store")), all},
		{"empty directory", magic(directory()), all},
		{"sample", sample(), all},
		{"sorted by bytes", magic(directory(
			in("a", file("")), in("a.b", file("")), in("a0", file("")), in("aB", file("")), in("ab", file("")),
			in("z", file("")), in("\x80", file("")))), all},
		{"name of 255 bytes", magic(directory(in(strings.Repeat("n", 255), file("")))), all},
		{"name with newline and backslash", magic(directory(in("a\n\\ \"", file("")))), all},
		{"name not UTF-8", magic(directory(in("\xff\xfe", file("")))), all},
		{"name of dots", magic(directory(in("...", file("")), in("..a", file("")))), all},
		{"target of 4095 bytes", magic(link(strings.Repeat("t", 4095))), all},
		{"target not UTF-8", magic(link("\xff")), all},
		{"target with dots", magic(link("../../..")), all},
		{"file in 63 directories", magic(nested(63)), all},
		{"bytes behind the end", append(sample(), "junk"...), all},

		// What only older Nix accepts.
		{"file in 64 directories", magic(nested(64)), tolerant},
		{"file in 200 directories", magic(nested(200)), tolerant},
		{"not sorted", magic(directory(b, a)), tolerant},
		{"not sorted by bytes", magic(directory(in("\x80", file("")), in("z", file("")))), tolerant},

		// Names.
		{"empty name", magic(directory(in("", file("")))), none},
		{"name .", magic(directory(in(".", file("")))), none},
		{"name ..", magic(directory(in("..", file("")))), none},
		{"name with slash", magic(directory(in("a/b", file("")))), none},
		{"name with leading slash", magic(directory(in("/etc", file("")))), none},
		{"name with NUL", magic(directory(in("a\x00b", file("")))), none},
		{"name of 256 bytes", magic(directory(in(strings.Repeat("n", 256), file("")))), none},
		{"name of 2^40 bytes", archive("nix-archive-1", "(", "type", "directory", "entry", "(", "name",
			raw("\x00\x00\x00\x00\x00\x01\x00\x00")), unasked},
		{"same name twice", magic(directory(a, a)), none},
		{"same directory twice", magic(directory(in("a", directory()), in("a", directory()))), none},
		{"symlink, then directory of its name", magic(directory(in("a", link("b")), in("a", directory()))), none},
		{"same name twice, apart", magic(directory(b, a, b)), none},

		// Targets.
		{"empty target", magic(link("")), none},
		{"target with NUL", magic(link("a\x00b")), nix},
		{"target of 4096 bytes", magic(link(strings.Repeat("t", 4096))), none},
		{"symlink without target", magic("(", "type", "symlink", ")"), nix},

		// Padding.
		{"magic padded with 1", archive(raw(tagMagic[:len(tagMagic)-1]+"\x01"), file("")), none},
		{"tag padded with 1", archive("nix-archive-1", raw("\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x01\x00\x00\x00\x00"),
			"type", "regular", "contents", "", ")"), none},
		{"type padded with 1", magic("(", "type", raw(tagRegular[:15]+"\x01"), "contents", "", ")"), none},
		{"name padded with 1", magic(directory("entry", "(", "name", raw("\x01"+zero7+"a\x00\x00\x00\x00\x00\x00\x01"),
			"node", file(""), ")")), none},
		{"contents padded with 1", magic("(", "type", "regular", "contents", raw("\x01"+zero7+"a\x00\x01\x00\x00\x00\x00\x00"), ")"), none},
		{"target padded with 1", magic("(", "type", "symlink", "target", raw("\x01"+zero7+"a\x01\x00\x00\x00\x00\x00\x00"), ")"), none},

		// Fields.
		{"nothing", nil, none},
		{"other magic", archive("nix-archive-2", file("")), none},
		{"only zeros", archive(zero8, zero8, zero8, zero8), none},
		{"text", []byte("this is not a NAR at all, but 64 bytes of text that go on and on"), none},
		{"executable not empty", magic("(", "type", "regular", "executable", "x", "contents", "", ")"), none},
		{"executable twice", magic("(", "type", "regular", "executable", "", "executable", "", "contents", "", ")"), nix},
		{"executable after contents", magic("(", "type", "regular", "contents", "", "executable", "", ")"), nix},
		{"no contents", magic("(", "type", "regular", ")"), nix},
		{"contents twice", magic("(", "type", "regular", "contents", "a", "contents", "b", ")"), nix},
		{"no type", magic("(", ")"), nix},
		{"type twice", magic("(", "type", "regular", "type", "regular", "contents", "", ")"), none},
		{"unknown type", magic("(", "type", "fifo", ")"), none},
		{"long type", magic("(", "type", strings.Repeat("regular", 20), ")"), none},
		{"unknown field", magic("(", "type", "regular", "mode", "0644", "contents", "", ")"), none},
		{"file with target", magic("(", "type", "regular", "contents", "", "target", "a", ")"), none},
		{"entry without node", magic(directory([]any{"entry", "(", "name", "a", ")"})), nix},
		{"entry without name", magic(directory([]any{"entry", "(", "node", file(""), ")"})), none},
		{"entry with two names", magic(directory([]any{"entry", "(", "name", "a", "name", "b", "node", file(""), ")"})), nix},
		{"entry not closed", magic(directory([]any{"entry", "(", "name", "a", "node", file("")})), none},
		{"not closed", magic("(", "type", "directory"), none},
		{"contents beyond the end", magic("(", "type", "regular", "contents", raw("\xff\x00\x00\x00\x00\x00\x00\x00abc")), none},
		{"contents of 2^62 bytes", magic("(", "type", "regular", "contents", raw("\x00\x00\x00\x00\x00\x00\x00\x40abc")), unasked},
		{"contents of 2^64-1 bytes", magic("(", "type", "regular", "contents", raw("\xff\xff\xff\xff\xff\xff\xff\xffabc")), unasked},
	}
}

func TestVerdicts(t *testing.T) {
	for _, v := range verdicts() {
		t.Run(v.name, func(t *testing.T) {
			nodes, r, err := parse(v.nar, ReaderOptions{Strict: true})
			checkVerdict(t, "strict", err, strings.Contains(v.accept, "strict"))
			if err == nil && (!bytes.HasPrefix(v.nar, rewrite(t, nodes)) || r.Deviation() != nil) {
				t.Errorf("strict: written again, the NAR differs (deviation %v)", r.Deviation())
			}
			l, r := tolerantListing(v.nar)
			checkVerdict(t, "tolerant", l.err, strings.Contains(v.accept, "tolerant"))
			if want := v.accept == tolerant; l.err == nil && (r.Deviation() != nil) != want {
				t.Errorf("tolerant: deviation %v, want one: %v", r.Deviation(), want)
			}
			_, err = ReadListing(bytes.NewReader(v.nar), int64(len(v.nar)))
			exact := l.err == nil && r.Offset() == int64(len(v.nar))
			checkVerdict(t, "ReadListing", err, exact)
		})
	}
}

type listingOrError struct {
	*Listing
	err error
}

func tolerantListing(nar []byte) (listingOrError, *Reader) {
	r := NewReader(bytes.NewReader(nar), ReaderOptions{})
	l, err := r.Listing()
	return listingOrError{l, err}, r
}

func checkVerdict(t *testing.T, who string, err error, accept bool) {
	t.Helper()
	var fe *FormatError
	if accept && err != nil || !accept && !errors.As(err, &fe) {
		t.Errorf("%s: %v, want it accepted: %v", who, err, accept)
	}
}

// TestVerdictsOfNix asks Nix 2.8 about the same NARs, and checks that what it
// restores from those we accept is what was in the NAR.
func TestVerdictsOfNix(t *testing.T) {
	testenv.Need(t, "nix")
	dir := t.TempDir()
	for i, v := range verdicts() {
		if v.accept == unasked {
			continue
		}
		out := filepath.Join(dir, fmt.Sprint(i))
		cmd := exec.Command("nix-store", "--restore", out)
		cmd.Env, cmd.Stdin = testenv.NixEnv(t), bytes.NewReader(v.nar)
		msg, err := cmd.CombinedOutput()
		if want := strings.Contains(v.accept, "nix"); (err == nil) != want {
			t.Errorf("%s: nix-store --restore: %v, %s, want it accepted: %v", v.name, err, msg, want)
		}
		if err == nil && strings.Contains(v.accept, "strict") {
			if got, _, _ := dump(t, out); !bytes.HasPrefix(v.nar, got) {
				t.Errorf("%s: what Nix restored is dumped with other bytes", v.name)
			}
		}
		os.RemoveAll(out)
	}
}
