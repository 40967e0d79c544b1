package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

// A content is a NAR file of the backup that was read whole and has the NarHash
// that was looked for. In a dry run it may not be there yet.
type content struct {
	narFile narFile
	listing []byte // the .ls file, nil when there cannot be one
	exact   bool   // it is, byte by byte, what the account says of its NAR file
}

// A readKey is a NAR file and what was expected of it.
type readKey struct {
	url, compression, fileHash string
	narHash                    narinfo.Hash
}

// A narReading is what came of reading a NAR file of the backup.
type narReading struct {
	narFile narFile // what it is
	listing []byte
	exact   bool  // FileHash and FileSize are right, too
	err     error // it is not the NAR
}

// readNAR reads the NAR file of a narinfo whole, once.
func (r *repairer) readNAR(ctx context.Context, info *narinfo.NarInfo) (*narReading, error) {
	key := readKey{info.URL, info.Compression, info.FileHash, info.NarHash}
	if done := r.read[key]; done != nil {
		return done, nil
	}
	done := new(narReading)
	done.err = done.run(ctx, r.b.Cache, info)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if done.err != nil {
		if err := r.b.Cache.Present(); err != nil {
			return nil, err
		}
	}
	r.read[key] = done
	return done, nil
}

func (d *narReading) run(ctx context.Context, cache *bincache.Cache, info *narinfo.NarInfo) error {
	f, _, err := cache.OpenFile(info.URL)
	if err != nil {
		return err
	}
	defer f.Close()
	file := newSum()
	digest, hashErr := narinfo.ParseDigest(info.FileHash)
	w := io.Writer(file)
	d.exact = hashErr == nil
	if d.exact {
		h := digest.New()
		w = io.MultiWriter(file, h)
		defer func() { d.exact = d.exact && digest.Is(h) }()
	}
	if _, err := io.Copy(Interruptible(ctx, w), f); err != nil {
		return err
	}
	d.exact = (d.exact || info.FileHash == "") && (info.FileSize == 0 || info.FileSize == file.size)
	archive, err := cache.ArchiveOnce(info)
	if err != nil {
		return err
	}
	defer archive.Close()
	listing, _, err := unpackNAR(ctx, io.Discard, archive, "")
	if err != nil {
		return err
	}
	d.narFile = narFile{
		URL: info.URL, Compression: archive.Compression(), FileHash: file.sum(), FileSize: file.size,
		NarHash: info.NarHash, NarSize: info.NarSize,
	}
	d.listing, err = listingJSON(listing)
	return err
}

// A notedFS remembers what went wrong with writing: that is no fault of the
// source from which was read.
type notedFS struct {
	disk.FS
	err error
}

func (n *notedFS) note(err error) error {
	if n.err == nil {
		n.err = err
	}
	return err
}

// CreateTemp implements disk.FS.
func (n *notedFS) CreateTemp(dir string) (disk.File, error) {
	f, err := n.FS.CreateTemp(dir)
	if err != nil {
		return nil, n.note(err)
	}
	return &notedFile{f, n}, nil
}

type notedFile struct {
	disk.File
	fs *notedFS
}

func (f *notedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.note(err)
}

// A search looks for the NAR of a store path.
type search struct {
	*repairer
	acc        *account
	why        []string // nothing was found
	unreadable bool     // something may be all right, and could not be read
}

// run returns the first content that is right; nil if there is none. What is
// byte by byte the lost file comes first. An error ends the repair.
func (s *search) run(ctx context.Context) (*content, error) {
	for _, look := range []func(context.Context) (*content, error){
		s.inPlace, s.known, s.identical, s.store, s.twin, s.elsewhere, s.otherFile,
	} {
		c, err := look(ctx)
		if s.fsys.err != nil {
			err = s.fsys.err
		}
		if err = errors.Join(ctx.Err(), err); err != nil {
			return nil, err
		}
		if c != nil {
			s.whole[s.acc.info.NarHash] = c
			return c, nil
		}
	}
	return nil, nil
}

// fail notes why a source has it not.
func (s *search) fail(by string, err error) {
	s.why = append(s.why, fmt.Sprintf("%s: %v", by, err))
}

