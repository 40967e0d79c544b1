package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/trash"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

// What Repair cannot mend it takes out of the way of Nix, into the trash:
//
//	trash/<time>/quarantine/cache/<hash>.narinfo   at the path that it had in the backup
//	trash/<time>/quarantine.json                   what was taken out, and why
//
// It can be put back with mv, like all that is in the trash. A backup does not
// do so by itself, as it does with what gc took out: nobody shall meet it again
// by chance. The NAR file stays where it is: no narinfo names it any more, but
// what is whole in it is not lost. quarantine.json also has the narinfos as they
// have to be, as far as that is known, for a later Repair that has a source.
const (
	quarantineDir  = "quarantine"
	quarantineFile = "quarantine.json"
)

type quarantineNote struct {
	Version int               `json:"version"`
	Entries []quarantineEntry `json:"entries"`
}

// A quarantineEntry is something in quarantine, or a narinfo that is lost.
type quarantineEntry struct {
	Quarantined
	NarInfo string `json:"narInfo,omitempty"` // the text that is right
	SHA256  string `json:"sha256,omitempty"`  // of NarInfo, hexadecimal
}

func (e *quarantineEntry) sum() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(e.NarInfo))) }

// quarantined returns what is known of quarantined store paths, by hash part,
// the newest of each.
func (b *Backup) quarantined() (map[string]quarantineEntry, error) {
	batches, _, err := trash.List(b.dir)
	if err != nil {
		return nil, err
	}
	found := make(map[string]quarantineEntry)
	for _, batch := range batches {
		text, err := layout.ReadFile(b.Path(layout.TrashDir, batch.Name, quarantineFile))
		var note quarantineNote
		if err != nil || json.Unmarshal(text, &note) != nil {
			continue // gc made this one, or it is damaged
		}
		for _, e := range note.Entries {
			info, err := narinfo.Parse([]byte(e.NarInfo))
			if err != nil || e.SHA256 != e.sum() {
				continue
			}
			if _, newer := found[info.StorePath.Hash()]; !newer {
				found[info.StorePath.Hash()] = e
			}
		}
	}
	return found, nil
}

// quarantine takes out what has no source, while nobody else writes.
func (r *repairer) quarantine(ctx context.Context) error {
	if !r.toTakeOut() {
		r.reportLost(r.lost)
		return nil
	}
	if !r.req.DryRun {
		held, err := lock.Take(ctx, r.b.dir, lock.Excluding, r.req.Lock)
		if err != nil {
			return err
		}
		defer held.Close()
	}
	var gone, left []lost
	for _, l := range r.lost {
		goes, err := r.stillLost(ctx, l)
		if err != nil {
			return err
		}
		if goes {
			gone = append(gone, l)
		} else {
			left = append(left, l)
		}
	}
	r.reportLost(left)
	note := r.note(gone)
	if r.req.DryRun || len(note.Entries) == 0 {
		return nil
	}
	return r.takeOut(note)
}

// toTakeOut reports whether anything is to be quarantined or noted.
func (r *repairer) toTakeOut() bool {
	return len(r.req.Misfits) > 0 || r.req.Index || slices.ContainsFunc(r.lost, r.goes)
}

// goes reports whether a lost store path has a narinfo to take out, or something
// to note.
func (r *repairer) goes(l lost) bool {
	if l.unreadable {
		return false
	}
	_, noted := r.earlier[l.hash]
	there, err := r.b.Cache.Lstat(l.hash + bincache.NarInfoExt)
	return err == nil && !there.IsDir() || l.truth != nil && !noted
}

// stillLost looks again, now that nobody writes: a backup may have healed it.
func (r *repairer) stillLost(ctx context.Context, l lost) (bool, error) {
	if !r.goes(l) {
		return false, nil
	}
	now, unread, err := r.narInfoText(l.hash)
	if err != nil || unread != nil || !bytes.Equal(now, l.seen) {
		return false, err
	}
	if l.truth == nil || !bytes.Equal(l.truth.text, now) {
		return true, nil
	}
	clear(r.read)
	d, err := r.readNAR(ctx, l.truth.info)
	return err == nil && d.err != nil && !layout.Unreadable(d.err), err
}

