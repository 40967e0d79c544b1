package backup

import (
	"context"
	"errors"
	"slices"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// Paths returns every store path of the backup, sorted. It reads all narinfos;
// damage is every *bincache.DamageError met on the way, joined, and leaves out
// just those paths.
func (b *Backup) Paths(ctx context.Context) (paths []storepath.Path, damage, err error) {
	hashes, err := b.Cache.Hashes()
	if err != nil {
		return nil, nil, err
	}
	var bad []error
	err = b.Cache.Scan(ctx, hashes,
		func(info *narinfo.NarInfo) { paths = append(paths, info.StorePath) },
		func(d *bincache.DamageError) { bad = append(bad, d) })
	slices.Sort(paths)
	return paths, errors.Join(bad...), err
}

// Totals are the sums over a whole backup.
type Totals struct {
	Paths    int   `json:"paths"`
	NarSize  int64 `json:"narSize"`  // bytes of the store paths as NARs
	NarFiles int   `json:"narFiles"` // different NAR files
	FileSize int64 `json:"fileSize"` // their bytes
}

// Totals adds up what the narinfos say; damage as in Paths.
func (b *Backup) Totals(ctx context.Context) (t Totals, damage, err error) {
	hashes, err := b.Cache.Hashes()
	if err != nil {
		return t, nil, err
	}
	var bad []error
	files := make(map[string]bool)
	err = b.Cache.Scan(ctx, hashes, func(info *narinfo.NarInfo) {
		t.Paths++
		t.NarSize += info.NarSize
		if !files[info.URL] {
			files[info.URL] = true
			t.NarFiles++
			t.FileSize += info.FileSize
		}
	}, func(d *bincache.DamageError) { bad = append(bad, d) })
	return t, errors.Join(bad...), err
}
