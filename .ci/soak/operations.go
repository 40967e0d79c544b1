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

	"github.com/narvault/narvault/backup"
)

// An operation is a command, and what it may make of a release.
type operation struct {
	name    string
	args    []string
	vault   *vault
	release string
	after   []string // the closure of release, if it succeeds; nil: it is absent
	keep    bool     // it changes no release
	kill    time.Duration
	ended   bool                            // by itself, and with success
	then    func(ctx context.Context) error // looks at what came of it, however it ended; may be nil
}

// patience is how long any command may take.
const patience = 2 * time.Minute

// round does one to three operations at once, and then looks at everything.
func (s *soak) round(ctx context.Context) error {
	if s.rng.IntN(8) == 0 && s.main.exists() {
		return s.flipAndRepair(ctx)
	}
	var ops []*operation
	used := make(map[string]bool)
	for range 1 + s.rng.IntN(3) {
		if op := s.choose(used); op != nil {
			ops = append(ops, op)
		}
	}
	cut := time.Duration(0)
	if s.rng.IntN(5) == 0 {
		cut = time.Duration(1+s.rng.IntN(300)) * time.Millisecond
	}
	var group sync.WaitGroup
	errs := make([]error, len(ops)+2)
	for i, op := range ops {
		group.Go(func() { errs[i] = s.run(ctx, op) })
	}
	if cut > 0 {
		group.Go(func() { errs[len(ops)] = s.cutPower(cut) })
	} else if s.rng.IntN(6) == 0 {
		sure := s.sure(s.main, used)
		kill := s.rng.IntN(4) == 0
		group.Go(func() { errs[len(ops)] = s.mountAndCompare(ctx, sure, kill) })
	}
	group.Wait()
	if cut > 0 {
		errs[len(ops)+1] = s.restart()
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, op := range ops {
		op.note()
		if op.then != nil {
			errs = append(errs, op.then(ctx))
		}
	}
	return errors.Join(append(errs, s.verify())...)
}

// choose makes up an operation on a release that no other is about; nil if what
// it thought of makes no sense now.
func (s *soak) choose(used map[string]bool) *operation {
	n, dir := s.rng.IntN(26), s.main.dir
	v := s.main
	if s.copy.exists() && s.rng.IntN(8) == 0 {
		v = s.copy
	}
	var op *operation
	switch {
	case n < 8 || !s.main.exists():
		op = s.backUp(used)
	case n < 11:
		op = s.forget(v, used)
	case n < 12:
		op = s.undo(used)
	case n < 15:
		op = &operation{name: "gc", args: []string{"gc", v.dir, "--grace", "24h", "--wait"}, keep: true}
	case n < 17:
		op = &operation{name: "gc --now", args: []string{"gc", v.dir, "--now", "--no-wait"}, keep: true}
	case n < 18:
		op = &operation{name: "index", args: []string{"index", dir}, keep: true}
	case n < 19:
		op = &operation{name: "check", args: []string{"check", v.dir, "--read-data"}, keep: true}
	case n < 20:
		op = &operation{name: "sign", args: []string{"sign", dir, "--sign-key", s.key, "--wait"}, keep: true}
	case n < 23:
		op = s.copyRelease(used)
	case n < 25:
		op = s.restore(used)
	default:
		s.age()
	}
	if op != nil && s.rng.IntN(2) == 0 {
		longest := 100
		if op.name == "backup" || op.name == "copy" {
			longest = 300
		}
		op.kill = time.Duration(1+s.rng.IntN(longest)) * time.Millisecond
	}
	return op
}

func (s *soak) backUp(used map[string]bool) *operation {
	op := &operation{name: "backup", vault: s.main, release: s.unused(used)}
	if op.release == "" {
		return nil
	}
	op.args = []string{"backup", s.main.dir, "--wait", "--release", op.release}
	if s.rng.IntN(4) == 0 {
		op.args = append(op.args, "--sign-key", s.key)
	}
	for range 1 + s.rng.IntN(2) {
		top := s.tops[s.rng.IntN(len(s.tops))]
		op.args = append(op.args, top)
		op.after = append(op.after, s.closures[top]...)
	}
	slices.Sort(op.after)
	op.after = slices.Compact(op.after)
	return op
}

func (s *soak) forget(v *vault, used map[string]bool) *operation {
	release := s.unused(used)
	if p := v.releases[release]; len(p) != 1 || p[0] == nil {
		return nil
	}
	op := &operation{name: "forget", vault: v, release: release, args: []string{"forget", v.dir, "--wait", release}}
	if s.rng.IntN(3) == 0 {
		op.args = append(op.args, "--now")
	}
	return op
}

// undo takes back what is forgotten and still to be had.
func (s *soak) undo(used map[string]bool) *operation {
	for _, release := range releaseNames {
		if p := s.main.releases[release]; used[release] || len(p) != 1 || p[0] != nil {
			continue
		}
		if closure := s.inTrash(release); closure != nil {
			used[release] = true
			return &operation{name: "undo", vault: s.main, release: release, after: closure, args: []string{"forget", s.main.dir, "--wait", "--undo", release}}
		}
	}
	return nil
}

// copyRelease copies a release into the second backup.
func (s *soak) copyRelease(used map[string]bool) *operation {
	release := s.unused(used)
	p := s.main.releases[release]
	if len(p) != 1 || p[0] == nil {
		return nil
	}
	// What a kill left half updated is copied as it was before.
	after := p[0]
	if id, err := backup.ParseReleaseID(release); err == nil {
		if b, err := s.main.open(); err == nil && b != nil && b.HalfWritten(id) {
			text, _ := os.ReadFile(s.main.path("releases", release, "previous", "closure.txt"))
			after = strings.Fields(string(text))
			b.Close()
		}
	}
	return &operation{
		name: "copy", vault: s.copy, release: release, after: after,
		args: []string{"copy", s.main.dir, s.copy.dir, "--wait", release},
	}
}

// restore restores a release as plain files, of which those that are there
// already may be from a run that was killed.
func (s *soak) restore(used map[string]bool) *operation {
	release := s.unused(used)
	p := s.main.releases[release]
	if len(p) != 1 || p[0] == nil {
		return nil
	}
	to := s.path("disk", "to-"+strings.ReplaceAll(release, "/", "-"))
	op := &operation{name: "restore", keep: true, args: []string{"restore", s.main.dir, "--wait", release, "--to", to}}
	op.then = func(context.Context) error { return s.compareRestored(to, p[0], op.ended) }
	return op
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
	batches, _ := filepath.Glob(s.main.path("trash", "*Z-*"))
	for _, name := range batches {
		if base := filepath.Base(name); strings.HasPrefix(base, "2") && !strings.HasSuffix(base, ".purge") {
			os.Rename(name, filepath.Join(filepath.Dir(name), "2020"+base[4:]))
		}
	}
}

// inTrash returns the closure that the newest record of a release in the trash
// has, if all of it is still to be had: in the cache or in the trash.
func (s *soak) inTrash(release string) []string {
	records, _ := filepath.Glob(s.main.path("trash", "*", "releases", release, "closure.txt"))
	records = slices.DeleteFunc(records, func(name string) bool { return strings.Contains(name, ".purge/") })
	if len(records) == 0 {
		return nil
	}
	slices.Sort(records)
	text, _ := os.ReadFile(records[len(records)-1])
	closure := strings.Fields(string(text))
	for _, p := range closure {
		file := filepath.Base(p)[:32] + ".narinfo"
		trashed, _ := filepath.Glob(s.main.path("trash", "*Z-??????", "cache", file))
		if _, err := os.Stat(s.main.path("cache", file)); err != nil && len(trashed) == 0 {
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

// run runs an operation, and kills it if it is to be killed and takes longer, or
// when the power is cut.
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
	if started, err := s.start(cmd); !started {
		if timed.Err() != nil {
			return nil // before it began
		}
		return err
	}
	err := cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, cmd)
	switch code := cmd.ProcessState.ExitCode(); {
	case s.off && err != nil:
		s.killed[op.name]++
		return nil
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

// start starts a command, unless the power is off.
func (s *soak) start(cmd *exec.Cmd) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return false, nil
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	s.running[cmd] = true
	return true, nil
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
func (op *operation) note() {
	switch {
	case op.keep:
	case op.ended:
		op.vault.releases[op.release] = possible{op.after}
	default:
		op.vault.releases[op.release] = append(op.vault.releases[op.release], op.after)
	}
}

// sure returns the releases that are recorded, for sure, and that nothing is
// about in this round.
func (s *soak) sure(v *vault, used map[string]bool) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(v.releases)) {
		if p := v.releases[name]; !used[name] && len(p) == 1 && p[0] != nil {
			names = append(names, name)
		}
	}
	return names
}
