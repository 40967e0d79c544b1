// Bench measures narvault beside its peers: whole commands, one after the other
// in turns, so that a machine whose speed drifts is unfair to neither. It
// prints medians and ratios; `make bench` runs it after the Go benchmarks.
//
// What is backed up is the corpus that $NARVAULT_CORPUS makes (see
// cmd/narvault's acceptance test) or, without one, the demo's packages.
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("n", 3, "`rounds`: how often each command runs")
	slow := flag.Bool("slow", false, "also what takes many minutes: nix copy with xz")
	flag.Parse()
	if err := run(*rounds, *slow); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const nixConfig = "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n"

func run(rounds int, slow bool) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "narvault-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	os.Setenv("NIX_CONFIG", nixConfig)
	os.Setenv("narvault", filepath.Join(root, "bin", "narvault"))
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := corpus(root); err != nil {
		return err
	}
	fmt.Printf("%-34s %8s %8s %8s %9s\n", "what", "wall s", "cpu s", "peak MB", "size MB")
	for _, c := range cases(slow) {
		if err := c.measure(rounds); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// corpus fills the Nix store and writes the roots into the file "roots".
func corpus(root string) error {
	program := os.Getenv("NARVAULT_CORPUS")
	if program == "" {
		program = filepath.Join(root, "..", "shared", "corpus", "make-corpus")
	}
	script := `nix-build "$1"/nix/demo -A welcome -A welcome_1_0 --no-out-link > roots`
	if _, err := os.Stat(program); err == nil {
		script = `"$2" --preset medium --cache "${TMPDIR:-/tmp}/narvault-corpus-cache" --out corpus > corpus.log && readlink corpus/roots/* > roots`
	}
	out, err := exec.Command("bash", "-euc", script+`
		nix-store -qR $(cat roots) > paths; wc -l < paths
		nix-store -q --size $(cat paths) | awk '{ s += $1 } END { printf "%.0f\n", s / 1e6 }'`, "bench", root, program).Output()
	if err != nil {
		return fmt.Errorf("make the corpus: %w", err)
	}
	n := strings.Fields(string(out))
	fmt.Printf("corpus: %s store paths, %s MB of NAR\n\n", n[0], n[1])
	return nil
}

// A comparison is a command of narvault and those of its peers that do the
// same. The first row is ours, and the ratios are the others' figures by ours.
type comparison struct {
	name    string
	prepare string // before each row
	rows    []row
}

type row struct {
	name, command string
	output        string // a directory or file whose size is shown
}

func cases(slow bool) []comparison {
	backup := comparison{
		name: "back up everything", prepare: "rm -rf ours theirs",
		rows: []row{
			{"narvault backup", `"$narvault" backup -q ours --release b/all $(cat roots)`, "ours/cache/nar"},
			{"nix copy, zstd", `nix copy --to "file://$PWD/theirs?compression=zstd" $(cat roots) 2>/dev/null`, "theirs/nar"},
		},
	}
	if slow {
		backup.rows = append(backup.rows, row{"nix copy, xz", `nix copy --to "file://$PWD/theirs?compression=xz" $(cat roots) 2>/dev/null`, "theirs/nar"})
	}
	const once = `test -d kept || "$narvault" backup -q kept --release b/all $(cat roots)`
	return []comparison{
		backup,
		{name: "back up when nothing changed", prepare: once, rows: []row{
			{"narvault backup", `"$narvault" backup -q kept --release b/all $(cat roots)`, ""},
			{"nix-store -qR", `nix-store -qR $(cat roots) > /dev/null`, ""},
		}},
		{name: "export stream", prepare: once, rows: []row{
			{"narvault export", `"$narvault" export kept b/all > /dev/null`, ""},
			{"nix-store --export", `nix-store --export $(cat paths) > /dev/null`, ""},
		}},
	}
}

// A figure is what one run cost.
type figure struct {
	wall, cpu float64 // seconds
	peak      int64   // bytes of memory, of the largest process
	size      int64   // bytes of output
}

func (c *comparison) measure(rounds int) error {
	results := make([][]figure, len(c.rows))
	for range rounds {
		for i, r := range c.rows {
			f, err := r.run(c.prepare)
			if err != nil {
				return err
			}
			results[i] = append(results[i], f)
		}
	}
	fmt.Println(c.name)
	var ours figure
	for i, r := range c.rows {
		f := median(results[i])
		if i == 0 {
			ours = f
		}
		fmt.Printf("  %-32s %8.2f %8.2f %8.0f %9.1f", r.name, f.wall, f.cpu, float64(f.peak)/1e6, float64(f.size)/1e6)
		if i > 0 {
			fmt.Printf("   %.2fx wall, %.2fx cpu", f.wall/ours.wall, f.cpu/ours.cpu)
		}
		fmt.Println()
	}
	fmt.Println()
	return nil
}

func (r *row) run(prepare string) (figure, error) {
	if err := exec.Command("bash", "-euc", prepare).Run(); err != nil {
		return figure{}, fmt.Errorf("prepare: %w", err)
	}
	cmd := exec.Command("bash", "-euc", r.command)
	cmd.Stderr = os.Stderr
	start := time.Now()
	err := cmd.Run()
	f := figure{wall: time.Since(start).Seconds()}
	if err != nil {
		return f, fmt.Errorf("%s: %w", r.command, err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	f.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	f.peak = usage.Maxrss * 1024
	if r.output != "" {
		f.size, err = sizeOf(r.output)
	}
	return f, err
}

func median(figures []figure) figure {
	middle := func(key func(figure) float64) float64 {
		values := make([]float64, len(figures))
		for i, f := range figures {
			values[i] = key(f)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return figure{
		wall: middle(func(f figure) float64 { return f.wall }),
		cpu:  middle(func(f figure) float64 { return f.cpu }),
		peak: int64(middle(func(f figure) float64 { return float64(f.peak) })),
		size: figures[0].size,
	}
}

// sizeOf adds up the files in a directory.
func sizeOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
