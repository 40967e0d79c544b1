package nixstore

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
)

func newWriter(w io.Writer) *bufio.Writer { return bufio.NewWriter(w) }

// FuzzInfos: what is read is written again and read as the same.
func FuzzInfos(f *testing.F) {
	one := words("/s/"+baseA, "/s/"+baseB, 1, "/s/"+baseA, 24, 24, hashA, "text:x", 1, "k:s")
	f.Add(append(one, words("")...))
	f.Add(append(infoWords("/s/"+baseA), append(infoWords("/s/"+baseB), words("")...)...))
	f.Add(words("/s/"+baseA, "", 1<<60))
	f.Add(words(""))
	asked := []storepath.Path{baseA, baseB}
	f.Fuzz(func(t *testing.T, data []byte) {
		infos, err := newAnswer(bytes.NewReader(data), "/s").infos(asked)
		if err != nil {
			return
		}
		var b bytes.Buffer
		q := question{newWriter(&b)}
		for _, p := range asked {
			if info, ok := infos[p]; ok {
				writeInfo(q, info)
			}
		}
		q.string("")
		q.Flush()
		again, err := newAnswer(&b, "/s").infos(asked)
		if err != nil || len(again) != len(infos) {
			t.Fatalf("again: %v, %v; first %v", again, err, infos)
		}
		for p, info := range infos {
			if !slices.Equal(again[p].References, info.References) || again[p].NarHash != info.NarHash || again[p].NarSize != info.NarSize ||
				again[p].CA != info.CA || again[p].Deriver != info.Deriver || !slices.Equal(again[p].Sigs, info.Sigs) {
				t.Fatalf("again: %v; first %v", again[p], info)
			}
		}
	})
}

func writeInfo(q question, info PathInfo) {
	q.string(info.Path.In("/s"))
	deriver := ""
	if info.Deriver != "" {
		deriver = info.Deriver.In("/s")
	}
	q.string(deriver)
	q.paths("/s", info.References)
	q.uint64(uint64(info.NarSize))
	q.uint64(uint64(info.NarSize))
	q.string(info.NarHash.String())
	q.string(info.CA)
	q.uint64(uint64(len(info.Sigs)))
	for _, sig := range info.Sigs {
		q.string(sig)
	}
}

func FuzzPaths(f *testing.F) {
	f.Add(words(2, "/s/"+baseB, "/s/"+baseA))
	f.Add(words(1 << 60))
	f.Add(words(1, 1<<60))
	f.Fuzz(func(t *testing.T, data []byte) {
		paths, err := newAnswer(bytes.NewReader(data), "/s").paths()
		if err == nil && !slices.Equal(paths, unique(paths)) {
			t.Errorf("not a sorted set: %v", paths)
		}
		greet(question{newWriter(io.Discard)}, newAnswer(bytes.NewReader(data), "/s"))
	})
}

func FuzzDerivation(f *testing.F) {
	f.Add([]byte(`Derive([("out","/s/` + baseA + `","",""),("dev","","r:sha256","")],[("/s/` + baseB + `",["out"])],["/s/` + baseA + `"],"s","b",["\"\\\n"],[("k","v")])`))
	f.Add([]byte(`DrvWithVersion("xp-dyn-drv",[],[("/s/` + baseB + `",(["out"],[("x",["y"])]))],[],"s","b",[],[])`))
	f.Add([]byte(`DrvWithVersion("xp-dyn-drv",[],[("/s/` + baseB + `",([],` + strings.Repeat("[(", 100)))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDerivation(data, "/s")
		if err != nil {
			return
		}
		for name, p := range d.Outputs {
			if _, err := storepath.Parse(string(p)); p != "" && err != nil {
				t.Errorf("output %q: %v", name, err)
			}
		}
	})
}

func FuzzRoots(f *testing.F) {
	f.Add("/a -> /s/" + baseA + "\n{temp:1} -> /s/" + baseB + "\n{censored} -> /s/" + baseB + "\n")
	f.Add("\"/a \\\" \\\\ -> b\" -> /s/" + baseA + "\n\"{temp:1}\" -> /s/" + baseB + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		roots, err := parseRoots(strings.NewReader(text), "/s")
		if err != nil {
			return
		}
		for _, r := range roots {
			if _, err := storepath.Parse(string(r.Path)); err != nil || strings.HasPrefix(r.Link, "{temp:") {
				t.Errorf("%+v, %v", r, err)
			}
		}
	})
}

func TestParseRoots(t *testing.T) {
	a, b := "/s/"+baseA, "/s/"+baseB
	for _, test := range []struct {
		name, text string
		want       []GCRoot
	}{
		{"Nix 2.8", "/x -> " + b + "\n/x y -> z -> " + a + "\n", []GCRoot{{"/x y -> z", baseA}, {"/x", baseB}}},
		{"Nix 2.34", `"/x" -> ` + b + "\n" + `"/q\"b\\" -> ` + a + "\n", []GCRoot{{`/q"b\`, baseA}, {"/x", baseB}}},
		{"temporary", "{temp:12} -> " + a + "\n\"{temp:13}\" -> " + a + "\n", nil},
		{"runtime", "{censored} -> " + a + "\n{lsof} -> " + a + "\n/proc/1/exe -> " + a + "\n",
			[]GCRoot{{"/proc/1/exe", baseA}, {"{censored}", baseA}, {"{lsof}", baseA}}},
		{"twice", strings.Repeat("/x -> "+a+"\n", 2), []GCRoot{{"/x", baseA}}},
		{"line break in a link", "/x\ny -> " + a + "\n", []GCRoot{{"y", baseA}}},
		{"no roots", "", nil},
	} {
		got, err := parseRoots(strings.NewReader(test.text), "/s")
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v; want %v", test.name, got, err, test.want)
		}
	}
	for _, text := range []string{"/x -> /elsewhere/" + baseA, "/x -> ", strings.Repeat("x", maxRootLine+1)} {
		if _, err := parseRoots(strings.NewReader(text), "/s"); err == nil {
			t.Errorf("%.40q is accepted", text)
		}
	}
	if !(GCRoot{Link: "{lsof}"}).Runtime() || !(GCRoot{Link: "/proc/1/exe"}).Runtime() || (GCRoot{Link: "/x"}).Runtime() {
		t.Error("Runtime is wrong")
	}
}
