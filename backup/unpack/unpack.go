package unpack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/narinfo"
)

// damagedSuffix ends the name of what could be saved of a damaged archive.
const damagedSuffix = ".damaged"

// An Item is what is to be restored: an archive, or what is below one.
type Item struct {
	Name    string           // in the Dir, without slash
	Archive *narread.Archive // whose NarHash verifies it; the caller closes it
	NarHash narinfo.Hash
	Path    string // what of the archive, as nar.Listing.Path has it; "" for all
	// Listing, if not nil, returns the archive's listing from elsewhere, for when
	// the archive is damaged. It must be that of the NarHash.
	Listing func() (*nar.Listing, error)
	// Relink, if not nil, returns the target of a symlink that lies depth
	// directories below the Dir.
	Relink func(target string, depth int) string
	Read   func(n int) // told of n bytes of NAR that were read; may be nil
}

// A State is what became of an Item.
type State string

// The states. A tree that is Differing was there with other content and is left
// as it is; of one that is Damaged only some files could be saved.
const (
	Restored  State = "restored"
	Kept      State = "kept" // it was there, and is right
	Differing State = "differing"
	Damaged   State = "damaged"
)

// A Tree is the outcome for one Item.
type Tree struct {
	Name    string
	State   State
	Files   []File   // regular files, in the order of the archive
	LeftOut []string // what the file system cannot hold: path and reason
	// Err says for Differing what is different, for Damaged what is wrong: it
	// wraps the archive's *narread.DamageError.
	Err  error
	temp string // "" if there is nothing to commit
}

// A File is a regular file that was restored, or was there.
type File struct {
	Path   string // below the Dir, slashes between the names, which are bytes
	Size   int64
	SHA256 [sha256.Size]byte
}

// Unpack restores one item as far as its name, which Commit gives it: damage in
// the archive and a differing tree are States, not errors. After an error what
// is there is left to the next run.
func (d *Dir) Unpack(ctx context.Context, it Item) (*Tree, error) {
	t, err := d.unpack(ctx, it)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", it.Name, err)
	}
	return t, nil
}

func (d *Dir) unpack(ctx context.Context, it Item) (*Tree, error) {
	_, err := d.root.Lstat(it.Name)
	switch {
	case err == nil:
		return d.compare(ctx, it)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	temp := tempName(it)
	if d.limits.FoldsCase {
		// There, what is in the way tells which names are one.
		if err := removeAll(d.root, temp); err != nil {
			return nil, err
		}
	}
	w := &writer{dir: d, it: &it, name: temp}
	err = w.pass(ctx, w.stream)
	var extra *extraError
	if errors.As(err, &extra) { // somebody was in the temporary tree
		if err := removeAll(d.root, temp); err != nil {
			return nil, err
		}
		err = w.pass(ctx, w.stream)
	}
	t := &Tree{Name: it.Name, State: Restored, temp: temp}
	var damage *narread.DamageError
	if errors.As(err, &damage) {
		t.State, t.Err = Damaged, err
		err = w.rescue(ctx, t)
	}
	t.Files, t.LeftOut = w.files, w.leftOut
	return t, err
}

// compare looks at a tree that has its name already.
func (d *Dir) compare(ctx context.Context, it Item) (*Tree, error) {
	w := &writer{dir: d, it: &it, name: it.Name, compare: true}
	t := &Tree{Name: it.Name, State: Kept}
	err := w.pass(ctx, w.stream)
	var differs *differsError
	var extra *extraError
	var damage *narread.DamageError
	switch {
	case errors.As(err, &differs), errors.As(err, &extra):
		t.State, t.Err = Differing, err
		return t, nil
	case errors.As(err, &damage):
		t.State, t.Err = Damaged, err
		return t, nil
	}
	t.Files, t.LeftOut = w.files, w.leftOut
	return t, err
}

// maxLost is how many lost files of an archive are named.
const maxLost = 20

// rescue restores the files of a damaged archive of which every byte can be
// read and passes a checksum, and drops the others.
func (w *writer) rescue(ctx context.Context, t *Tree) error {
	first := t.Err
	if err := removeAll(w.dir.root, w.name); err != nil {
		return err
	}
	list := w.it.Archive.Listing
	if w.it.Listing != nil {
		list = w.it.Listing
	}
	listing, err := list()
	if err != nil || !w.it.Archive.RandomAccess() || noBlock(first) {
		t.temp = "" // nothing of it can be trusted
		w.files, w.leftOut = nil, nil
		return ctx.Err()
	}
	var lost []error
	err = w.pass(ctx, func(ctx context.Context) error { return w.saved(ctx, listing, &lost) })
	if more := len(lost) - maxLost; more > 0 {
		lost = append(lost[:maxLost], fmt.Errorf("and %d more files are lost", more))
	}
	if len(lost) > 0 { // or all could be read now
		t.Err = errors.Join(lost...)
	}
	return err
}

// noBlock reports whether it is the whole archive that is wrong.
func noBlock(err error) bool {
	var damage *narread.DamageError
	return errors.As(err, &damage) && damage.Block < 0
}

// tempName is the same for the same item, so that the next run finds it.
func tempName(it Item) string {
	kind := "raw"
	if it.Relink != nil {
		kind = "relative"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s", it.Name, it.NarHash, it.Path, kind))
	return disk.TempPrefix + hex.EncodeToString(sum[:12]) + disk.TempSuffix
}

// stream gives all nodes of the item to w in the order of the archive, and
// verifies the archive's NarHash.
func (w *writer) stream(ctx context.Context) error {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := w.it.Archive.WriteTo(pw)
		pw.CloseWithError(err)
		done <- err
	}()
	err := w.nodes(ctx, pr)
	var format *nar.FormatError
	if err == nil || errors.As(err, &format) {
		io.Copy(io.Discard, pr) // its error is that of WriteTo
	}
	pr.CloseWithError(errStopped)
	if readErr := <-done; readErr != nil && !errors.Is(readErr, errStopped) {
		return readErr // the cause, whatever the parser made of it
	}
	if format != nil { // what was archived, and yet no NAR
		return &narread.DamageError{File: w.it.Name, Block: -1, Offset: -1, Err: err}
	}
	return err
}

var errStopped = errors.New("stopped")
