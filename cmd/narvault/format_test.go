package main

import (
	"os/exec"
	"testing"
)

// TestWord gives names to a shell, which must see the same ones.
func TestWord(t *testing.T) {
	for name, want := range map[string]string{
		"disnix/disnix-0.3": "disnix/disnix-0.3", "für/alle": "für/alle",
		"": "''", "prö ject/näme 1": "'prö ject/näme 1'", "$(id)/it's": `'$(id)/it'\''s'`, "~/x": "'~/x'", "a\nb*": "'a\nb*'",
	} {
		if got := word(name); got != want {
			t.Errorf("%q is written %s, want %s", name, got, want)
		}
		if out, err := exec.Command("sh", "-c", "printf %s "+word(name)).Output(); err != nil || string(out) != name {
			t.Errorf("%q is %q to a shell, %v", name, out, err)
		}
	}
}
