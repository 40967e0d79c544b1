package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// An operation is a command, and what it may make of a release.
type operation struct {
	name    string
	args    []string
	release string
	after   []string // the closure of release, if it succeeds; nil: it is absent
	keep    bool     // it changes no release
	kill    time.Duration
	ended   bool // by itself, and with success
}

// patience is how long any command may take.
const patience = 2 * time.Minute

// round does one to three operations at once, and then looks at everything.
func (s *soak) round(ctx context.Context) error {
	var ops []*operation
	used := make(map[string]bool)
	for range 1 + s.rng.IntN(3) {
		if op := s.choose(used); op != nil {
			ops = append(ops, op)
		}
	}
	var group sync.WaitGroup
	errs := make([]error, len(ops)+1)
	for i, op := range ops {
		group.Go(func() { errs[i] = s.run(ctx, op) })
	}
	if s.rng.IntN(6) == 0 {
		sure := s.sure(used)
		kill := s.rng.IntN(4) == 0
		group.Go(func() { errs[len(ops)] = s.mountAndCompare(ctx, sure, kill) })
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	for _, op := range ops {
		s.note(op)
	}
	return errors.Join(append(errs, s.verify())...)
}

// choose makes up an operation on a release that no other is about; nil if what
// it thought of makes no sense now.
func (s *soak) choose(used map[string]bool) *operation {
	n, exists := s.rng.IntN(20), s.exists()
	var op *operation
	switch {
	case n < 8 || !exists:
		op = s.backUp(used)
	case n < 11:
		op = s.forget(used)
	case n < 12:
		op = s.undo(used)
	case n < 15:
		op = &operation{name: "gc", args: []string{"gc", s.backup(), "--grace", "24h", "--wait"}, keep: true}
	case n < 17:
		op = &operation{name: "gc --now", args: []string{"gc", s.backup(), "--now", "--no-wait"}, keep: true}
	case n < 18:
		op = &operation{name: "index", args: []string{"index", s.backup()}, keep: true}
	case n < 19 && s.check:
		op = &operation{name: "check", args: []string{"check", s.backup(), "--read-data"}, keep: true}
	default:
		s.age()
	}
	if op != nil && s.rng.IntN(2) == 0 {
		longest := 100
		if op.name == "backup" {
			longest = 300
		}
		op.kill = time.Duration(1+s.rng.IntN(longest)) * time.Millisecond
	}
	return op
}

func (s *soak) backUp(used map[string]bool) *operation {
	op := &operation{name: "backup", release: s.unused(used)}
	if op.release == "" {
		return nil
	}
	op.args = []string{"backup", s.backup(), "--wait", "--release", op.release}
	for range 1 + s.rng.IntN(2) {
		top := s.tops[s.rng.IntN(len(s.tops))]
		op.args = append(op.args, top)
		op.after = append(op.after, s.closures[top]...)
	}
	slices.Sort(op.after)
	op.after = slices.Compact(op.after)
	return op
}

func (s *soak) forget(used map[string]bool) *operation {
	release := s.unused(used)
	if p := s.releases[release]; len(p) != 1 || p[0] == nil {
		return nil
	}
	return &operation{name: "forget", release: release, args: []string{"forget", s.backup(), "--wait", release}}
}

// undo takes back what is forgotten and still to be had.
func (s *soak) undo(used map[string]bool) *operation {
	for _, release := range releaseNames {
		if p := s.releases[release]; used[release] || len(p) != 1 || p[0] != nil {
			continue
		}
		if closure := s.inTrash(release); closure != nil {
			used[release] = true
			return &operation{name: "undo", release: release, after: closure, args: []string{"forget", s.backup(), "--wait", "--undo", release}}
		}
	}
	return nil
}

func (s *soak) exists() bool {
	_, err := os.Stat(s.path("backup", "cache", "nix-cache-info"))
	return err == nil
}

// unused returns a release that no operation of this round is about.
func (s *soak) unused(used map[string]bool) string {
	name := releaseNames[s.rng.IntN(len(releaseNames))]
	if used[name] {
		return ""
	}
	used[name] = true
	return name
}

// age makes what is in the trash a year older, so that gc purges it.
func (s *soak) age() {
	batches, _ := filepath.Glob(s.path("backup", "trash", "*Z-*"))
	for _, name := range batches {
		if base := filepath.Base(name); strings.HasPrefix(base, "2") && !strings.HasSuffix(base, ".purge") {
			os.Rename(name, filepath.Join(filepath.Dir(name), "2020"+base[4:]))
		}
	}
}

// inTrash returns the closure that the newest record of a release in the trash
// has, if all of it is still to be had: in the cache or in the trash.
func (s *soak) inTrash(release string) []string {
	records, _ := filepath.Glob(s.path("backup", "trash", "*", "releases", release, "closure.txt"))
	records = slices.DeleteFunc(records, func(name string) bool { return strings.Contains(name, ".purge/") })
	if len(records) == 0 {
		return nil
	}
	slices.Sort(records)
	text, _ := os.ReadFile(records[len(records)-1])
	closure := strings.Fields(string(text))
	for _, p := range closure {
		file := filepath.Base(p)[:32] + ".narinfo"
		trashed, _ := filepath.Glob(s.path("backup", "trash", "*Z-??????", "cache", file))
		if _, err := os.Stat(s.path("backup", "cache", file)); err != nil && len(trashed) == 0 {
			return nil
		}
	}
	return closure
}

func (s *soak) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.narvault, args...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG="+nixConfig, "XDG_CACHE_HOME="+s.path("cache"), "HOME="+s.dir)
	// A kill takes the Nix commands that it runs along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// run runs an operation, and kills it if it is to be killed and takes longer.
func (s *soak) run(ctx context.Context, op *operation) error {
	limit := patience
	if op.kill > 0 {
		limit = op.kill
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output bytes.Buffer
	cmd := s.command(timed, op.args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code := cmd.ProcessState.ExitCode(); {
	case timed.Err() != nil && op.kill == 0 && ctx.Err() == nil:
		return fmt.Errorf("%s has not ended after %v", strings.Join(op.args, " "), patience)
	case timed.Err() != nil && err != nil:
		s.killed[op.name]++
		return nil
	case code == 5:
		s.busy++
		op.keep = true
		s.done[op.name]++
		return nil
	case err != nil && op.refused(output.String()):
		op.keep = true
		s.done[op.name]++
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w\n%s", strings.Join(op.args, " "), err, output.Bytes())
	}
	s.done[op.name]++
	op.ended = true
	return nil
}

// refused reports whether an operation rightly did nothing: there is no release
// to mark from, or gc was faster.
func (op *operation) refused(said string) bool {
	switch op.name {
	case "gc", "gc --now":
		return strings.Contains(said, "there is no release in")
	case "undo":
		return strings.Contains(said, "it is not in the trash") || strings.Contains(said, "is gone for good")
	}
	return false
}

// note takes down what an operation may have made of its release.
func (s *soak) note(op *operation) {
	switch {
	case op.keep:
	case op.ended:
		s.releases[op.release] = possible{op.after}
	default:
		s.releases[op.release] = append(s.releases[op.release], op.after)
	}
}

// sure returns the releases that are recorded, for sure, and that nothing is
// about in this round.
func (s *soak) sure(used map[string]bool) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.releases)) {
		if p := s.releases[name]; !used[name] && len(p) == 1 && p[0] != nil {
			names = append(names, name)
		}
	}
	return names
}
