package backup

import (
	"bytes"
	"fmt"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// WholeClosure is Closure, and a *bincache.DamageError if release.json says that
// lines of it are lost: what would be made of the rest, nobody would take for
// incomplete.
func (b *Backup) WholeClosure(id ReleaseID) ([]storepath.Path, error) {
	const attempts = 3 // a backup may be replacing the two
	var closure []storepath.Path
	var said int
	for range attempts {
		record, err := b.Release(id)
		if err != nil && ignoreDamage(err) != nil {
			return nil, err
		}
		if closure, err = b.Closure(id); err != nil {
			return nil, err
		}
		if record == nil || record.Paths == len(closure) || b.HalfWritten(id) {
			return closure, nil
		}
		said = record.Paths
	}
	return nil, &bincache.DamageError{
		File: b.releasePath(id, layout.ClosureFile),
		Err: fmt.Errorf("has %d store paths, %s says %d: it is incomplete; back the release up again, or name the store paths that you need",
			len(closure), layout.ReleaseFile, said),
	}
}

// HalfWritten reports whether a crash came between closure.txt, which is
// complete, and release.json, which is still the one before.
func (b *Backup) HalfWritten(id ReleaseID) bool {
	return b.asBefore(id, layout.ReleaseFile) && !b.asBefore(id, layout.ClosureFile)
}

// asBefore reports whether a file of a release is as it was before the last
// change.
func (b *Backup) asBefore(id ReleaseID, name string) bool {
	now, err := layout.ReadFile(b.releasePath(id, name))
	before, err2 := layout.ReadFile(b.releasePath(id, layout.PreviousDir, name))
	return err == nil && err2 == nil && bytes.Equal(now, before)
}
