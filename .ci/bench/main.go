// Bench measures narvault beside its peers, in turns, so that a machine whose
// speed drifts is unfair to none: decoders, whole commands beside those of Nix,
// and the mount beside ext4 and the mounts of squashfuse, restic and borg. It
// prints medians and ratios; `make bench` runs it after the Go benchmarks.
//
// What is backed up is the corpus that $NARVAULT_CORPUS makes (see
// cmd/narvault's acceptance test) or, without one, the demo's packages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == clientArg {
		exit(client(os.Args[2:]))
	}
	var b bench
	flag.IntVar(&b.rounds, "n", 3, "`rounds`: how often each thing is measured")
	flag.BoolVar(&b.slow, "slow", false, "also what takes many minutes: nix copy with xz")
	only := flag.String("only", "", "measure only what has a name that matches this regular `expression`, such as ^mount")
	flag.Parse()
	var err error
	if b.only, err = regexp.Compile(*only); err != nil {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err = b.run(ctx)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench is one run of the program. It works in a temporary directory.
type bench struct {
	rounds int
	slow   bool
	only   *regexp.Regexp
	dir    string
}

const nixConfig = "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n"

// environment is what the commands find in theirs, besides $narvault. The
// peers' caches and keys do not outlive the run.
func environment(root, dir string) map[string]string {
	cache := filepath.Join(dir, "cache")
	return map[string]string{
		"narvault":        filepath.Join(root, "bin", "narvault"),
		"NIX_CONFIG":      nixConfig,
		"XDG_CACHE_HOME":  cache,
		"RESTIC_PASSWORD": "bench",
		"BORG_BASE_DIR":   cache,
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "narvault-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(b.dir)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	os.Setenv("bench", self)
	for name, value := range environment(root, b.dir) {
		os.Setenv(name, value)
	}
	if err := os.Chdir(b.dir); err != nil {
		return err
	}
	if err := b.largeMounts(ctx); err != nil {
		return err
	}
	if len(b.selected(tasks()))+len(b.comparisons()) == 0 {
		return nil
	}
	if err := corpus(ctx, root); err != nil {
		return err
	}
	if err := b.commands(ctx); err != nil {
		return err
	}
	return b.mounts(ctx)
}

// removeAll removes the directory of the run, after the mounts that are in it,
// if something went so wrong that there are any.
func removeAll(dir string) error {
	mounts, err := mountsIn(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unmount(m, true); err != nil {
			return err // rather than delete what is mounted
		}
	}
	return os.RemoveAll(dir)
}
