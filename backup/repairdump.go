package backup

import (
	"context"
	"errors"
	"io"
	"path"
	"path/filepath"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
)

// mendDumps takes dumps of databases from other backups, where it is known what
// their text has to be.
func (r *repairer) mendDumps(ctx context.Context) error {
	for _, name := range r.req.Dumps {
		d := describedDump(r.b.Path(layout.DumpsDir, filepath.Base(name)))
		if d.SHA256 == "" || d.whole(ctx, d.File) {
			continue
		}
		for _, from := range r.req.From {
			file := from.Path(layout.DumpsDir, filepath.Base(name))
			if !disk.IsFile(file) || !d.whole(ctx, file) {
				continue
			}
			if err := r.putDump(ctx, d, file); err != nil {
				return err
			}
			r.repaired(path.Join(layout.DumpsDir, filepath.Base(name)), "", from.dir)
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// whole reports whether a file has the text of the dump.
func (d *Dump) whole(ctx context.Context, file string) bool {
	text, err := d.open(file)
	if err != nil {
		return false
	}
	_, err = io.Copy(Interruptible(ctx, io.Discard), text)
	return errors.Join(err, text.Close()) == nil
}

// putDump replaces a dump by a copy, which is verified again.
func (r *repairer) putDump(ctx context.Context, d *Dump, file string) error {
	if r.req.DryRun {
		return nil
	}
	a := &dumpAdder{fsys: r.fsys, dir: filepath.Dir(d.File)}
	temp, err := a.copyFile(ctx, file)
	if err != nil {
		return err
	}
	if !d.whole(ctx, temp) {
		err = errors.Join(ctx.Err(), errors.New("the copy of dump "+file+" is not what was read before: try again"))
		return errors.Join(err, r.fsys.Remove(temp))
	}
	if err := r.fsys.Rename(temp, d.File); err != nil {
		return errors.Join(err, r.fsys.Remove(temp))
	}
	return r.fsys.SyncDir(a.dir)
}
