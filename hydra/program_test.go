package hydra

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestFittingProgram has programs of several versions beside each other: pg_dump
// is to be that of the server, or the next newer, psql the newest. What does not
// say its version is none.
func TestFittingProgram(t *testing.T) {
	top := t.TempDir()
	var dirs []string
	for _, says := range []string{"(PostgreSQL) 17.2 (Debian 17.2-1)", "(PostgreSQL) 9.6.24", "nothing", "(PostgreSQL) 15.8", "(PostgreSQL) 16.4"} {
		dir := filepath.Join(top, says)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"pg_dump", "psql"} {
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "#!/bin/sh\necho '%s %s'\n", name, says), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	for server, want := range map[int]string{9: "9.6.24", 10: "15.8", 15: "15.8", 16: "16.4", 17: "17.2", 18: ""} {
		if p, err := dumper(t.Context(), server, dirs); p.full != want || (err != nil) != (want == "") {
			t.Errorf("for PostgreSQL %d there is pg_dump %q, %v, want %q", server, p.full, err, want)
		}
	}
	if p, err := loader(t.Context(), dirs); err != nil || p.full != "17.2" {
		t.Errorf("psql is %q, %v", p.full, err)
	}
}
