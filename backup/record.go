package backup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
)

// recordFiles are the files of a release, in the order in which they are
// written: a crash between the last two leaves a complete closure with the old
// description, and the old closure's paths are still in the cache.
var recordFiles = []string{layout.HydraFile, layout.ClosureFile, layout.ReleaseFile}

// record writes the release, now that all its paths are there. A record that
// would say the same again is left alone, so that previous/ keeps its worth. It
// is called under the mutex: another backup may have recorded the same release
// meanwhile.
func (r *runner) record(b *Backup) (err error) {
	if r.result.Changes, err = b.changes(r.req.Release, r.closure); err != nil {
		return err
	}
	release := r.newRecord()
	old, err := b.Release(r.req.Release)
	if err == nil {
		release.inherit(old)
	}
	var damage *bincache.DamageError
	if errors.As(err, &damage) {
		r.result.Healed = append(r.result.Healed, damage.Error())
	} else if err != nil && !errors.Is(err, ErrNoRelease) {
		return err // written by a newer narvault: not ours to replace
	}
	hydra := r.req.Hydra
	if err == nil && r.result.Changes.none() && release.equal(old) && b.hydraIs(r.req.Release, hydra) {
		return syncRelease(r.fsys, b, r.req.Release)
	}
	if err == nil && release.equal(old) && release.Created.Equal(old.Created) {
		// Within a second only the rows changed, or the closure: a release.json that
		// is the one before would say that a crash came between (HalfWritten).
		release.Created = old.Created.Add(time.Second)
	}
	return writeRelease(r.fsys, b, release, r.closure, hydra)
}

// newRecord is what release.json is to say. Where the request brings a record,
// that is taken over.
func (r *runner) newRecord() *Release {
	release := &Release{Source: Source{Kind: "store"}, Roots: r.selected.roots}
	if _, ok := r.store.(packer); ok {
		release.Source.Kind = "cache"
	}
	if r.req.Record != nil {
		*release = *r.req.Record
		release.broken = false
	}
	if r.req.byRecord() {
		release.Roots = r.selected.roots
	}
	release.Version = FormatVersion
	release.Project, release.Name = r.req.Release.Project, r.req.Release.Name
	release.Description = cmp.Or(r.req.Description, release.Description)
	release.Method = cmp.Or(release.Method, r.req.Method)
	if release.Created.IsZero() {
		release.Created = time.Now().UTC().Truncate(time.Second)
	}
	release.StoreDir, release.Paths, release.NarSize = r.store.Dir(), len(r.closure), r.narSize
	return release
}

// inherit takes from the record before what the new one leaves open.
func (r *Release) inherit(old *Release) {
	if r.unknown == nil {
		r.unknown = old.unknown
	}
	r.Description = cmp.Or(r.Description, old.Description)
}

// equal compares all but the time.
func (r *Release) equal(other *Release) bool {
	x, y := *r, *other
	x.Created, y.Created = time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}

// Hydra reads hydra.json of a release; it is nil when the release did not come
// from Hydra.
func (b *Backup) Hydra(id ReleaseID) ([]byte, error) {
	text, err := layout.ReadFile(b.releasePath(id, layout.HydraFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", id, err)
	}
	return text, nil
}

// hydraIs reports whether hydra.json is what is to be written, nil for none.
func (b *Backup) hydraIs(id ReleaseID, want []byte) bool {
	have, err := b.Hydra(id)
	return err == nil && bytes.Equal(have, want)
}
