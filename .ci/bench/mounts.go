package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
)

// mounts measures the mount.
func (b *bench) mounts(ctx context.Context) error {
	tasks := b.selected(tasks())
	if len(tasks) == 0 {
		return nil
	}
	fmt.Println("\nthe mount; cold: just mounted, archives in the page cache; warm: the same again;")
	fmt.Println("cpu: of client and server; anon: anonymous memory of the server; requests: inside store paths")
	if err := quietly(bash(ctx, `mkdir tree; cp -a $(cat paths) tree; chmod -R u+w tree`)); err != nil {
		return err
	}
	t, err := scan("tree")
	if err != nil {
		return err
	}
	systems, err := prepared(ctx)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if err := b.task(ctx, task, t, systems); err != nil {
			return fmt.Errorf("%s: %w", task.name, err)
		}
	}
	return nil
}

func (b *bench) selected(all []task) (out []task) {
	for _, t := range all {
		if b.only.MatchString(t.name) {
			out = append(out, t)
		}
	}
	return out
}

// prepared makes what the systems mount, and leaves out those that are not
// installed.
func prepared(ctx context.Context) ([]system, error) {
	var out []system
	for _, s := range systems() {
		if err := s.missing(ctx); err != nil {
			fmt.Printf("%s is left out: %v\n", s.name, err)
			continue
		}
		if err := quietly(bash(ctx, s.prepare)); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", s.name, err)
		}
		out = append(out, s)
	}
	// What is still being written would disturb.
	return out, quietly(command(ctx, "sync"))
}

// missing says what a system needs and is not installed.
func (s *system) missing(ctx context.Context) error {
	for _, p := range s.needs {
		if _, err := exec.LookPath(p); err != nil {
			return err
		}
	}
	said, err := bash(ctx, "exec 2> /dev/null\n"+s.check).Output()
	if err != nil {
		return fmt.Errorf("%s", bytes.TrimSpace(said))
	}
	return nil
}

// task measures one task on all systems in turns and prints it.
func (b *bench) task(ctx context.Context, t task, c *content, systems []system) error {
	results := make([]result, len(systems))
	began := load()
	for range b.rounds {
		for i := range systems {
			if err := t.visit(ctx, &systems[i], c, &results[i]); err != nil {
				return fmt.Errorf("%s: %w", systems[i].name, err)
			}
		}
	}
	fmt.Printf("\n%s (%s); load %s to %s\n", t.name, t.about(c), began, load())
	t.print(systems, results)
	return nil
}
