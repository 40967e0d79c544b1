// Package trash takes files out of a backup and brings them back. The trash
// holds a directory for each forget and gc that took something out, and for what
// a repair quarantined:
//
//	trash/20261124T203015.123Z-ab12/...          at the path that it had in the backup
//	trash/20261124T203015.123Z-ab12.purge/...    the same, being deleted
//	trash/20261124T203015.123Z-ab12/quarantine/  what could not be repaired
//
// so that everything can be put back with mv, and is by whoever needs it again
// (BringBack). The name says when that was, in UTC. What goes, and when it is
// deleted, is decided elsewhere: by backup/gc and by package backup.
package trash

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
)

// How the directories in the trash are called.
const (
	stampLayout = "20060102T150405.000Z"
	purgeSuffix = ".purge"
)

// A Taker takes files out of a backup: into a new directory of the trash, or for
// good. It is for one goroutine.
type Taker struct {
	FS    disk.FS
	Dir   string    // the backup
	Now   time.Time // names the directory in the trash
	Purge bool      // take out for good
	Below string    // where in the directory of the trash; "": as in the backup

	batch string          // the directory in the trash, below the backup; "" before the first
	made  map[string]bool // directories in the trash that are there, durably
}

// Batch returns the directory in the trash that was begun, relative to the
// backup, "" if none was.
func (t *Taker) Batch() string { return t.batch }

// Take takes out files and directories, given by their names relative to the
// backup. When it returns they are gone, durably. What is not there any more is
// passed over.
func (t *Taker) Take(names []string) error {
	sources := make(map[string]bool)
	targets := make(map[string]bool)
	for _, name := range names {
		from := filepath.Join(t.Dir, name)
		to, err := t.one(from, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		sources[filepath.Dir(from)] = true
		if to != "" {
			targets[filepath.Dir(to)] = true
		}
	}
	return noRoom(disk.SyncDirs(t.FS, targets, sources))
}

// one takes out one file or directory; to is where it is now, "" for nowhere.
func (t *Taker) one(from, name string) (to string, err error) {
	if t.Purge {
		_, err := removeTree(t.FS, from)
		return "", err
	}
	to, err = t.Place(name)
	if err != nil {
		return "", err
	}
	err = t.FS.Rename(from, to)
	if errors.Is(err, syscall.EXDEV) {
		err = fmt.Errorf("%w: %s and the trash are on different file systems; --now deletes without the trash", err, from)
	}
	return to, noRoom(err)
}

// Drop takes out a directory for good, at once for whoever looks, and needs no
// room. What a crash leaves of it is a temporary directory of the backup.
func (t *Taker) Drop(name string) error {
	from := filepath.Join(t.Dir, name)
	to := filepath.Join(t.Dir, disk.TempPrefix+strings.ToLower(rand.Text())+disk.TempSuffix)
	if err := t.FS.Rename(from, to); err != nil {
		return err
	}
	if err := disk.SyncDirs(t.FS, map[string]bool{t.Dir: true}, map[string]bool{filepath.Dir(from): true}); err != nil {
		return err
	}
	_, err := removeTree(t.FS, to)
	return err
}

// NoRoom reports whether an error says that a disk, or somebody's part of it, is
// full.
func NoRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// noRoom says what to do about an error for which there is no room in the trash.
func noRoom(err error) error {
	if !NoRoom(err) {
		return err
	}
	return fmt.Errorf("%w: nothing more goes into the trash; with --now, forget and gc need no room, and \"narvault gc --now\" makes some", err)
}

// Place returns the path in the trash to which a file goes, whose name is relative
// to the backup, and makes the directory.
func (t *Taker) Place(name string) (string, error) {
	t.Begin()
	to := filepath.Join(t.Dir, t.batch, t.Below, name)
	if dir := filepath.Dir(to); !t.made[dir] {
		if err := disk.MkdirAll(t.FS, t.Dir, dir); err != nil {
			return "", noRoom(err)
		}
		t.made[dir] = true
	}
	return to, nil
}

// Begin chooses the directory in the trash; Take and Place do so as well.
func (t *Taker) Begin() {
	if t.batch == "" {
		t.batch = filepath.Join(layout.TrashDir, t.Now.UTC().Format(stampLayout)+"-"+strings.ToLower(rand.Text()[:6]))
		t.made = make(map[string]bool)
	}
}

// removeTree deletes a file or a directory with all that is in it, and returns
// how many bytes its regular files had. A symlink goes, what it leads to stays.
func removeTree(fsys disk.FS, name string) (freed int64, err error) {
	st, err := os.Lstat(name)
	if err != nil {
		return 0, err
	}
	if st.Mode().IsRegular() {
		freed = st.Size()
	}
	if st.IsDir() {
		names, err := disk.ReadNames(name)
		if err != nil {
			return 0, err
		}
		slices.Sort(names)
		for _, child := range names {
			n, err := removeTree(fsys, filepath.Join(name, child))
			if freed += n; err != nil && !errors.Is(err, fs.ErrNotExist) {
				return freed, err
			}
		}
	}
	return freed, fsys.Remove(name)
}

// A Batch is a directory of the trash.
type Batch struct {
	Name string
	Time time.Time // when it was begun
}

// List returns what is in the trash, the newest first, and what is being
// deleted.
func List(dir string) (kept []Batch, purged []string, err error) {
	st, err := os.Lstat(filepath.Join(dir, layout.TrashDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no directory", filepath.Join(dir, layout.TrashDir))
	}
	var names []string
	if err == nil {
		names, err = disk.ReadNames(filepath.Join(dir, layout.TrashDir))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list trash: %w", err)
	}
	for _, name := range names {
		stamp, _, _ := strings.Cut(name, "-")
		at, err := time.Parse(stampLayout, stamp)
		switch {
		case err != nil: // not ours
		case strings.HasSuffix(name, purgeSuffix):
			purged = append(purged, name)
		default:
			kept = append(kept, Batch{name, at})
		}
	}
	slices.SortFunc(kept, func(x, y Batch) int {
		if c := y.Time.Compare(x.Time); c != 0 {
			return c
		}
		return strings.Compare(y.Name, x.Name)
	})
	return kept, purged, nil
}

// Expire gives up what has been in the trash since before, or longer, but for the
// named batches: nobody brings it back any more. It is called with the excluding
// lock; Purge does the rest.
func Expire(fsys disk.FS, dir string, before time.Time, without ...string) error {
	kept, _, err := List(dir)
	if err != nil {
		return err
	}
	for _, batch := range kept {
		if batch.Time.After(before) || slices.Contains(without, batch.Name) {
			continue
		}
		name := filepath.Join(dir, layout.TrashDir, batch.Name)
		if err := fsys.Rename(name, name+purgeSuffix); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return fsys.SyncDir(filepath.Join(dir, layout.TrashDir))
}

// Purge deletes what Expire gave up, and returns how many bytes that were.
// It needs no lock: nobody else touches it, except to delete it as well.
func Purge(ctx context.Context, fsys disk.FS, dir string) (freed int64, err error) {
	_, purged, err := List(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range purged {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		n, err := removeTree(fsys, filepath.Join(dir, layout.TrashDir, name))
		if freed += n; err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, fmt.Errorf("empty trash: %w", err)
		}
	}
	return freed, nil
}
