package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
)

// CopyDumps brings the dumps that from has into the backup in dir, those that it
// has not yet, and returns their names. Each is verified when it is copied; one
// that is damaged is an error, and does not keep the others.
func CopyDumps(ctx context.Context, dir string, from *Backup, o lock.Options) (copied []string, err error) {
	return copyDumps(ctx, disk.OS{}, dir, from, o)
}

func copyDumps(ctx context.Context, fsys disk.FS, dir string, from *Backup, o lock.Options) (copied []string, err error) {
	dumps, err := readDumps(from.Path(layout.DumpsDir))
	if err != nil || len(dumps) == 0 {
		return nil, err
	}
	lock, err := lock.Take(ctx, dir, lock.Writing, o)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	a := &dumpAdder{fsys: fsys, dir: filepath.Join(dir, layout.DumpsDir)}
	if err := disk.MkdirAll(a.fsys, dir, a.dir); err != nil {
		return nil, fmt.Errorf("copy dumps: %w", err)
	}
	var failed error
	for _, d := range dumps {
		name := filepath.Base(d.File)
		if _, err := os.Lstat(filepath.Join(a.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := a.copy(ctx, d); err != nil {
			failed = errors.Join(failed, fmt.Errorf("copy dump %s: %w", name, err))
			continue
		}
		copied = append(copied, name)
	}
	return copied, failed
}

// copy copies a dump of another backup, and what is known of it.
func (a *dumpAdder) copy(ctx context.Context, d *Dump) error {
	temp, err := a.copyFile(ctx, d.File)
	if err != nil {
		return err
	}
	text, err := d.open(temp)
	if err == nil {
		_, err = io.Copy(io.Discard, text)
		err = errors.Join(err, text.Close())
	}
	of := *d
	of.File = filepath.Join(a.dir, filepath.Base(d.File))
	if err == nil && d.Version != 0 {
		err = (&dumpAdder{fsys: a.fsys, dump: &of}).describe()
	}
	if err != nil {
		return errors.Join(err, a.fsys.Remove(temp))
	}
	if err := a.fsys.Rename(temp, of.File); err != nil {
		return errors.Join(err, a.fsys.Remove(temp), a.fsys.Remove(of.File+dumpInfoExt))
	}
	return a.fsys.SyncDir(a.dir)
}

// copyFile copies a file to a temporary one, durably.
func (a *dumpAdder) copyFile(ctx context.Context, name string) (temp string, err error) {
	in, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := a.createTemp()
	if err != nil {
		return "", err
	}
	_, err = io.Copy(writerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return out.Write(p)
	}), in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return "", errors.Join(err, a.fsys.Remove(out.Name()))
	}
	return out.Name(), nil
}

// createTemp makes a file that only its owner may read, unlike all else in a
// backup: a dump has the hashes of passwords.
func (a *dumpAdder) createTemp() (disk.File, error) {
	f, err := a.fsys.CreateTemp(a.dir)
	if err != nil {
		return nil, err
	}
	// A medium without modes refuses.
	err = os.Chmod(f.Name(), 0o600)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(err, f.Close(), a.fsys.Remove(f.Name()))
	}
	return f, nil
}
