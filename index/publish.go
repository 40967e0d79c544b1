package index

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/narread/narinfo"
)

// newWriter begins the database of the new generation.
func (b *builder) newWriter() (*storeWriter, error) {
	dir := filepath.Join(b.temp, recordsDir)
	if err := b.disk.Mkdir(dir); err != nil {
		return nil, err
	}
	return newStoreWriter(dir)
}

// complete writes what is missing in the new generation, and makes it durable.
func (b *builder) complete(ctx context.Context) error {
	if err := b.writer.finish(); err != nil {
		return err
	}
	if err := b.writeNames(); err != nil {
		return err
	}
	if err := b.dropUnused(); err != nil {
		return err
	}
	files, err := listFiles(b.temp)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := b.disk.Sync(filepath.Join(b.temp, name)); err != nil {
			return err
		}
		f, err := describe(ctx, b.temp, name)
		if err != nil {
			return err
		}
		b.manifest.Files = append(b.manifest.Files, f)
		b.stats.Size += f.Size
	}
	return nil
}

// writeNames writes the names, and the references between them.
func (b *builder) writeNames() error {
	order := make([]int, len(b.all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return strings.Compare(string(b.all[i].Path), string(b.all[j].Path)) })
	sorted := make([]Entry, len(order))
	for i, at := range order {
		sorted[i] = b.all[at]
	}
	table, err := encodeNames(sorted)
	if err != nil {
		return err
	}
	b.manifest.Paths, b.manifest.NamesSize = len(sorted), len(table)
	if err := b.writePacked(namesFile, table); err != nil {
		return err
	}
	table = b.refs.encode(sorted, order)
	b.manifest.ReferencesSize = len(table)
	return b.writePacked(referencesFile, table)
}

func (b *builder) writePacked(name string, table []byte) error {
	return b.disk.Write(filepath.Join(b.temp, name), b.codec.pack.Pack(nil, table))
}

// dropUnused removes what Badger makes and does not need for reading: 1 MiB of
// zeros, an empty value log, keys of an encryption that is not there.
func (b *builder) dropUnused() error {
	files, err := listFiles(b.temp)
	if err != nil {
		return err
	}
	for _, name := range files {
		base := filepath.Base(name)
		if base == namesFile || base == referencesFile || base == "MANIFEST" || strings.HasSuffix(base, ".sst") {
			continue
		}
		if err := b.disk.RemoveAll(filepath.Join(b.temp, name)); err != nil {
			return err
		}
	}
	return nil
}

// publish makes the new generation the newest, and removes those before it that
// nobody holds.
func (b *builder) publish() error {
	b.manifest.Entries = b.stats.Entries
	text, err := b.manifest.encode()
	if err != nil {
		return err
	}
	if err := b.disk.Write(filepath.Join(b.temp, manifestFile), text); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(b.temp, recordsDir), b.temp} {
		if err := b.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	p := pointer{gen: b.manifest.Generation, sum: narinfo.Hash(sha256.Sum256(text))}
	if err := b.disk.Rename(b.temp, strings.TrimSuffix(b.temp, tempSuffix)); err != nil {
		return err
	}
	b.writer.abandon()
	b.writer = nil
	if err := b.disk.SyncDir(b.dir); err != nil {
		return err
	}
	if err := b.setCurrent(p); err != nil {
		return err
	}
	b.stats.Generation = p.gen
	if b.prev != nil {
		b.prev.close()
		b.prev = nil
	}
	_, err = b.clean(p, true)
	return err
}

// setCurrent makes CURRENT name a generation that is durable.
func (b *builder) setCurrent(p pointer) error {
	name := filepath.Join(b.dir, currentFile)
	if err := b.disk.Write(name+tempSuffix, []byte(p.String())); err != nil {
		return err
	}
	if err := b.disk.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	return b.disk.SyncDir(b.dir)
}

// space looks from time to time whether there is some left on a file system.
type space struct {
	left int64 // bytes that may be written before it looks again
}

const (
	spaceStep = 8 << 20
	// spareSpace is more than Badger may have written to its maps and not yet to
	// the disk: two tables and what it keeps for a transaction.
	spareSpace = 64 << 20
)

// check is an error when n more bytes might not fit.
func (s *space) check(dir string, n int) error {
	if s.left -= int64(n); s.left > 0 {
		return nil
	}
	s.left = spaceStep
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(min(st.Bavail, 1<<40)) * int64(st.Bsize); free < spareSpace && st.Bavail < st.Blocks {
		return fmt.Errorf("%d MiB free on %s, %d MiB are needed: %w", free>>20, dir, spareSpace>>20, unix.ENOSPC)
	}
	return nil
}
