package nixstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// checkDerivation compares with nix-store's queries, whose output is the same in
// all versions of Nix (that of nix show-derivation is not).
func checkDerivation(t *testing.T, s *testStore, drv storepath.Path, system string) *Derivation {
	t.Helper()
	d, err := s.Derivation(drv)
	if err != nil {
		t.Fatal(err)
	}
	if d.Path != drv || d.Name+".drv" != drv.Name() || d.System != system {
		t.Errorf("Derivation(%s) is %s, %s, %s", drv, d.Path, d.Name, d.System)
	}
	inputs := slices.Clone(d.InputSrcs)
	for p := range d.InputDrvs {
		inputs = append(inputs, p)
	}
	if want := s.paths(t, "nix-store", "-q", "--references", drv.In(s.Dir())); !slices.Equal(unique(inputs), want) {
		t.Errorf("%s: inputs are %s, want %s", drv, inputs, want)
	}
	var outputs []storepath.Path
	for _, p := range d.Outputs {
		outputs = append(outputs, p)
	}
	if slices.Contains(outputs, "") {
		return d // nix-store cannot tell it either
	}
	if want := s.paths(t, "nix-store", "-q", "--outputs", drv.In(s.Dir())); !slices.Equal(unique(outputs), want) {
		t.Errorf("%s: outputs are %s, want %s", drv, outputs, want)
	}
	return d
}

func TestDerivation(t *testing.T) {
	eachStore(t, func(t *testing.T, s *testStore, drv storepath.Path, _ []storepath.Path) {
		system := s.nix(t, "nix-store", "-q", "--binding", "system", drv.In(s.Dir()))[0]
		for _, p := range s.paths(t, "nix-store", "-qR", drv.In(s.Dir())) {
			if p.IsDerivation() {
				checkDerivation(t, s, p, system)
			}
		}
		top := checkDerivation(t, s, drv, system)
		middle := s.named(t, drv, "middle.drv")
		if got := top.InputDrvs[middle]; !slices.Equal(got, []string{"out"}) {
			t.Errorf("top uses the outputs %q of middle", got)
		}
		if got := checkDerivation(t, s, middle, system).OutputNames(); !slices.Equal(got, []string{"dev", "out"}) {
			t.Errorf("middle has the outputs %q", got)
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
	for attr, outputs := range map[string]int{"escapes": 1, "structured": 2, "fixed": 1, "floating": 1} {
		d := checkDerivation(t, s, s.instantiate(t, expr, attr), "any")
		if len(d.Outputs) != outputs || (d.Outputs["out"] == "") != (attr == "floating") {
			t.Errorf("%s: outputs %v", attr, d.Outputs)
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
	if err := os.Truncate(s.RealPath(drv), MaxDerivation+1); err != nil {
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

// Design section 9: "ignoring nix-store's exit status".
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
