package index

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A text is a narinfo file as a record has it: what occurs in all of them, and
// what the index knows from elsewhere, is a single byte, and hashes, which no
// compressor makes smaller, are by themselves, in binary.
type text struct {
	words  []byte
	hashes []byte
	// refs are the references that words leave out: they are in the table of
	// references.
	refs []storepath.Path
}

// Bytes that stand for something in words. Those from sameHash on stand for the
// first, second, ... hash once more. They belong to the format.
const (
	plain      = 0x00 // at the beginning: what follows is the file itself
	newline    = '\n' // stands for itself
	ownPath    = 0x10 // the store path of the record
	ownName    = 0x11 // its name, with the hyphen before it
	ownSize    = 0x12 // NarSize
	references = 0x13 // the references, separated by spaces
	hash20     = 0x14 // 20 bytes in base 32, a hash part
	hash32     = 0x15 // 32 bytes in base 32
	signature  = 0x16 // 64 bytes in base 64
	sameHash   = 0x17
	lastHash   = 0x1f
)

// phrases are what the other bytes below sameHash stand for, in this order.
func phrases() []string {
	return []string{
		"StorePath: /nix/store/",
		"\nURL: nar/",
		".nar\nCompression: none\nFileHash: sha256:",
		".nar.xz\nCompression: xz\nFileHash: sha256:",
		".nar.zst\nCompression: zstd\nFileHash: sha256:",
		".nar.bz2\nCompression: bzip2\nFileHash: sha256:",
		"\nFileSize: ",
		"\nNarHash: sha256:",
		narSizePhrase,
		referencesPhrase,
		"\nDeriver: ",
		".drv\n",
		"Sig: cache.nixos.org-1:",
	}
}

const (
	narSizePhrase    = "\nNarSize: "
	referencesPhrase = "\nReferences: "
)

// A texter shortens narinfo files. It is safe for concurrent use.
type texter struct {
	shorten *strings.Replacer
	expand  *strings.Replacer
}

func newTexter() texter {
	var short, long []string
	b := rune(plain)
	for _, phrase := range phrases() {
		if b++; b == newline {
			b++
		}
		short, long = append(short, phrase, string(b)), append(long, string(b), phrase)
	}
	return texter{strings.NewReplacer(short...), strings.NewReplacer(long...)}
}

// short returns the text of a narinfo file, which info is. What does not come
// back exactly stays as it is.
func (t texter) short(file []byte, info *narinfo.NarInfo) text {
	s := string(file)
	if !strings.ContainsFunc(s, func(r rune) bool { return r <= lastHash && r != newline }) {
		x := t.cut(s, info)
		if back, ok := t.long(x, info.StorePath, info.NarSize); ok && string(back) == s {
			return x
		}
	}
	return text{words: append([]byte{plain}, file...)}
}

func (t texter) cut(s string, info *narinfo.NarInfo) (x text) {
	if before, after, ok := strings.Cut(s, referencesPhrase); ok {
		line, rest, _ := strings.Cut(after, "\n")
		if x.refs = splitPaths(line); x.refs != nil {
			s = before + referencesPhrase + string(rune(references)) + "\n" + rest
		}
	}
	s = strings.ReplaceAll(s, string(info.StorePath), string(rune(ownPath)))
	s = strings.ReplaceAll(s, string(info.StorePath[storepath.HashLen:]), string(rune(ownName)))
	s = strings.Replace(s, narSizePhrase+strconv.FormatInt(info.NarSize, 10)+"\n", narSizePhrase+string(rune(ownSize))+"\n", 1)
	x.words, x.hashes = cutHashes(t.shorten.Replace(s))
	return x
}

// splitPaths is the reverse of narinfo.JoinPaths, nil for what that does not make.
func splitPaths(line string) []storepath.Path {
	var paths []storepath.Path
	for _, field := range strings.Split(line, " ") {
		p, err := storepath.Parse(field)
		if err != nil {
			return nil
		}
		paths = append(paths, p)
	}
	return paths
}

// digits are those of base 64; base 32 has some of them.
const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

// cutHashes takes the hashes out of s.
func cutHashes(s string) (words, hashes []byte) {
	var seen []string
	words = make([]byte, 0, len(s))
	for s != "" {
		run := s[:len(s)-len(strings.TrimLeft(s, digits))]
		n := slices.Index(seen, run)
		switch b, kind := decodeHash(run); {
		case run == "":
			words, s = append(words, s[0]), s[1:]
			continue
		case kind == 0:
			words = append(words, run...)
		case n >= 0:
			words = append(words, byte(sameHash+n))
		default:
			words, hashes = append(words, kind), append(hashes, b...)
			if len(seen) <= lastHash-sameHash {
				seen = append(seen, run)
			}
		}
		s = s[len(run):]
	}
	return words, hashes
}

// decodeHash returns the hash whose digits are all of s, and which kind it is;
// 0 if it is none.
func decodeHash(s string) (b []byte, kind byte) {
	var err error
	switch {
	case len(s) == nixbase32.EncodedLen(20):
		b, err = nixbase32.DecodeString(s)
		kind = hash20
	case len(s) == nixbase32.EncodedLen(32):
		b, err = nixbase32.DecodeString(s)
		kind = hash32
	case len(s) == base64.StdEncoding.EncodedLen(64):
		b, err = base64.StdEncoding.DecodeString(s)
		kind = signature
	}
	if err != nil || len(b) == 0 {
		return nil, 0
	}
	return b, kind
}

// long is the reverse of short. It reports false for what short does not make.
func (t texter) long(x text, p storepath.Path, narSize int64) ([]byte, bool) {
	if len(x.words) > 0 && x.words[0] == plain {
		return x.words[1:], len(x.hashes) == 0
	}
	refs := narinfo.JoinPaths(x.refs)
	if !x.fits(len(refs)) {
		return nil, false
	}
	s, ok := putHashes(x.words, x.hashes)
	if !ok {
		return nil, false
	}
	s = strings.NewReplacer(string(rune(ownPath)), string(p), string(rune(ownName)), string(p[storepath.HashLen:]),
		string(rune(references)), refs, string(rune(ownSize)), strconv.FormatInt(narSize, 10)).Replace(s)
	return []byte(t.expand.Replace(s)), true
}

// maxMeaning is more bytes than any byte stands for, other than references.
const maxMeaning = 256

// fits reports whether a text, which may come from anywhere, is of no more than
// a narinfo file can have.
func (x text) fits(refs int) bool {
	size := 0
	for _, w := range x.words {
		switch {
		case w == references:
			size += refs
		case w > lastHash || w == newline:
			size++
		default:
			size += maxMeaning
		}
		if size > maxText {
			return false
		}
	}
	return true
}

// putHashes puts hashes back where they were, all of them.
func putHashes(words, hashes []byte) (string, bool) {
	var out strings.Builder
	var seen []string
	for _, w := range words {
		size := 0
		switch {
		case w >= sameHash && w <= lastHash:
			if int(w-sameHash) >= len(seen) {
				return "", false
			}
			out.WriteString(seen[w-sameHash])
			continue
		case w == hash20:
			size = 20
		case w == hash32:
			size = 32
		case w == signature:
			size = 64
		default:
			out.WriteByte(w)
			continue
		}
		if size > len(hashes) {
			return "", false
		}
		encode := nixbase32.EncodeToString
		if w == signature {
			encode = base64.StdEncoding.EncodeToString
		}
		run := encode(hashes[:size])
		hashes = hashes[size:]
		seen = append(seen, run)
		out.WriteString(run)
	}
	return out.String(), len(hashes) == 0
}
