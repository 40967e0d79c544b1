package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/storepath"
)

// logCompressions says how a build log is compressed, by the end of its name.
var logCompressions = map[string]string{".bz2": "bzip2", ".zst": "zstd", ".xz": "xz", ".gz": "gzip"}

// archiveLogs brings the logs of the derivations that built the release into the
// cache, where Nix looks for them: as log/<derivation>, not compressed. Logs that
// are there already stay. A log that cannot be had is a warning: the release is
// complete without it.
func (r *runner) archiveLogs(ctx context.Context, b *Backup) error {
	logs := r.logs()
	if len(logs) == 0 {
		return nil
	}
	var (
		mu       sync.Mutex
		warnings []string // guarded by mu
	)
	var g errgroup.Group
	g.SetLimit(parallelSyncs)
	for _, drv := range sortedKeys(logs) {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			cut, err := r.archiveLog(b, drv, logs[drv], maxLog)
			if errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("write build log: %w", err)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				warnings = append(warnings, fmt.Sprintf("build log of %s is left out: %v", drv, err))
			case cut:
				warnings = append(warnings, fmt.Sprintf("build log of %s is cut off after %d bytes: %s has more", drv, maxLog, logs[drv]))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.Sort(warnings)
	r.result.Warnings = append(r.result.Warnings, warnings...)
	return r.fsys.SyncDir(b.cachePath(bincache.LogDir))
}

// logs returns the logs that belong to the release, as gc sees it too: of the
// request's, and of those that the cache has from which it is taken.
func (r *runner) logs() map[storepath.Path]string {
	logs := make(map[storepath.Path]string)
	add := func(drv storepath.Path) {
		if file, ok := r.req.Logs[drv]; ok {
			logs[drv] = file
		} else if file := r.sourceLog(drv); file != "" {
			logs[drv] = file
		}
	}
	for _, info := range r.infos {
		add(info.Path)
		add(info.Deriver)
	}
	for _, root := range r.newRecord().Roots {
		add(root.DrvPath)
	}
	return logs
}

// A logStore is a Store that has build logs: a CacheStore, or what embeds one.
type logStore interface {
	logFile(drv storepath.Path) string
}

// logFile returns the log of a derivation in the cache, or "".
func (s *CacheStore) logFile(drv storepath.Path) string {
	file := s.source.cachePath(bincache.LogDir, string(drv))
	if _, err := os.Lstat(file); err != nil {
		return ""
	}
	return file
}

// sourceLog returns the log of a derivation in the cache that the release is
// taken from, or "".
func (r *runner) sourceLog(drv storepath.Path) string {
	from, ok := r.store.(logStore)
	if !ok || !drv.IsDerivation() {
		return ""
	}
	return from.logFile(drv)
}

// archiveLog archives a log, up to a limit in bytes, and reports whether it has
// more.
func (r *runner) archiveLog(b *Backup, drv storepath.Path, from string, limit int64) (cut bool, err error) {
	target := b.cachePath(bincache.LogDir, string(drv))
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		return false, err // nil if it is there
	}
	// Not to wait for a pipe in place of a file, nor to archive what a symlink in a
	// foreign cache leads to.
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return false, err
	}
	if !st.Mode().IsRegular() {
		return false, fmt.Errorf("%s is no file", from)
	}
	compression, ok := logCompressions[filepath.Ext(from)]
	if !ok {
		compression = "none"
	}
	content, err := narread.Decompress(in, st.Size(), from, compression)
	if err != nil {
		return false, err
	}
	defer content.Close()
	if err := r.writeLog(target, io.LimitReader(content, limit)); err != nil {
		return false, err
	}
	n, _ := io.ReadFull(content, make([]byte, 1))
	return n > 0, nil
}

// maxLog is where a build log is cut off, in bytes: Hydra itself ends builds
// that write far less, but a compressed file may hold anything.
const maxLog = 1 << 30

func (r *runner) writeLog(target string, content io.Reader) error {
	f, err := r.fsys.CreateTemp(filepath.Dir(target))
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{f}, content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = r.fsys.Rename(f.Name(), target)
	}
	if err != nil {
		return errors.Join(err, r.fsys.Remove(f.Name()))
	}
	return nil
}
