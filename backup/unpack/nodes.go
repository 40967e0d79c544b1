package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
)

// nodes reads a NAR and gives the nodes of the item to w.
func (w *writer) nodes(ctx context.Context, in io.Reader) error {
	r := nar.NewReader(counted{in, w.it.Read}, nar.ReaderOptions{})
	var names nar.Builder // finds names that are there twice
	sel := selection{path: w.it.Path}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = names.Add(h)
		}
		if err != nil {
			return err
		}
		if depth, in := sel.next(h); in {
			h.Depth = depth
			if err := w.node(h, contextReader{ctx, r}); err != nil {
				return err
			}
		}
	}
	if _, err := names.Listing(); err != nil {
		return err
	}
	if !sel.found {
		return fmt.Errorf("the archive has no %q", w.it.Path)
	}
	return nil
}

// saved gives those nodes of a damaged archive to w that can be read; lost
// collects why others cannot.
func (w *writer) saved(ctx context.Context, l *nar.Listing, lost *[]error) error {
	root, found := l.Find(w.it.Path)
	if !found {
		return fmt.Errorf("the archive has no %q", w.it.Path)
	}
	type level struct{ next, end int }
	stack := []level{{root, root + 1}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == top.end {
			stack = stack[:len(stack)-1]
			continue
		}
		e := l.Entry(top.next)
		h := nar.Header{
			Depth: len(stack) - 1, Name: e.Name, Type: e.Type, Executable: e.Executable,
			Size: e.Size, Offset: e.Offset, Target: e.Target,
		}
		file := l.Path(top.next)
		top.next++
		if e.Type == nar.Directory {
			stack = append(stack, level{e.First, e.First + e.N})
		}
		err := w.node(h, contextReader{ctx, io.NewSectionReader(w.it.Archive, e.Offset, e.Size)})
		var damage *narread.DamageError
		if errors.As(err, &damage) {
			*lost = append(*lost, fmt.Errorf("%q is lost: %w", file, err))
			err = w.drop(h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A selection picks the nodes at and below a path out of a NAR.
type selection struct {
	path  string
	at    []string // names of the directories above the node, and its own
	found bool
}

// next returns the depth of a node below the path, and whether it is there.
func (s *selection) next(h nar.Header) (depth int, in bool) {
	if h.Depth > 0 {
		s.at = append(s.at[:h.Depth-1], h.Name)
	}
	if s.path == "" {
		s.found = true
		return h.Depth, true
	}
	wanted := strings.Count(s.path, "/") + 1
	if h.Depth < wanted || strings.Join(s.at[:wanted], "/") != s.path {
		return 0, false
	}
	s.found = true
	return h.Depth - wanted, true
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	tell func(int)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.tell != nil && n > 0 {
		c.tell(n)
	}
	return n, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
