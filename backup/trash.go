package backup

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
)

// The trash holds a directory for each forget and gc that took something out:
//
//	trash/20261124T203015.123Z-ab12/...          at the path that it had in the backup
//	trash/20261124T203015.123Z-ab12.purge/...    the same, being deleted
//	trash/20261124T203015.123Z-ab12/quarantine/  what Repair took out, see there
//
// so that everything can be put back with mv, and is by Unforget and by a
// backup that needs it. The name says when that was, in UTC.
const (
	trashDir    = "trash"
	stampLayout = "20060102T150405.000Z"
	purgeSuffix = ".purge"
)

// A taker takes files out of the backup: into a directory of the trash, or for
// good.
type taker struct {
	fsys  disk.FS
	b     *Backup
	now   time.Time
	purge bool   // for good
	below string // where in the directory of the trash; "": as in the backup

	dir  string          // in the trash, "" before the first
	made map[string]bool // directories in the trash that are there, durably
}

// take takes out files and directories, given by their names relative to the
// backup. When it returns they are gone, durably. What is not there any more is
// passed over.
func (t *taker) take(names []string) error {
	sources := make(map[string]bool)
	targets := make(map[string]bool)
	for _, name := range names {
		from := t.b.path(name)
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
	return syncDirs(t.fsys, targets, sources)
}

// syncDirs makes moves durable: the new names before the old ones go, so that
// at worst there are both.
func syncDirs(fsys disk.FS, targets, sources map[string]bool) error {
	for _, dir := range append(sortedKeys(targets), sortedKeys(sources)...) {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// one takes out one file or directory; to is where it is now, "" for nowhere.
func (t *taker) one(from, name string) (to string, err error) {
	if t.purge {
		_, err := removeTree(t.fsys, from)
		return "", err
	}
	to, err = t.place(name)
	if err != nil {
		return "", err
	}
	err = t.fsys.Rename(from, to)
	if errors.Is(err, syscall.EXDEV) {
		err = fmt.Errorf("%w: %s and the trash are on different file systems; --now deletes without the trash", err, from)
	}
	return to, err
}

// place returns where in the trash a file goes, and makes the directory.
func (t *taker) place(name string) (string, error) {
	t.begin()
	to := t.b.path(t.dir, t.below, name)
	if dir := filepath.Dir(to); !t.made[dir] {
		err := disk.MkdirAll(t.fsys, t.b.dir, dir)
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: not even for a directory in the trash; \"narvault gc --now\" needs no room", err)
		}
		if err != nil {
			return "", err
		}
		t.made[dir] = true
	}
	return to, nil
}

// begin chooses the directory in the trash.
func (t *taker) begin() {
	if t.dir == "" {
		t.dir = filepath.Join(trashDir, t.now.UTC().Format(stampLayout)+"-"+strings.ToLower(rand.Text()[:6]))
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
		names, err := readNames(name)
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

// A batch is a directory of the trash.
type batch struct {
	name string
	time time.Time
}

// batches returns what is in the trash, the newest first, and what is being
// deleted.
func (b *Backup) batches() (kept []batch, purged []string, err error) {
	st, err := os.Lstat(b.path(trashDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no directory", b.path(trashDir))
	}
	var names []string
	if err == nil {
		names, err = readNames(b.path(trashDir))
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
			kept = append(kept, batch{name, at})
		}
	}
	slices.SortFunc(kept, func(x, y batch) int {
		if c := y.time.Compare(x.time); c != 0 {
			return c
		}
		return strings.Compare(y.name, x.name)
	})
	return kept, purged, nil
}

// expire gives up what has been in the trash since before, or longer: nobody
// brings it back any more. It is called with the excluding lock; purge does the
// rest.
func expire(fsys disk.FS, b *Backup, before time.Time) error {
	kept, _, err := b.batches()
	if err != nil {
		return err
	}
	for _, batch := range kept {
		if batch.time.After(before) {
			continue
		}
		name := b.path(trashDir, batch.name)
		if err := fsys.Rename(name, name+purgeSuffix); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return fsys.SyncDir(b.path(trashDir))
}

// purgeTrash deletes what expire gave up, and returns how many bytes that were.
// It needs no lock: nobody else touches it, except to delete it as well.
func purgeTrash(ctx context.Context, fsys disk.FS, b *Backup) (freed int64, err error) {
	_, purged, err := b.batches()
	if err != nil {
		return 0, err
	}
	for _, name := range purged {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		n, err := removeTree(fsys, b.path(trashDir, name))
		if freed += n; err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, fmt.Errorf("empty trash: %w", err)
		}
	}
	return freed, nil
}
