package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/narvault/narvault/backup/layout"
)

// Jobs answers again and again what the roots of releases are while others
// change them, like Live. Its method may be called concurrently.
type Jobs struct {
	b *Backup

	mu   sync.Mutex
	byID map[ReleaseID]jobList // guarded by mu
}

type jobList struct {
	stamp stamp
	roots []Root
}

// NewJobs returns the jobs of b.
func NewJobs(b *Backup) *Jobs { return &Jobs{b: b, byID: make(map[ReleaseID]jobList)} }

// Roots returns the roots of a release, none for one that hydra-backup recorded.
// As long as nothing changes, the same slice comes again; it must not be
// modified.
func (j *Jobs) Roots(id ReleaseID) ([]Root, error) {
	now := time.Now()
	info, err := os.Stat(j.b.releasePath(id, layout.ReleaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		_, err := j.b.ReleaseTime(id) // is there such a release?
		return nil, err
	}
	if err != nil {
		return nil, j.b.ReleaseError(id, err)
	}
	current := newStamp(info)
	j.mu.Lock()
	have, known := j.byID[id]
	j.mu.Unlock()
	if known && have.stamp.proves(current, now) {
		return have.roots, nil
	}
	release, err := j.b.Release(id)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	roots := release.Roots
	if known && slices.Equal(roots, have.roots) {
		roots = have.roots
	}
	j.mu.Lock()
	j.byID[id] = jobList{stamp: settled(current, now), roots: roots}
	j.mu.Unlock()
	return roots, nil
}
