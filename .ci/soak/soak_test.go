package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/testenv"
)

// TestSoak is a few seconds of `make soak`: the real program is killed again and
// again while it writes.
func TestSoak(t *testing.T) {
	testenv.Need(t, "root", "nix", "fuse")
	program := filepath.Join(t.TempDir(), "narvault")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/narvault")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var out strings.Builder
	err := run(t.Context(), &out, options{duration: 8 * time.Second, seed: uint64(time.Now().UnixNano()), narvault: program})
	t.Log(out.String())
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), " 0 bytes lost") {
		t.Error("it does not say that nothing was lost")
	}
}
