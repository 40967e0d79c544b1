package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// A task is something to do with a mount.
type task struct {
	name  string
	about func(*content) string
	// args is the command that does it in the tree; none: mounting is all.
	args func(*content) []string
	// latencies is set if what counts is not the time of the command but the
	// times that it prints.
	latencies bool
}

// A figure is what one pass cost. What is unknown is negative.
type figure struct {
	wall, cpu time.Duration
	requests  int64
}

// A result is all that was measured of a task on a system.
type result struct {
	cold, warm []figure // a round each
	anon       []int64
	latencies  [readKinds][]time.Duration // all rounds
}

// visit mounts a system freshly, does the task twice, and unmounts.
func (t *task) visit(ctx context.Context, sys *system, c *content, r *result) (err error) {
	if sys.mount == "" && t.args == nil {
		return nil
	}
	if err := recall(ctx, sys.archive); err != nil {
		return err
	}
	s, took, err := start(ctx, sys, c.first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if t.args == nil {
		cpu, err := s.cpu()
		r.cold = append(r.cold, figure{wall: took, cpu: cpu, requests: unknown})
		return errors.Join(err, r.addMemory(s))
	}
	out, err := t.pass(ctx, s, c, &r.cold)
	if err != nil {
		return err
	}
	if t.latencies {
		l, err := parseLatencies(out)
		for kind := range l {
			r.latencies[kind] = append(r.latencies[kind], l[kind]...)
		}
		return errors.Join(err, r.addMemory(s))
	}
	if _, err = t.pass(ctx, s, c, &r.warm); err != nil {
		return err
	}
	return r.addMemory(s)
}

// recall brings an archive back into the page cache, which other jobs on the
// machine may have pushed it out of.
func recall(ctx context.Context, archive string) error {
	return quietly(bash(ctx, `find "$1" -type f -exec cat {} + > /dev/null`, archive))
}

func (r *result) addMemory(s *server) error {
	n, err := s.memory()
	r.anon = append(r.anon, n)
	return err
}

// pass does the task once, and adds what it cost to figures.
func (t *task) pass(ctx context.Context, s *server, c *content, figures *[]figure) (string, error) {
	requestsBefore, err := s.requests(ctx)
	if err != nil {
		return "", err
	}
	cpuBefore, err := s.cpu()
	if err != nil {
		return "", err
	}
	args := t.args(c)
	cmd := command(ctx, args[0], args[1:]...)
	cmd.Dir = s.tree
	var stdout, stderr bytes.Buffer
	if t.latencies {
		cmd.Stdout = &stdout // else nowhere
	}
	cmd.Stderr = &stderr
	began := time.Now()
	err = cmd.Run()
	f := figure{wall: time.Since(began), requests: unknown}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	cpu, err := s.cpu()
	if err != nil {
		return "", err
	}
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() + cpu - cpuBefore
	requests, err := s.requests(ctx)
	if requests != unknown {
		f.requests = requests - requestsBefore
	}
	*figures = append(*figures, f)
	return stdout.String(), err
}

func tasks() []task {
	return []task{
		{name: "mount", about: func(*content) string { return "until a store path can be seen" }},
		{
			name: "mount: find", about: (*content).aboutEntries,
			args: func(*content) []string { return []string{"find", "."} },
		},
		{
			name: "mount: find with stat", about: (*content).aboutEntries,
			args: func(*content) []string { return []string{"find", ".", "-printf", "%s"} },
		},
		{
			name: "mount: read small files", about: func(c *content) string { return c.small.about() + " below 64 KiB" },
			args: func(c *content) []string { return clientCommand("read", c.small.name) },
		},
		{
			name: "mount: read all files", about: func(c *content) string { return c.all.about() },
			args: func(c *content) []string { return clientCommand("read", c.all.name) },
		},
		{
			name: "mount: read a large file", about: func(c *content) string { return c.large.about() + ", in order" },
			args: func(c *content) []string { return clientCommand("read", c.large.name) },
		},
		{
			name: "mount: random reads", about: func(c *content) string { return "4 KiB each in " + c.large.about() },
			args:      func(c *content) []string { return clientCommand("random", c.largest) },
			latencies: true,
		},
	}
}

func clientCommand(args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return append([]string{self, clientArg}, args...)
}
