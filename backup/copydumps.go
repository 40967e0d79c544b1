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

// CopyDumps brings the dumps that from has, also those made by hand, into the
// backup in dir, those that it has not yet, and returns their names. The backup is
// made if it is not there. Each dump is verified when it is copied; one that is
// damaged is an error, and does not keep the others.
func CopyDumps(ctx context.Context, dir string, from *Backup, o lock.Options) (copied []string, err error) {
	return copyDumps(ctx, disk.OS{}, dir, from, o)
}

func copyDumps(ctx context.Context, fsys disk.FS, dir string, from *Backup, o lock.Options) (copied []string, err error) {
	dumps, err := from.Dumps()
	if err != nil || len(dumps) == 0 {
		return nil, err
	}
	if err := createEmpty(ctx, fsys, dir, from.Cache.StoreDir(), from.config, o); err != nil {
		return nil, fmt.Errorf("copy dumps: %w", err)
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
	there := make(map[string]bool) // directories with dumps that are there already
	for _, d := range dumps {
		name := filepath.Base(d.File)
		target := filepath.Join(a.dir, name)
		if filepath.Dir(d.File) == from.Dir() { // made by hand
			target = filepath.Join(dir, name)
		}
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			there[filepath.Dir(target)] = true
			continue
		}
		if err := a.copy(ctx, d, target); err != nil {
			failed = errors.Join(failed, fmt.Errorf("copy dump %s: %w", name, err))
			continue
		}
		copied = append(copied, name)
	}
	// Who copied those may have been stopped before their names were durable.
	return copied, errors.Join(failed, disk.SyncDirs(fsys, there, nil))
}

// copy copies a dump of another backup, and what is known of it.
func (a *dumpAdder) copy(ctx context.Context, d *Dump, target string) error {
	temp, err := a.copyFile(ctx, d.File)
	if err != nil {
		return err
	}
	text, err := d.open(temp)
	if err == nil {
		_, err = io.Copy(io.Discard, text)
		err = errors.Join(err, text.Close())
	}
	described := d.Version != 0
	if err == nil && described {
		of := *d
		of.File = target
		err = (&dumpAdder{fsys: a.fsys, dump: &of}).describe()
	}
	if err != nil {
		return errors.Join(err, a.fsys.Remove(temp))
	}
	if err := a.fsys.Rename(temp, target); err != nil {
		err = errors.Join(err, a.fsys.Remove(temp))
		if described {
			err = errors.Join(err, a.fsys.Remove(target+dumpInfoExt))
		}
		return err
	}
	return a.fsys.SyncDir(filepath.Dir(target))
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
