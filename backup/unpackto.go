package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/narvault/narvault/backup/unpack"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// An UnpackRequest asks for archived files as plain files in a directory.
type UnpackRequest struct {
	Dir   string // made if its parent is there
	Items []UnpackItem
	// RelativeLinks makes symlinks to store paths that are restored whole by this
	// request relative, so that they lead to them in Dir.
	RelativeLinks bool
	// Limits, if not nil, is told once, before anything is written, what the file
	// system of Dir cannot hold.
	Limits   func(unpack.Limits)
	Progress RestoreProgress
}

// An UnpackItem is a store path, or a file, directory or symlink in one.
type UnpackItem struct {
	Path  storepath.Path
	Below string // names separated by slashes, "" for the store path
}

// name is what the item is called in the directory.
func (i UnpackItem) name() string {
	if i.Below == "" {
		return string(i.Path)
	}
	return path.Base(i.Below)
}

func (i UnpackItem) String() string {
	return strings.TrimSuffix(string(i.Path)+"/"+i.Below, "/")
}

// RestoreProgress is told what happens during a restore; every field may be
// nil. Planned comes first and once: store paths and the bytes of their NARs,
// and how many bytes are free where they go, -1 if that is not known.
type RestoreProgress struct {
	Planned func(total Amount, free int64)
	Read    func(n int) // n bytes of NAR were read and verified
	Done    func(storepath.Path)
}

func (p *RestoreProgress) planned(total Amount, free int64) {
	if p.Planned != nil {
		p.Planned(total, free)
	}
}

func (p *RestoreProgress) done(path storepath.Path) {
	if p.Done != nil {
		p.Done(path)
	}
}

// An UnpackResult says what Unpack did. It is the receipt, too, which then has
// the items of earlier runs as well.
type UnpackResult struct {
	Version int            `json:"version"`
	Backup  string         `json:"backup,omitempty"` // its id
	Time    time.Time      `json:"time"`
	Links   string         `json:"links"` // "raw" or "relative"
	Items   []UnpackedItem `json:"items"`
}

// An UnpackedItem is one item and what became of it.
type UnpackedItem struct {
	Name      string         `json:"name"` // in the directory
	StorePath storepath.Path `json:"storePath"`
	File      string         `json:"file,omitempty"` // below the store path
	NarHash   narinfo.Hash   `json:"narHash,omitzero"`
	NarSize   int64          `json:"narSize,omitempty"`
	State     unpack.State   `json:"state"`
	Files     int            `json:"files"`
	Bytes     int64          `json:"bytes"` // of the contents of the files
	LeftOut   []string       `json:"leftOut,omitempty"`
	Error     string         `json:"error,omitempty"` // of damaged and differing ones

	err error
}

// Err returns what was wrong with a damaged or differing item, nil for others.
func (i *UnpackedItem) Err() error { return i.err }

// What is done between two rounds of syncing: a power cut costs no more.
const (
	maxUnpackGroup = 256
	maxUnpackBytes = 512 << 20
)

// Unpack restores archived files as plain files, without Nix. Every item
// is verified against the NarHash of its store path; it gets its name when it
// is whole and durable. Damage and what was there with another content are
// told in the result, not as an error. What a run that was stopped has restored
// is kept by the next one.
func (b *Backup) Unpack(ctx context.Context, req UnpackRequest) (*UnpackResult, error) {
	if err := b.checkUnpack(&req); err != nil {
		return nil, err
	}
	dir, err := unpack.Open(req.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if req.Limits != nil {
		req.Limits(dir.Limits())
	}
	sums, err := dir.NewSums()
	if err != nil {
		return nil, err
	}
	defer sums.Close()
	u := &unpacking{backup: b, req: &req, dir: dir, sums: sums, whole: make(map[storepath.Path]bool)}
	u.result = UnpackResult{Version: FormatVersion, Backup: b.config.ID, Time: time.Now().UTC().Truncate(time.Second), Links: "raw"}
	if req.RelativeLinks {
		u.result.Links = "relative"
	}
	err = u.run(ctx)
	return &u.result, errors.Join(err, u.receipt())
}

// checkUnpack refuses what cannot end well, and drops what is asked for twice.
func (b *Backup) checkUnpack(req *UnpackRequest) error {
	for _, dir := range []string{b.dir, b.Cache.Dir()} {
		if err := notIn(req.Dir, dir); err != nil {
			return err
		}
	}
	byName := make(map[string]UnpackItem)
	items := req.Items[:0:0]
	for _, it := range req.Items {
		name := it.name()
		other, twice := byName[name]
		switch {
		case twice && other != it:
			return fmt.Errorf("restore into %s: %s and %s would both be called %s: restore them into different directories", req.Dir, other, it, name)
		case name == unpack.SumsFile || name == unpack.ReceiptFile:
			return fmt.Errorf("restore into %s: %s is what the receipt is called: restore the directory that it is in", req.Dir, name)
		case !twice:
			byName[name] = it
			items = append(items, it)
		}
	}
	req.Items = items
	return nil
}

// notIn refuses a directory in the backup: what is restored there would be
// taken for a part of it.
func notIn(dir, backup string) error {
	at, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(at); err == nil {
		at = real
	} else if real, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(real, filepath.Base(at))
	}
	if backup, err = filepath.Abs(backup); err != nil {
		return err
	}
	if backup, err = filepath.EvalSymlinks(backup); err != nil {
		return err
	}
	if rel, err := filepath.Rel(backup, at); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("restore into %s: it is in the backup: use a directory outside", dir)
	}
	return nil
}

