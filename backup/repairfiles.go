package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

// basics mends what a backup needs to be opened, and opens it again.
func (r *repairer) basics(ctx context.Context) error {
	if !r.req.CacheInfo && !r.req.CacheDirs && !r.req.Config {
		return nil
	}
	if r.req.CacheInfo {
		r.repaired(r.inCache(bincache.InfoFile), "", "the narinfos")
	}
	if r.req.Config {
		r.repaired(layout.ConfigFile, "", "the index")
	}
	var absent []string
	for _, dir := range bincache.Dirs() {
		if _, err := r.b.Cache.Lstat(dir); missing(err) {
			absent = append(absent, dir)
			r.repaired(r.inCache(dir), "", "nothing: it is empty")
		}
	}
	err := r.exclusively(ctx, func() error { return r.writeBasics(absent) })
	if err != nil || r.req.DryRun {
		return err
	}
	b, err := Open(r.b.dir, r.req.Cache)
	if err != nil {
		return err
	}
	r.b.Close()
	r.b = b
	return nil
}

func (r *repairer) writeBasics(absent []string) error {
	for _, dir := range absent {
		if err := disk.MkdirAll(r.fsys, r.b.dir, r.b.Path(layout.CacheDir, dir)); err != nil {
			return err
		}
	}
	if r.req.CacheInfo {
		if err := disk.WriteFile(r.fsys, r.b.cachePath(bincache.InfoFile), cacheInfo(r.b.Cache.StoreDir())); err != nil {
			return err
		}
	}
	if !r.req.Config {
		return nil
	}
	c, err := r.config()
	if err != nil {
		return err
	}
	return disk.WriteFile(r.fsys, r.b.Path(layout.ConfigFile), append(c, '\n'))
}

// config makes a new narvault.json: with the id that the index knows, and what
// can be read of the damaged one.
func (r *repairer) config() ([]byte, error) {
	c := Config{Version: FormatVersion, ID: uuid.NewString(), Created: r.req.now}
	name := r.b.Path(layout.ConfigFile)
	if st, err := os.Stat(name); err == nil {
		c.Created = st.ModTime()
	}
	c.Created = c.Created.UTC().Truncate(1e9)
	if ix, err := index.Open(r.b.Path(layout.IndexDir), index.Options{}); err == nil {
		if id, ok := strings.CutPrefix(ix.Cache(), "id-"); ok {
			c.ID = id
		}
		ix.Close()
	}
	c.Compression, c.Level = (&Request{}).pack(Config{})
	return json.MarshalIndent(c, "", "  ")
}

// listingFor returns the .ls file that a store path is to have, nil if it has
// it. Where nobody wrote listings, none are added.
func (r *repairer) listingFor(hash string, want []byte) []byte {
	now, err := r.b.Cache.ReadFile(hash+bincache.ListingExt, maxListing)
	if want == nil || err == nil && bytes.Equal(now, want) || missing(err) && r.b.config.Version == 0 && !r.req.Config {
		return nil
	}
	if err == nil && !slices.Contains(r.req.Listings, hash) && json.Valid(now) {
		return nil // another program wrote it
	}
	return want
}

// maxListing bounds what is read of a .ls file, in bytes.
const maxListing = 64 << 20

// mendListings writes listings that are damaged, and in a backup that has them,
// those that are missing.
func (r *repairer) mendListings(ctx context.Context) error {
	hashes := r.req.Listings
	if r.b.config.Version != 0 {
		absent, err := r.unlisted()
		if err != nil {
			return err
		}
		hashes = append(absent, hashes...)
	}
	for _, hash := range hashes {
		if err := r.mendListing(ctx, hash); err != nil {
			return err
		}
	}
	return nil
}

// unlisted returns the store paths without a listing.
func (r *repairer) unlisted() (absent []string, err error) {
	entries, err := r.b.Cache.ReadDir(".")
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool)
	for _, e := range entries {
		if hash, ok := strings.CutSuffix(e.Name(), bincache.ListingExt); ok {
			listed[hash] = true
		}
	}
	hashes, err := r.b.Cache.Hashes()
	for _, hash := range hashes {
		if !listed[hash] {
			absent = append(absent, hash)
		}
	}
	return absent, err
}

func (r *repairer) mendListing(ctx context.Context, hash string) error {
	info, text, err := r.b.Cache.NarInfoText(hash)
	if err != nil {
		return nil // then a listing is of no use
	}
	want, from, err := r.makeListing(ctx, info, text)
	if err != nil {
		return err
	}
	name := r.b.cachePath(hash + bincache.ListingExt)
	switch {
	case want == nil && disk.IsFile(name) && slices.Contains(r.req.Listings, hash):
		r.req.Misfits = append(r.req.Misfits, Misfit{r.inCache(hash + bincache.ListingExt), "it is damaged, and cannot be made anew"})
		return nil
	case want == nil || r.listingFor(hash, want) == nil:
		return nil
	}
	r.repaired(r.inCache(hash+bincache.ListingExt), info.StorePath, from)
	return r.exclusively(ctx, func() error { return disk.WriteFile(r.fsys, name, want) })
}

// makeListing makes the listing of a store path out of the index, or else of the
// NAR. It is nil when there cannot be one.
func (r *repairer) makeListing(ctx context.Context, info *narinfo.NarInfo, text []byte) (want []byte, from string, err error) {
	if r.index != nil {
		record, err := r.index.Record(info.StorePath)
		if err == nil && record.NarInfoSum == sha256.Sum256(text) {
			if l, err := record.Listing(); err == nil {
				want, err = listingJSON(l)
				return want, "the index", err
			}
		}
	}
	d, err := r.readNAR(ctx, info)
	if err != nil {
		return nil, "", err
	}
	return d.listing, "its NAR", nil
}

// mendReleases mends the records of releases.
func (r *repairer) mendReleases(ctx context.Context) error {
	for _, id := range r.req.Releases {
		for _, mend := range []func(ReleaseID) (name string, text []byte, from string){r.closureFor, r.recordFor, r.hydraFor} {
			name, text, from := mend(id)
			if text == nil {
				continue
			}
			err := r.exclusively(ctx, func() error {
				// A backup may have recorded the release meanwhile.
				if name, text, from = mend(id); text == nil {
					return nil
				}
				return disk.WriteFile(r.fsys, r.b.releasePath(id, name), text)
			})
			if err != nil {
				return err
			}
			if text != nil {
				r.repaired(filepath.ToSlash(filepath.Join(layout.ReleasesDir, id.Project, id.Name, name)), "", from)
			}
		}
	}
	return nil
}
