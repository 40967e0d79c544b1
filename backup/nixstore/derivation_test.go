package nixstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// shownDerivation is what nix show-derivation prints.
type shownDerivation struct {
	Outputs   map[string]struct{ Path string }
	InputSrcs []string
	InputDrvs map[string][]string
	System    string
}

func (s *testStore) showDerivation(t *testing.T, drv storepath.Path) *Derivation {
	t.Helper()
	text, stderr, err := s.try("nix", "show-derivation", drv.In(s.Dir()))
	if err != nil {
		t.Fatal(err, stderr)
	}
	var shown map[string]shownDerivation
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		t.Fatal(err)
	}
	raw := shown[drv.In(s.Dir())]
	d := &Derivation{Path: drv, Name: strings.TrimSuffix(drv.Name(), ".drv"), System: raw.System,
		Outputs: map[string]storepath.Path{}, InputDrvs: map[storepath.Path][]string{}}
	for name, o := range raw.Outputs {
		d.Outputs[name] = ""
		if o.Path != "" {
			d.Outputs[name] = s.parse(t, o.Path)
		}
	}
	for _, src := range raw.InputSrcs {
		d.InputSrcs = append(d.InputSrcs, s.parse(t, src))
	}
	for input, outputs := range raw.InputDrvs {
		d.InputDrvs[s.parse(t, input)] = outputs
	}
	return d
}

func TestDerivation(t *testing.T) {
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, _ []storepath.Path) {
		for _, p := range s.paths(t, "nix-store", "-qR", drv.In(s.Dir())) {
			if !p.IsDerivation() {
				continue
			}
			got, err := s.Derivation(p)
			if want := s.showDerivation(t, p); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("Derivation(%s):\n got %+v, %v\nwant %+v", p, got, err, want)
			}
		}
	})
}

// TestOddDerivations: escapes, structured attributes, fixed and floating
// outputs.
func TestOddDerivations(t *testing.T) {
	// From the start: a Nix that first sees ca-derivations migrates the database
	// and waits until all others, our child too, have closed it.
	s := open(t, Options{URL: scratch(t), Env: append(testenv.NixEnv(t),
		"NIX_CONFIG="+testenv.NixConfig+"experimental-features = nix-command ca-derivations\n")})
	const expr = `
let make = attrs: derivation ({ name = "odd"; system = "any"; builder = "/bin/sh"; } // attrs); in {
  escapes = make { args = [ "\"" "\\" "$\r" ]; "x y" = "\"),("; };
  structured = make { __structuredAttrs = true; outputs = [ "out" "lib" ]; x = { y = [ 1 2 ]; }; };
  fixed = make { outputHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; outputHashMode = "flat"; };
  floating = make { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
}`
	for _, attr := range []string{"escapes", "structured", "fixed", "floating"} {
		drv := s.instantiate(t, expr, attr)
		got, err := s.Derivation(drv)
		if want := s.showDerivation(t, drv); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", attr, got, err, want)
		}
	}
}

