package backup

import (
	"os"
	"path/filepath"
	"testing"
)

// The first narvault wrote into the lock file who held it; other programs' files
// of that name are none of ours.
func TestOldLockFile(t *testing.T) {
	for text, ok := range map[string]bool{"process 12 on host\n": true, "": true, "process": false, "12345\n": false} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := lockBackup(t.Context(), dir, writing, LockOptions{})
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			l.Close()
		}
	}
}