// inPlace looks at the NAR file that the account names.
func (s *search) inPlace(ctx context.Context) (*content, error) {
	if !s.acc.own || bincache.CheckURL(s.acc.info.URL) != nil {
		return nil, nil
	}
	d, err := s.readNAR(ctx, s.acc.info)
	if err != nil {
		return nil, err
	}
	switch {
	case d.err == nil && d.exact && d.narFile.Compression == s.acc.info.Compression:
		return &content{d.narFile, d.listing, true}, nil
	case d.err != nil:
		s.fail("its NAR file", d.err)
		s.unreadable = s.unreadable || layout.Unreadable(d.err)
	}
	return nil, nil
}

// known is what was found before for the same NAR.
func (s *search) known(context.Context) (*content, error) {
	c := s.whole[s.acc.info.NarHash]
	if c == nil || c.narFile.NarSize != s.acc.info.NarSize {
		return nil, nil
	}
	return &content{c.narFile, c.listing, s.same(c.narFile)}, nil
}

// same reports whether a NAR file is, byte by byte, the one of the account.
func (s *search) same(n narFile) bool {
	info := s.acc.info
	hash, err := narinfo.ParseHash(info.FileHash)
	return s.acc.own && err == nil && hash == n.FileHash && info.URL == n.URL && info.Compression == n.Compression &&
		(info.FileSize == 0 || info.FileSize == n.FileSize)
}

// identical looks for the same NAR file in other caches.
func (s *search) identical(ctx context.Context) (*content, error) {
	if !s.acc.own {
		return nil, nil
	}
	return s.fromCaches(ctx, true)
}

// elsewhere looks for the same NAR in other caches.
func (s *search) elsewhere(ctx context.Context) (*content, error) { return s.fromCaches(ctx, false) }

func (s *search) fromCaches(ctx context.Context, identical bool) (*content, error) {
	for _, from := range s.req.From {
		info, err := from.Cache.Lookup(s.acc.info.StorePath)
		if missing(err) {
			continue
		}
		if err == nil && info.NarHash != s.acc.info.NarHash {
			err = fmt.Errorf("has another content, with NarHash %s", info.NarHash)
		}
		if err != nil {
			if !identical {
				s.fail(from.dir, err)
			}
			continue
		}
		if identical && (info.FileHash == "" || info.FileHash != s.acc.info.FileHash) {
			continue
		}
		c, err := s.fetch(ctx, FromCache(from, identical))
		if err == nil {
			s.repaired(s.inCache(c.narFile.URL), s.acc.info.StorePath, from.dir)
			return c, nil
		}
		if ctx.Err() != nil || s.fsys.err != nil {
			return nil, err
		}
		s.fail(from.dir, err)
	}
	return nil, nil
}

// store looks into the local store.
func (s *search) store(ctx context.Context) (*content, error) {
	if s.req.Store == nil || s.req.Store.Dir() != s.acc.info.StoreDir {
		return nil, nil
	}
	there, err := s.inStore(ctx, s.acc.info.StorePath)
	if errors.As(err, new(*nixstore.InvalidPathsError)) {
		return nil, nil
	}
	if err != nil {
		s.fail("the Nix store", err)
		return nil, nil
	}
	if there.info.NarHash != s.acc.info.NarHash {
		s.fail(there.by, fmt.Errorf("has another content, with NarHash %s", there.info.NarHash))
		return nil, nil
	}
	c, err := s.fetch(ctx, s.req.Store)
	if err == nil {
		s.repaired(s.inCache(c.narFile.URL), s.acc.info.StorePath, there.by)
		return c, nil
	}
	s.fail(there.by, err)
	return nil, nil
}

// twin looks for the same NAR under another store path.
func (s *search) twin(ctx context.Context) (*content, error) {
	if s.twins == nil {
		hashes, err := s.b.Cache.Hashes()
		if err != nil {
			return nil, err
		}
		s.twins = make(map[narinfo.Hash][]string)
		err = s.b.Cache.Scan(ctx, hashes, func(info *narinfo.NarInfo) {
			s.twins[info.NarHash] = append(s.twins[info.NarHash], info.StorePath.Hash())
		}, func(*bincache.DamageError) {})
		if err != nil {
			return nil, err
		}
	}
	for _, hash := range s.twins[s.acc.info.NarHash] {
		info, err := s.b.Cache.NarInfo(hash)
		if err != nil || info.NarHash != s.acc.info.NarHash || info.NarSize != s.acc.info.NarSize {
			continue
		}
		d, err := s.readNAR(ctx, info)
		if err != nil {
			return nil, err
		}
		if d.err == nil && d.exact {
			return &content{d.narFile, d.listing, s.same(d.narFile)}, nil
		}
	}
	return nil, nil
}

