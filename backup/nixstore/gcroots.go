package nixstore

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/narvault/narvault/narread/storepath"
)

// A GCRoot is a reason why the garbage collector keeps a path.
type GCRoot struct {
	// Link is the symlink (or file) that makes it a root; or a file below
	// /proc, "{lsof}" or "{censored}" when a running program uses it.
	Link string
	Path storepath.Path
}

// Runtime reports whether the root is there only as long as a program runs.
func (r GCRoot) Runtime() bool {
	return strings.HasPrefix(r.Link, "{") || strings.HasPrefix(r.Link, "/proc/")
}

// GCRoots returns the garbage collector's roots that are valid paths, sorted by
// path, then link, without duplicates. Temporary roots, which include our own
// locks, are left out where Nix tells them apart: the daemon hides from users
// whom it does not trust whether a root is temporary or a running program's
// ("{censored}").
func (s *Store) GCRoots(ctx context.Context) ([]GCRoot, error) {
	roots, err := s.printRoots(ctx)
	if err != nil {
		return nil, fmt.Errorf("list GC roots: %w", err)
	}
	paths := make([]storepath.Path, 0, len(roots))
	for _, r := range roots {
		paths = append(paths, r.Path)
	}
	found, err := s.valid(ctx, paths, false)
	if err != nil {
		return nil, fmt.Errorf("list GC roots: %w", err)
	}
	return slices.DeleteFunc(roots, func(r GCRoot) bool {
		_, valid := slices.BinarySearch(found, r.Path)
		return !valid
	}), nil
}

func (s *Store) printRoots(ctx context.Context) ([]GCRoot, error) {
	cmd, err := s.nix.command(ctx, "nix-store", "--gc", "--print-roots")
	if err != nil {
		return nil, err
	}
	var stderr tail
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	roots, parseErr := parseRoots(stdout, s.dir)
	if parseErr != nil {
		io.Copy(io.Discard, stdout) // let it end by itself
	}
	if err := finish(ctx, cmd, &stderr, cmd.Wait()); err != nil {
		return nil, err
	}
	return roots, parseErr
}

// maxRootLine bounds a line: a link of 4096 bytes, each of which may be escaped,
// and a store path.
const maxRootLine = 32 << 10

// parseRoots reads lines of the form
//
//	LINK -> STOREPATH
//
// where LINK is quoted since Nix 2.34 ("..." with \" and \\: it is printed as a
// std::filesystem::path). A link with a line break in its name spreads over
// several lines, of which the last has the arrow; the others say nothing.
func parseRoots(r io.Reader, storeDir string) ([]GCRoot, error) {
	var roots []GCRoot
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRootLine)
	for lines.Scan() {
		arrow := strings.LastIndex(lines.Text(), " -> ")
		if arrow < 0 {
			continue
		}
		link, target := unquote(lines.Text()[:arrow]), lines.Text()[arrow+len(" -> "):]
		if strings.HasPrefix(link, "{temp:") {
			continue
		}
		p, err := storepath.ParseIn(storeDir, target)
		if err != nil {
			return nil, fmt.Errorf("nix-store --gc --print-roots: %w", err)
		}
		roots = append(roots, GCRoot{Link: link, Path: p})
	}
	slices.SortFunc(roots, func(a, b GCRoot) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Link, b.Link))
	})
	return slices.Compact(roots), lines.Err()
}

// unquote undoes C++'s std::quoted.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
