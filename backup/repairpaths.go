package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// mendPaths repairs narinfos and NAR files, and then what they refer to and is
// not there.
func (r *repairer) mendPaths(ctx context.Context) error {
	doubtful := make(map[string]bool)
	for _, hash := range r.req.NarInfos {
		doubtful[hash] = true
	}
	queue := slices.Concat(r.req.NarInfos, r.req.NARs)
	slices.Sort(queue)
	queue = slices.Compact(queue)
	if r.req.Progress.Planned != nil {
		r.req.Progress.Planned(Estimate{Write: r.amount(queue), Free: -1})
	}
	seen := make(map[string]bool)
	for len(queue) > 0 {
		hash := queue[0]
		queue = queue[1:]
		if seen[hash] {
			continue
		}
		seen[hash] = true
		info, err := r.mendPath(ctx, hash, doubtful[hash])
		if err != nil {
			return err
		}
		if info == nil {
			continue
		}
		if r.req.Progress.Archived != nil {
			r.req.Progress.Archived(info.StorePath, info.NarSize)
		}
		for _, ref := range info.References {
			if has, err := r.b.Cache.Has(ref.Hash()); err != nil {
				return err
			} else if !has {
				r.name(ref)
				queue = append(queue, ref.Hash())
			}
		}
	}
	return nil
}

// amount adds up store paths, as far as the cache and the index know them.
func (r *repairer) amount(hashes []string) Amount {
	a := Amount{Paths: len(hashes)}
	for _, hash := range hashes {
		info, err := r.b.Cache.NarInfo(hash)
		if err != nil {
			_, text := r.indexed(hash)
			info, err = narinfo.Parse(text)
		}
		if err == nil {
			a.NarSize += info.NarSize
		}
	}
	return a
}

// name notes what a store path is called.
func (r *repairer) name(p storepath.Path) {
	if r.req.Names == nil {
		r.req.Names = make(map[string]storepath.Path)
	}
	r.req.Names[p.Hash()] = p
}

// mendPath repairs the narinfo and the NAR file of a store path. It returns what
// its narinfo says now, nil if the path is lost.
func (r *repairer) mendPath(ctx context.Context, hash string, doubtful bool) (*narinfo.NarInfo, error) {
	seen, unread, err := r.narInfoText(hash)
	if err != nil {
		return nil, err
	}
	l := lost{hash: hash, path: r.req.Names[hash], seen: seen, unreadable: unread != nil}
	accounts, why := r.own(hash, seen, doubtful)
	if unread != nil {
		why = append(why, fmt.Sprintf("its narinfo: %v", unread))
	}
	if len(accounts) == 0 {
		more, err := r.others(ctx, hash)
		if err != nil {
			return nil, err
		}
		accounts = more
	}
	for i := range accounts {
		acc := &accounts[i]
		l.path = acc.info.StorePath
		if l.truth == nil && acc.own {
			l.truth = acc
		}
		s := &search{repairer: r, acc: acc}
		c, err := s.run(ctx)
		if err != nil {
			return nil, err
		}
		if c != nil {
			return r.put(ctx, seen, acc, c)
		}
		why = append(why, s.why...)
		l.unreadable = l.unreadable || s.unreadable
	}
	if len(accounts) == 0 && len(why) == 0 {
		why = []string{"nothing that can be believed knows it any more: give --from, with --trusted-key or --no-check-sigs, or back it up again"}
	}
	l.reason = joinReasons(why)
	r.lost = append(r.lost, l)
	return nil, nil
}

// narInfoText returns the bytes of a narinfo, damaged or not; nil if there is
// none, or none that can be read: unread says why it may be all right.
func (r *repairer) narInfoText(hash string) (text []byte, unread, err error) {
	_, text, err = r.b.Cache.NarInfoText(hash)
	if text != nil || err == nil {
		return text, nil, nil
	}
	if layout.Unreadable(err) {
		unread = err
	}
	return nil, unread, r.b.Cache.Present()
}

// put publishes what is known of a store path with the NAR file that was found.
func (r *repairer) put(ctx context.Context, seen []byte, acc *account, c *content) (*narinfo.NarInfo, error) {
	text := acc.textFor(c)
	info, err := narinfo.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("narinfo of %s: %w", acc.info.StorePath, err)
	}
	by := acc.by
	if more, from := r.addSigs(ctx, text, info); from != "" {
		if bytes.Equal(text, seen) {
			by = from
		}
		text = more
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	hash := info.StorePath.Hash()
	listing := r.listingFor(hash, c.listing)
	if bytes.Equal(text, seen) && listing == nil {
		return info, nil
	}
	if err := r.publish(ctx, hash, seen, text, listing); err != nil {
		return nil, err
	}
	if !bytes.Equal(text, seen) {
		r.repaired(r.inCache(hash+bincache.NarInfoExt), info.StorePath, by)
	}
	if listing != nil {
		r.repaired(r.inCache(hash+bincache.ListingExt), info.StorePath, "its NAR")
	}
	return info, nil
}

func (r *repairer) repaired(file string, p storepath.Path, from string) {
	r.result.Repaired = append(r.result.Repaired, Repaired{File: file, StorePath: p, From: from})
}

// publish gives a narinfo and a listing their names, unless somebody else has
// replaced the narinfo that was seen.
func (r *repairer) publish(ctx context.Context, hash string, seen, text, listing []byte) error {
	if r.req.DryRun {
		return nil
	}
	name := r.b.cachePath(hash)
	s := stagedInfo{narInfoName: name + bincache.NarInfoExt, listingName: name + bincache.ListingExt}
	defer s.discard(r.fsys)
	var err error
	if s.narInfo, err = disk.WriteTemp(r.fsys, r.b.Cache.Dir(), text); err != nil {
		return err
	}
	if listing != nil {
		if s.listing, err = disk.WriteTemp(r.fsys, r.b.Cache.Dir(), listing); err != nil {
			return err
		}
	}
	return r.held.Exclusively(ctx, func() error {
		now, _, err := r.narInfoText(hash)
		if err != nil || !bytes.Equal(now, seen) {
			return err
		}
		if err := publishListings(r.fsys, r.b.Cache.Dir(), &s); err != nil {
			return err
		}
		if err := s.publish(r.fsys); err != nil {
			return err
		}
		return r.fsys.SyncDir(r.b.Cache.Dir())
	})
}

// inCache returns the name of a file of the cache relative to the backup.
func (r *repairer) inCache(name string) string { return layout.CacheDir + "/" + name }

// missing reports whether an error says that something is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
