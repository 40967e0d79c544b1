package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// corpus fills the Nix store and writes the roots into the file "roots", and
// the closure into "paths".
func corpus(ctx context.Context, root string) error {
	program := os.Getenv("NARVAULT_CORPUS")
	if program == "" {
		program = filepath.Join(root, "..", "shared", "corpus", "make-corpus")
	}
	script := `nix-build "$1"/nix/demo -A welcome -A welcome_1_0 --no-out-link > roots`
	if _, err := os.Stat(program); err == nil {
		script = `"$2" --preset medium --cache "${TMPDIR:-/tmp}/narvault-corpus-cache" --out corpus > corpus.log && readlink corpus/roots/* > roots`
	}
	out, err := bash(ctx, script+`
		nix-store -qR $(cat roots) > paths; wc -l < paths
		nix-store -q --size $(cat paths) | awk '{ s += $1 } END { printf "%.0f\n", s / 1e6 }'`, root, program).Output()
	if err != nil {
		return fmt.Errorf("make the corpus: %w", err)
	}
	n := strings.Fields(string(out))
	if len(n) != 2 {
		return fmt.Errorf("make the corpus: unexpected answer %q", out)
	}
	fmt.Printf("corpus: %s store paths, %s MB of NAR\n", n[0], n[1])
	return nil
}
