package main

import (
	"errors"
	"fmt"
	"testing"
)

func TestComplaint(t *testing.T) {
	two := errors.Join(errors.New("one"), errors.New("two:\n  its detail"))
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("one"), "narvault: one"},
		{two, "narvault: one\nnarvault: two:\n  its detail"},
		{fmt.Errorf("do it: %w", two), "narvault: do it: one\nnarvault: two:\n  its detail"},
		{errors.New("Nix says\nno\n"), "narvault: Nix says\nnarvault: no"},
		{errors.New("a\x1b[31m"), "narvault: a\\x1b[31m"},
		{usageErrorf("ls: arguments are missing\nusage: narvault ls"), "narvault: ls: arguments are missing\nusage: narvault ls"},
	} {
		if got := complaint(tt.err); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