// An unpacking is one run of Unpack.
type unpacking struct {
	backup *Backup
	req    *UnpackRequest
	dir    *unpack.Dir
	sums   *unpack.Sums
	whole  map[storepath.Path]bool // store paths that are restored whole
	infos  []*narinfo.NarInfo      // of the items; nil where damaged
	result UnpackResult

	group      []*unpack.Tree // not yet committed, with their numbers among the items
	groupBytes int64
}

func (u *unpacking) run(ctx context.Context) error {
	if err := u.plan(); err != nil {
		return err
	}
	for i := range u.req.Items {
		if err := u.item(ctx, i); err != nil {
			return errors.Join(err, u.commit()) // what is whole stays
		}
		if len(u.group) >= maxUnpackGroup || u.groupBytes >= maxUnpackBytes {
			if err := u.commit(); err != nil {
				return err
			}
		}
	}
	return u.commit()
}

// plan reads the narinfos. Damaged ones are found again by item.
func (u *unpacking) plan() error {
	var total Amount
	for _, it := range u.req.Items {
		info, err := u.backup.Cache.Lookup(it.Path)
		if err = u.backup.promised(it.Path, err); err != nil && !isDamage(err) {
			return err
		}
		u.infos = append(u.infos, info)
		if info != nil {
			total.add(info.NarSize)
		}
		if it.Below == "" {
			u.whole[it.Path] = true
		}
	}
	u.req.Progress.planned(total, freeSpace(u.req.Dir))
	return nil
}

// item restores one item, up to its name.
func (u *unpacking) item(ctx context.Context, i int) error {
	it, info := u.req.Items[i], u.infos[i]
	out := UnpackedItem{Name: it.name(), StorePath: it.Path, File: it.Below}
	if info != nil {
		out.NarHash, out.NarSize = info.NarHash, info.NarSize
	}
	t, err := u.unpack(ctx, it, info)
	if isDamage(err) {
		t = &unpack.Tree{Name: it.name(), State: unpack.Damaged, Err: err}
	} else if err != nil {
		return err
	}
	out.State, out.LeftOut, out.Files, out.err = t.State, t.LeftOut, len(t.Files), t.Err
	for _, f := range t.Files {
		out.Bytes += f.Size
	}
	if t.Err != nil {
		out.Error = t.Err.Error()
	}
	u.group, u.groupBytes = append(u.group, t), u.groupBytes+out.Bytes
	u.result.Items = append(u.result.Items, out)
	u.req.Progress.done(it.Path)
	return nil
}

func (u *unpacking) unpack(ctx context.Context, it UnpackItem, info *narinfo.NarInfo) (*unpack.Tree, error) {
	if info == nil {
		var err error
		if info, err = u.backup.Cache.Lookup(it.Path); err != nil {
			return nil, u.backup.promised(it.Path, err)
		}
	}
	archive, err := u.backup.Cache.Archive(info)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	item := unpack.Item{
		Name: it.name(), Archive: archive, NarHash: info.NarHash, Path: it.Below, Read: u.req.Progress.Read,
		Listing: func() (*nar.Listing, error) { return u.listing(it.Path) },
	}
	if u.req.RelativeLinks {
		item.Relink = func(target string, depth int) string {
			return storepath.Relink(target, info.StoreDir, depth, func(p storepath.Path) bool { return u.whole[p] })
		}
	}
	return u.dir.Unpack(ctx, item)
}

// listing returns the listing of an archive that is damaged, from the index if
// that has it.
func (u *unpacking) listing(p storepath.Path) (*nar.Listing, error) {
	live := NewLive(u.backup, func(error) {})
	if err := live.UseIndex(); err == nil {
		defer live.CloseIndex()
	}
	tree, err := live.OpenTree(p)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	return tree.Listing()
}

// commit gives the group its names.
func (u *unpacking) commit() error {
	if len(u.group) == 0 {
		return nil
	}
	if err := u.dir.Commit(u.group); err != nil {
		return err
	}
	for _, t := range u.group {
		u.sums.Add(t)
	}
	u.group, u.groupBytes = nil, 0
	return nil
}

// receipt writes what was done, with what earlier runs did.
func (u *unpacking) receipt() error {
	doc := u.result
	done := make(map[string]bool)
	for _, it := range doc.Items {
		done[it.Name] = true
	}
	text, err := u.dir.Receipt()
	if err != nil {
		return err
	}
	var earlier UnpackResult
	if json.Unmarshal(text, &earlier) == nil { // one that cannot be read is replaced
		for _, it := range earlier.Items {
			if !done[it.Name] {
				doc.Items = append(doc.Items, it)
			}
		}
	}
	if text, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return err
	}
	return u.sums.Finish(append(text, '\n'))
}
