package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

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

// makeKept makes the backup that is not made anew each time.
const makeKept = `test -d kept || "$narvault" backup -q kept --release b/all $(cat roots)`

func comparisons(slow bool) []comparison {
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
	all := []comparison{
		backup,
		{name: "back up when nothing changed", prepare: makeKept, rows: []row{
			{"narvault backup", `"$narvault" backup -q kept --release b/all $(cat roots)`, ""},
			{"nix-store -qR", `nix-store -qR $(cat roots) > /dev/null`, ""},
		}},
		{name: "check every byte", prepare: makeKept, rows: []row{
			{"narvault check --read-data", `"$narvault" check -q kept --read-data`, ""},
			{"nix store verify, same files", `nix store verify --no-trust --store "file://$PWD/kept/cache" $(cat paths) 2>/dev/null`, ""},
		}},
		{name: "export stream", prepare: makeKept, rows: []row{
			{"narvault export", `"$narvault" export kept b/all > /dev/null`, ""},
			{"nix-store --export", `nix-store --export $(cat paths) > /dev/null`, ""},
		}},
	}
	return slices.Concat(decoding(), all, foreignComparisons())
}

// comparisons returns those that are to be made.
func (b *bench) comparisons() (out []comparison) {
	for _, c := range comparisons(b.slow) {
		if b.only.MatchString(c.name) {
			out = append(out, c)
		}
	}
	return out
}

// commands measures whole commands.
func (b *bench) commands(ctx context.Context) error {
	header := fmt.Sprintf("\n%-34s %8s %8s %8s %9s\n", "what", "wall s", "cpu s", "peak MB", "size MB")
	for _, c := range b.comparisons() {
		fmt.Print(header)
		header = ""
		if err := c.measure(ctx, b.rounds); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// A cost is what one run of a command cost.
type cost struct {
	wall, cpu float64 // seconds
	peak      int64   // bytes of memory, of the largest process
	size      int64   // bytes of output
}

func (c *comparison) measure(ctx context.Context, rounds int) error {
	results := make([][]cost, len(c.rows))
	for range rounds {
		for i, r := range c.rows {
			f, err := r.run(ctx, c.prepare)
			if err != nil {
				return err
			}
			results[i] = append(results[i], f)
		}
	}
	fmt.Println(c.name)
	var ours cost
	for i, r := range c.rows {
		f := medianCost(results[i])
		if i == 0 {
			ours = f
		}
		fmt.Printf("  %-32s %8.2f %8.2f %8.0f %9.1f", r.name, f.wall, f.cpu, float64(f.peak)/1e6, float64(f.size)/1e6)
		if i > 0 {
			fmt.Printf("   %.2fx wall, %.2fx cpu", f.wall/ours.wall, f.cpu/ours.cpu)
		}
		fmt.Println()
	}
	return nil
}

func (r *row) run(ctx context.Context, prepare string) (cost, error) {
	if err := quietly(bash(ctx, prepare)); err != nil {
		return cost{}, fmt.Errorf("prepare: %w", err)
	}
	cmd := bash(ctx, r.command)
	cmd.Stderr = os.Stderr
	start := time.Now()
	err := cmd.Run()
	f := cost{wall: time.Since(start).Seconds()}
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

func medianCost(costs []cost) cost {
	return cost{
		wall: middle(costs, func(f cost) float64 { return f.wall }),
		cpu:  middle(costs, func(f cost) float64 { return f.cpu }),
		peak: int64(middle(costs, func(f cost) float64 { return float64(f.peak) })),
		size: costs[0].size,
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
