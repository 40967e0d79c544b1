package gc

import (
	"os"
	"testing"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/narread/storepath"
)

// TestMain lets the tests work in memory where they can: they write thousands of
// little backups.
func TestMain(m *testing.M) { os.Exit(backuptest.InMemory(m)) }

// A scene is one from which things are taken out.
type scene struct{ *backuptest.Scene }

func newScene(t *testing.T) scene {
	return scene{backuptest.NewScene(t, func(dir string, store *backuptest.Store, name string, root storepath.Path) {
		mustRun(t, dir, store, request(name, root))
	})}
}

func request(name string, root storepath.Path) backup.Request {
	return backup.Request{Release: backup.ReleaseID{Project: "p", Name: name}, Roots: []storepath.Path{root}}
}

func mustRun(t *testing.T, dir string, store backup.Store, req backup.Request) *backup.Result {
	t.Helper()
	r, err := backup.Run(t.Context(), dir, store, req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
