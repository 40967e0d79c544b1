package backup

import (
	"context"
	"fmt"
	"os"
	"testing"
)

const childVar = "NARVAULT_BACKUP_TEST_LOCK"

// TestMain lets the test binary be a process that holds a lock until it is
// killed, and the tests work in memory where they can: they write thousands of
// little backups.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		holdLock(dir)
	}
	os.Exit(inMemory(m))
}

func holdLock(dir string) {
	if _, err := lockBackup(context.Background(), dir, excluding, LockOptions{Command: "child"}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	select {}
}

func inMemory(m *testing.M) int {
	if dir, err := os.MkdirTemp("/dev/shm", "narvault-backup-test-"); err == nil {
		defer os.RemoveAll(dir)
		os.Setenv("TMPDIR", dir)
	}
	return m.Run()
}
