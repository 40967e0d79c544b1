package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/narvault/narvault/hydra/hydratest"
	"github.com/narvault/narvault/narread/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(hydratest.Main{M: m}, map[string]func(){
		"narvault": main, "hydra-backup": main, "hydra-collect-backup-garbage": main, "hydra-restore": main,
		"eventually": eventually,
	})
}

// patience is when a story gives up waiting for what has to come: on a machine
// that does twenty other things at once, everything may take long.
const patience = time.Minute

// eventually COMMAND...: a program, for stories and the scripts in them, that
// runs a command again and again until it succeeds.
func eventually() {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command(os.Args[1], os.Args[2:]...).CombinedOutput()
		switch {
		case err == nil:
			os.Stdout.Write(out)
			return
		case time.Now().After(deadline):
			fmt.Fprintf(os.Stderr, "%s%s: %v\n", out, strings.Join(os.Args[1:], " "), err)
			os.Exit(1)
		}
	}
}

// TestScript runs the stories in testdata/script: the narvault command beside
// real Nix and a real kernel. They see
//
//	$hello10 $hello11  two versions of a package of nix/demo
//	$welcome           a package of two outputs
//	$odd               a store path that breaks naive code, testdata/odd.nix
//	$corpus            a profile of real content, testdata/corpus.nix
//	$store             a directory for a second Nix store
//
// and may use the program eventually.
func TestScript(t *testing.T) {
	testenv.Need(t, "root", "nix", "fuse")
	testscript.Run(t, storyParams(t, "testdata/script"))
}

// storyParams is how the stories in a directory run.
func storyParams(t *testing.T, dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return setUp(t, env) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"mounted": mounted,
			"flip":    flip,
			"samenar": sameNAR,
			"fill":    fill,
		},
	}
}

// built is what the scripts back up, built once.
var built = sync.OnceValues(func() (map[string]string, error) {
	collection, err := filepath.Abs("../../nix/demo")
	if err != nil {
		return nil, err
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		return nil, err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	paths := make(map[string]string)
	for name, args := range map[string][]string{
		"hello10": {collection, "-A", "hello_1_0"},
		"hello11": {collection, "-A", "hello_1_1"},
		"welcome": {collection, "-A", "welcome"},
		"odd":     {testdata + "/odd.nix"},
		"corpus":  {testdata + "/corpus.nix", "--argstr", "go", strings.TrimSpace(string(goroot))},
	} {
		cmd := exec.Command("nix-build", append(args, "--no-out-link")...)
		cmd.Env = append(os.Environ(), "NIX_CONFIG="+testenv.NixConfig)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("nix-build %s: %w", strings.Join(args, " "), err)
		}
		paths[name] = strings.TrimSpace(string(out))
	}
	return paths, nil
})

func setUp(t *testing.T, env *testscript.Env) error {
	paths, err := built()
	if err != nil {
		return err
	}
	for name, path := range paths {
		env.Setenv(name, path)
	}
	env.Setenv("store", filepath.Join(env.WorkDir, "store"))
	env.Setenv("NIX_CONFIG", testenv.NixConfig)
	env.Setenv("HOME", env.WorkDir)
	// What Nix restores is read-only, also for the clean-up.
	t.Cleanup(func() {
		exec.Command("chmod", "-R", "u+w", env.WorkDir).Run()
	})
	return nil
}

// exits CODE COMMAND...: the command must end with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// mounted DIR: waits until something is mounted on DIR, with "!" until nothing
// is.
func mounted(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for exec.Command("mountpoint", "-q", dir).Run() == nil == neg {
		select {
		case <-ctx.Done():
			ts.Fatalf("%s: mounted is still %v", dir, neg)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// flip FILE OFFSET: changes one bit of a file; a negative offset counts from
// the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	name := ts.MkAbs(args[0])
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	data, err := os.ReadFile(name)
	ts.Check(err)
	if offset < 0 {
		offset += len(data)
	}
	data[offset] ^= 0x10
	ts.Check(os.WriteFile(name, data, 0o644))
}

// samenar STORE PATH...: each path has the files, the NAR hash, the references
// and the deriver in the store at directory STORE that it has in the system's store.
func sameNAR(ts *testscript.TestScript, neg bool, args []string) {
	store := ts.MkAbs(args[0])
	for _, path := range args[1:] {
		for _, question := range []string{"--hash", "--size", "--references", "--deriver"} {
			want := nixStore(ts, "--query", question, path)
			got := nixStore(ts, "--store", store, "--query", question, path)
			if got != want {
				ts.Fatalf("%s of %s is %q, want %q", question, path, got, want)
			}
		}
		// That is what Nix was told; this is what is there.
		if nixStore(ts, "--dump", store+path) != nixStore(ts, "--dump", path) {
			ts.Fatalf("the files of %s differ", path)
		}
	}
}

func nixStore(ts *testscript.TestScript, args ...string) string {
	cmd := exec.Command("nix-store", args...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG="+testenv.NixConfig)
	out, err := cmd.Output()
	if err != nil {
		ts.Fatalf("nix-store %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// fill FILE BYTES: writes a file of random bytes.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	random, err := os.Open("/dev/urandom")
	ts.Check(err)
	defer random.Close()
	data := make([]byte, n)
	_, err = random.Read(data)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}
