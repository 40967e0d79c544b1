package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// CorpusVar names a program that makes a corpus: called with --preset medium
// --out DIR, it fills the Nix store and writes DIR/roots, symlinks to what is
// to be backed up.
const CorpusVar = "NARVAULT_CORPUS"

// Corpus returns the roots of the corpus that $NARVAULT_CORPUS, or the program in
// its usual place beside the module, makes below dir. Without one it skips the
// test.
func Corpus(t testing.TB, dir string) (roots []string) {
	t.Helper()
	program := os.Getenv(CorpusVar)
	if program == "" {
		module := filepath.Dir(strings.TrimSpace(Run(t, ".", "go", "env", "GOMOD")))
		program = filepath.Join(module, "..", "shared", "corpus", "make-corpus")
	}
	program, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skipf("no corpus: set $%s (%v)", CorpusVar, err)
	}
	out := filepath.Join(dir, "corpus")
	Run(t, dir, program, "--preset", "medium", "--cache", filepath.Join(os.TempDir(), "narvault-corpus-cache"), "--out", out)
	links, err := filepath.Glob(filepath.Join(out, "roots", "*"))
	if err != nil || len(links) == 0 {
		t.Fatalf("no roots in %s (%v)", out, err)
	}
	for _, link := range links {
		target, err := filepath.EvalSymlinks(link)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, target)
	}
	return roots
}