// reportLost names what stays as it is.
func (r *repairer) reportLost(left []lost) {
	for _, l := range left {
		r.result.Lost = append(r.result.Lost, r.entry(l).Quarantined)
	}
}

func (r *repairer) entry(l lost) quarantineEntry {
	e := quarantineEntry{Quarantined: Quarantined{
		File: r.inCache(l.hash + bincache.NarInfoExt), StorePath: l.path, Reason: l.reason, Releases: r.releases[l.path],
	}}
	if l.truth != nil {
		e.NarInfo = string(l.truth.text)
		e.SHA256 = e.sum()
	}
	return e
}

// note puts together what is taken out.
func (r *repairer) note(gone []lost) *quarantineNote {
	note := &quarantineNote{Version: FormatVersion}
	for _, l := range gone {
		e := r.entry(l)
		note.Entries = append(note.Entries, e)
		if _, err := r.b.Cache.Lstat(l.hash + bincache.NarInfoExt); missing(err) {
			r.result.Lost = append(r.result.Lost, e.Quarantined)
		} else {
			r.result.Quarantined = append(r.result.Quarantined, e.Quarantined)
		}
	}
	for _, m := range r.misfits() {
		e := quarantineEntry{Quarantined: Quarantined{File: m.File, Reason: m.Reason}}
		note.Entries = append(note.Entries, e)
		r.result.Quarantined = append(r.result.Quarantined, e.Quarantined)
	}
	return note
}

// misfits are what else is taken out: an index that is damaged would go on
// being used as far as it can be read.
func (r *repairer) misfits() []Misfit {
	misfits := r.req.Misfits
	if r.req.Index {
		misfits = append(slices.Clone(misfits), Misfit{layout.IndexDir, "the index is damaged; it is built anew"})
	}
	return slices.DeleteFunc(slices.Clone(misfits), func(m Misfit) bool { return !r.isMisfit(m.File) })
}

// isMisfit reports whether a file is still there, and is not what belongs there:
// since it was found, somebody may have put that right.
func (r *repairer) isMisfit(file string) bool {
	if !filepath.IsLocal(file) || layout.Plain(r.b.dir, file) != nil {
		return false
	}
	st, err := os.Lstat(r.b.Path(file))
	if err != nil {
		return false
	}
	name, inCache := strings.CutPrefix(file, layout.CacheDir+"/")
	if hash, isListing := strings.CutSuffix(name, bincache.ListingExt); inCache && isListing {
		has, err := r.b.Cache.Has(hash)
		return err == nil && (!has || slices.Contains(r.req.Listings, hash))
	}
	return !(inCache && slices.Contains(bincache.Dirs(), name) && st.IsDir())
}

// takeOut moves what the note names to the trash. The note comes first: it has
// what no other file may have any more.
func (r *repairer) takeOut(note *quarantineNote) error {
	t := &trash.Taker{FS: r.fsys, Dir: r.b.dir, Now: r.req.now, Below: quarantineDir}
	t.Begin()
	text, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return err
	}
	if err := disk.MkdirAll(r.fsys, r.b.dir, r.b.Path(t.Batch())); err != nil {
		return err
	}
	if err := disk.WriteFile(r.fsys, r.b.Path(t.Batch(), quarantineFile), append(text, '\n')); err != nil {
		return err
	}
	var infos, others []string
	for _, e := range note.Entries {
		name := filepath.FromSlash(e.File)
		if e.StorePath == "" && path.Ext(e.File) != bincache.NarInfoExt {
			others = append(others, name)
			continue
		}
		infos = append(infos, name)
		others = append(others, name[:len(name)-len(bincache.NarInfoExt)]+bincache.ListingExt)
	}
	for _, step := range [][]string{infos, others} {
		if err := t.Take(step); err != nil {
			return err
		}
	}
	r.result.Trash = t.Batch()
	return r.remake()
}

// remake makes the directories that Nix wants, where something else was in their
// place.
func (r *repairer) remake() error {
	for _, dir := range bincache.Dirs() {
		if err := disk.MkdirAll(r.fsys, r.b.dir, r.b.Path(layout.CacheDir, dir)); err != nil {
			return err
		}
	}
	return nil
}
