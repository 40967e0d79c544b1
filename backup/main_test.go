package backup

import (
	"os"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
)

// TestMain lets the tests work in memory where they can: they write thousands of
// little backups.
func TestMain(m *testing.M) { os.Exit(backuptest.InMemory(m)) }
