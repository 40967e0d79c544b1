package backup

import (
	"os"
	"testing"
)

// TestMain lets the tests work in memory where they can: they write thousands of
// little backups.
func TestMain(m *testing.M) { os.Exit(inMemory(m)) }

func inMemory(m *testing.M) int {
	if dir, err := os.MkdirTemp("/dev/shm", "narvault-backup-test-"); err == nil {
		defer os.RemoveAll(dir)
		os.Setenv("TMPDIR", dir)
	}
	return m.Run()
}