func TestParseDerivation(t *testing.T) {
	const a = `"/s/00000000000000000000000000000000-a.drv"`
	const rest = `,[],"sys","b",["x"],[("k","v")])`
	for _, test := range []struct{ name, text, want string }{
		{"plain", `Derive([("out","","","")],[(` + a + `,["out"])]` + rest, ""},
		{"no outputs", `Derive([],[]` + rest, ""},
		{"dynamic", `DrvWithVersion("xp-dyn-drv",[],[(` + a + `,(["out"],[("x",["y"]),("z",([],[("w",["v"])]))]))]` + rest, ""},
		{"other version", `DrvWithVersion("2",[],[]` + rest, "not known"},
		{"empty", ``, "expected"},
		{"no end", `Derive([],[],[],"sys","b",[],[]`, "expected"},
		{"trailing bytes", `Derive([],[]` + rest + "\n", "follow"},
		{"string without end", `Derive([],[],[],"sys\"`, "no end"},
		{"backslash at the end", `Derive([],[],[],"sys\`, "no end"},
		{"other store", `Derive([("out","/nix/store/00000000000000000000000000000000-a","","")],[]` + rest, "store directory"},
		{"below a store path", `Derive([],[("/s/00000000000000000000000000000000-a/b",[])]` + rest, "character"},
		{"twice", `Derive([("out","","",""),("out","","","")],[]` + rest, "twice"},
		{"no comma", `Derive([("out","","","")("b","","","")],[]` + rest, "expected"},
		{"trailing comma", `Derive([("out","","",""),],[]` + rest, "expected"},
		{"bad dynamic", `DrvWithVersion("xp-dyn-drv",[],[(` + a + `,(["out"],[x]))]` + rest, "expected"},
		{"dynamic without end", `DrvWithVersion("xp-dyn-drv",[],[(` + a + `,(["out"],[(`, "expected"},
	} {
		_, err := parseDerivation([]byte(test.text), "/s")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestDerivationFile(t *testing.T) {
	s := openChroot(t)
	const drv = storepath.Path("00000000000000000000000000000000-a.drv")
	if _, err := s.Derivation(absent); err == nil {
		t.Error("a path that is no derivation is read as one")
	}
	if _, err := s.Derivation(drv); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	symlink(t, "/dev/zero", s.RealPath(drv))
	if _, err := s.Derivation(drv); err == nil {
		t.Error("a symlink is followed")
	}
	os.Remove(s.RealPath(drv))
	write(t, s.RealPath(drv), "")
	if err := os.Truncate(s.RealPath(drv), maxDerivation+1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Derivation(drv); err == nil {
		t.Error("a file of 64 MiB and a byte is read")
	}
}

func TestMissingOutputsAndRealise(t *testing.T) {
	ctx := context.Background()
	s := openMoved(t)
	var log bytes.Buffer
	s.Store.log = &log
	drv := s.instantiate(t, graph, "top")
	closure, err := s.Closure(ctx, []storepath.Path{drv}, true)
	if err != nil {
		t.Fatal(err)
	}
	missing, err := s.MissingOutputs(ctx, closure)
	if err != nil || len(missing) != 5 {
		t.Fatalf("before: %v, %v; want the 5 outputs of the graph", missing, err)
	}
	if err := s.Realise(ctx, []storepath.Path{drv}); err != nil {
		t.Fatal(err)
	}
	missing, err = s.MissingOutputs(ctx, closure)
	if err != nil || len(missing) != 0 {
		t.Errorf("after: %v, %v; want none", missing, err)
	}
	if !strings.Contains(log.String(), "building") {
		t.Errorf("log of the builds is %q", log.String())
	}
	s.nix(t, "nix-store", "--gc")
	d, err := s.Derivation(drv)
	if err != nil || !s.exist(d.Outputs["out"])[0] {
		t.Errorf("Realise did not lock what it made: %v", err)
	}
}

func TestMissingOutputsInOrder(t *testing.T) {
	ctx := context.Background()
	s := openMoved(t)
	middle := s.instantiate(t, graph, "middle")
	leaf, _ := s.build(t, "leaf")
	d, err := s.Derivation(middle)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.MissingOutputs(ctx, []storepath.Path{middle, leaf, absent})
	want := []MissingOutput{{middle, "dev", d.Outputs["dev"]}, {middle, "out", d.Outputs["out"]}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("MissingOutputs = %v, %v; want %v", got, err, want)
	}
	if s.exist(d.Outputs["out"])[0] {
		t.Error("asking has built it")
	}
}

func TestRealiseFails(t *testing.T) {
	ctx := context.Background()
	s := openMoved(t)
	const expr = `{
  bad = derivation { name = "bad"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo what went wrong; exit 7" ]; };
  good = derivation { name = "good"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
}`
	bad, good := s.instantiate(t, expr, "bad"), s.instantiate(t, expr, "good")
	err := s.Realise(ctx, []storepath.Path{bad, good})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 0 || !strings.Contains(err.Error(), "what went wrong") {
		t.Errorf("Realise = %v; want the exit status and the log", err)
	}
	missing, err := s.MissingOutputs(ctx, []storepath.Path{bad, good})
	if err != nil || len(missing) != 1 || missing[0].Drv != bad {
		t.Errorf("missing: %v, %v; want bad's output only", missing, err)
	}
	if err := s.Realise(ctx, []storepath.Path{absent}); err == nil {
		t.Error("Realise of something that is no derivation succeeds")
	}
}

func TestRealiseCanceled(t *testing.T) {
	s := openMoved(t)
	started := filepath.Join(s.dir, "started")
	drv := s.instantiate(t, fmt.Sprintf(`{ slow = derivation { name = "slow"; system = builtins.currentSystem;
  builder = "/bin/sh"; args = [ "-c" "echo > %s; exec sleep 1000" ]; PATH = "/bin:/usr/bin"; }; }`, started), "slow")
	if out, err := exec.Command("mkfifo", started).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	go func() {
		os.ReadFile(started)
		cancel(why)
	}()
	if err := s.Realise(ctx, []storepath.Path{drv}); !errors.Is(err, why) {
		t.Errorf("Realise = %v, want %v", err, why)
	}
}

func TestCommandLines(t *testing.T) {
	paths := slices.Repeat([]storepath.Path{absent}, 10000)
	total := 0
	for _, line := range commandLines("/nix/store", paths) {
		total += len(line)
		if size := len(strings.Join(line, " ")) + 1; size > maxArgs || len(line) == 0 {
			t.Errorf("a line of %d paths and %d bytes", len(line), size)
		}
	}
	if total != len(paths) {
		t.Errorf("%d of %d paths", total, len(paths))
	}
}
