package storepath

import "fmt"

// SortByReferences returns paths so that references come first; references that
// are not among paths are ignored. It does not recurse: chains may be long.
func SortByReferences(paths []Path, references func(Path) []Path) ([]Path, error) {
	const (
		unseen = iota
		open
		closed
	)
	state := make(map[Path]int, len(paths))
	for _, p := range paths {
		state[p] = unseen
	}
	type frame struct {
		path Path
		rest []Path
	}
	order := make([]Path, 0, len(paths))
	var stack []frame
	push := func(p Path) {
		state[p] = open
		stack = append(stack, frame{p, references(p)})
	}
	for _, start := range paths {
		if state[start] == unseen {
			push(start)
		}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if len(top.rest) == 0 {
				state[top.path] = closed
				order = append(order, top.path)
				stack = stack[:len(stack)-1]
				continue
			}
			ref := top.rest[0]
			top.rest = top.rest[1:]
			st, known := state[ref]
			switch {
			case !known, st == closed, ref == top.path:
			case st == open:
				return nil, fmt.Errorf("references of %s and %s form a cycle", top.path, ref)
			default:
				push(ref)
			}
		}
	}
	return order, nil
}

// Levels splits paths, which are in topological order, into steps: the paths of
// one refer to those of earlier ones only. The values are indexes into paths.
func Levels(paths []Path, references func(Path) []Path) [][]int {
	level := make(map[Path]int, len(paths))
	var steps [][]int
	for i, p := range paths {
		at := 0
		for _, ref := range references(p) {
			if l, ok := level[ref]; ok && ref != p {
				at = max(at, l+1)
			}
		}
		level[p] = at
		if at == len(steps) {
			steps = append(steps, nil)
		}
		steps[at] = append(steps[at], i)
	}
	return steps
}
