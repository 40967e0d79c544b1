package backup

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A packer is a Store that has NAR files: a CacheStore, or what embeds one.
type packer interface {
	packed(storepath.Path) (*packedNAR, error)
}

// takeOver copies the NAR file of a store path as it lies in another cache, if
// the store has one that is to be taken over; else it returns false. What was
// written is read again and has to be the NAR that the narinfo promises.
func (a *archiver) takeOver(ctx context.Context, j *job) (bool, error) {
	store, ok := a.store.(packer)
	if !ok || a.repack {
		return false, nil
	}
	packed, err := store.packed(j.info.Path)
	if err != nil || packed == nil {
		return false, err
	}
	defer packed.Close()
	file, err := a.fsys.CreateTemp(a.backup.cachePath(bincache.NARDir))
	if err != nil {
		return false, fmt.Errorf("archive %s: %w", j.info.Path, err)
	}
	j.temp = &tempNAR{file: file}
	fileSum := newSum()
	limit := maxPacked(j.info.NarSize)
	if _, err := io.Copy(Interruptible(ctx, io.MultiWriter(file, fileSum)), io.LimitReader(packed, limit+1)); err != nil {
		return false, fmt.Errorf("archive %s: %w", j.info.Path, err)
	}
	if fileSum.size > limit {
		err := fmt.Errorf("is larger than the NAR of %d bytes that its narinfo promises could be packed", j.info.NarSize)
		return false, &bincache.DamageError{File: packed.name, Err: err}
	}
	if err := packed.check(fileSum); err != nil {
		return false, err
	}
	j.temp.narFile = narFile{
		Compression: packed.compression,
		FileHash:    fileSum.sum(), FileSize: fileSum.size,
		NarHash: j.info.NarHash, NarSize: j.info.NarSize,
	}
	j.temp.URL = path.Join(bincache.NARDir, j.temp.FileHash.Nix32()+narExtension(packed.compression))
	return true, a.verifyCopy(ctx, j, packed.name)
}

// maxPacked bounds the NAR files that are copied, in bytes: no compressor makes a
// NAR larger by as much. A file without end shall not fill the disk.
func maxPacked(narSize int64) int64 { return narSize + narSize/8 + 1<<20 }

// verifyCopy reads the NAR in the temporary file of a job, and makes its
// listing. Errors name the file that it is a copy of.
func (a *archiver) verifyCopy(ctx context.Context, j *job, name string) error {
	f, err := os.Open(j.temp.file.Name())
	if err != nil {
		return err
	}
	archive, err := narread.Open(f, j.temp.FileSize, narread.Options{
		Name: name, Compression: j.temp.Compression, NarSize: j.temp.NarSize, NarHash: j.temp.NarHash,
	})
	if err != nil {
		f.Close()
		return err
	}
	defer archive.Close()
	listing, warnings, err := unpackNAR(ctx, a.progress, archive, j.info.Path.In(a.store.Dir()))
	if err != nil {
		return err
	}
	j.warnings = warnings
	j.listing, err = listingJSON(listing)
	return err
}

// A packedNAR is a NAR file of another cache.
type packedNAR struct {
	*os.File
	name        string
	compression string
	fileHash    string // as its narinfo has it, "" if it has none
}

// check compares what was read with what the narinfo says of the file.
func (p *packedNAR) check(read *sum) error {
	want, err := narinfo.ParseHash(p.fileHash)
	if err != nil || read.sum() == want {
		return nil // absent, or of a kind that Nix would not look at either
	}
	return &bincache.DamageError{File: p.name, Err: fmt.Errorf("FileHash is %v, its narinfo says %v", read.sum(), want)}
}

// narExtension is how Nix ends the names of NAR files (src/libstore's
// binary-cache-store.cc).
func narExtension(compression string) string {
	switch compression {
	case "xz", "br", "lz4", "lzip":
		return ".nar." + compression
	case "bzip2":
		return ".nar.bz2"
	case "zstd":
		return ".nar.zst"
	}
	return ".nar"
}