// otherFile takes the NAR file that the account names although it is another
// one than that says, because the right NAR is in it.
func (s *search) otherFile(ctx context.Context) (*content, error) {
	if !s.acc.own || bincache.CheckURL(s.acc.info.URL) != nil {
		return nil, nil
	}
	d, err := s.readNAR(ctx, s.acc.info)
	if err != nil || d.err != nil {
		return nil, err
	}
	return &content{d.narFile, d.listing, false}, nil
}

// fetch writes the NAR file of the account out of a store, verified, into the
// backup. In a dry run it is only read.
func (s *search) fetch(ctx context.Context, from Store) (*content, error) {
	info := s.acc.info
	j := &job{info: nixstore.PathInfo{Path: info.StorePath, NarHash: info.NarHash, NarSize: info.NarSize}}
	if s.req.DryRun {
		return s.probe(ctx, from, j)
	}
	a := &archiver{fsys: s.fsys, backup: s.b, store: from, progress: &s.req.Progress}
	compression, level := (&Request{}).pack(s.b.config)
	if s.acc.own && info.Compression != compression && checkCompression(info.Compression, 0) == nil && info.Compression != "" {
		compression, level = info.Compression, compressionLevels[info.Compression].usual
	}
	var err error
	if a.packer, err = newPacker(compression, level); err != nil {
		return nil, err
	}
	if err := disk.MkdirAll(s.fsys, s.b.dir, s.b.cachePath(bincache.NARDir)); err != nil {
		return nil, s.fsys.note(err)
	}
	defer func() { s.fsys.note(a.discard([]*job{j})) }()
	taken, err := a.takeOver(ctx, j)
	if err == nil && !taken {
		if j.temp != nil {
			s.fsys.note(a.discard([]*job{j}))
		}
		err = a.dump(ctx, j)
	}
	if err != nil {
		return nil, err
	}
	if err := s.place(a, j); err != nil {
		return nil, s.fsys.note(err)
	}
	return &content{*j.content, j.listing, s.same(*j.content)}, nil
}

// place gives a NAR file its name: that of the account, if it is the same file.
// What is there under this name is damaged.
func (s *search) place(a *archiver, j *job) error {
	url := s.acc.info.URL
	hash, err := narinfo.ParseHash(s.acc.info.FileHash)
	if s.acc.own && err == nil && hash == j.temp.FileHash && bincache.CheckURL(url) == nil && layout.Plain(s.b.dir, filepath.Join(layout.CacheDir, url)) == nil {
		j.temp.URL = url
	}
	if st, err := s.b.Cache.Lstat(j.temp.URL); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a directory: move it away", s.b.cachePath(j.temp.URL))
	}
	if _, err := a.nameNARs([]*job{j}); err != nil {
		return err
	}
	for key := range s.read {
		if key.url == j.content.URL {
			delete(s.read, key)
		}
	}
	return s.fsys.SyncDir(s.b.cachePath(path.Dir(j.content.URL)))
}

// probe finds out whether fetch would succeed.
func (s *search) probe(ctx context.Context, from Store, j *job) (*content, error) {
	nar := newSum()
	listing, _, err := from.Dump(ctx, io.MultiWriter(nar, &s.req.Progress), j.info.Path)
	if err != nil {
		return nil, err
	}
	if nar.sum() != j.info.NarHash || nar.size != j.info.NarSize {
		return nil, &ChangedError{Path: from.RealPath(j.info.Path), Recorded: j.info.NarHash, Found: nar.sum()}
	}
	c := &content{narFile: narFile{URL: s.acc.info.URL, NarHash: j.info.NarHash, NarSize: j.info.NarSize}, exact: s.acc.own}
	if !s.acc.own {
		c.narFile.URL = path.Join(bincache.NARDir, "?")
	}
	c.listing, err = listingJSON(listing)
	return c, err
}
