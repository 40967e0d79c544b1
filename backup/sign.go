package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A SignRequest asks for signatures in a backup.
type SignRequest struct {
	Keys     []SignKey
	Releases []ReleaseID // whose store paths are signed; none: all of the backup
	Cache    bincache.Options
	Lock     lock.Options
}

// A SignResult says what Sign did.
type SignResult struct {
	Version  int      `json:"version"`
	Paths    int      `json:"paths"`  // store paths that were looked at
	Signed   int      `json:"signed"` // store paths that got a signature
	Keys     []string `json:"keys"`   // the public keys
	Warnings []string `json:"warnings,omitempty"`
}

// Sign adds signatures to the narinfos of a backup; those that are there, and
// fields that narvault does not know, stay. Each narinfo is replaced at once, so
// that at every instant, and after a crash, the old one or the new one is
// there. The public keys are noted in README.txt. Damaged narinfos are joined
// into damage, and all others signed.
func Sign(ctx context.Context, dir string, req SignRequest) (r *SignResult, damage, err error) {
	r, damage, err = sign(ctx, disk.OS{}, dir, req)
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	if r.Signed > 0 {
		if warning := PublishIndex(ctx, dir, req.Cache); warning != "" {
			r.Warnings = append(r.Warnings, warning)
		}
	}
	return r, damage, nil
}

func sign(ctx context.Context, fsys disk.FS, dir string, req SignRequest) (*SignResult, error, error) {
	b, err := Open(dir, req.Cache)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	if b.foreign {
		return nil, nil, fmt.Errorf("%s is a binary cache that another program keeps, and no backup: nothing is written to it", dir)
	}
	held, err := lock.Take(ctx, dir, lock.Writing, req.Lock)
	if err != nil {
		return nil, nil, err
	}
	defer held.Close()
	paths, damage, err := b.toSign(ctx, req.Releases)
	if err != nil {
		return nil, nil, err
	}
	s := &signer{fsys: fsys, backup: b, lock: held, keys: req.Keys}
	more, err := s.sign(ctx, paths)
	if err != nil {
		return nil, nil, err
	}
	r := &SignResult{Version: FormatVersion, Paths: len(paths), Signed: s.signed}
	for _, k := range req.Keys {
		r.Keys = append(r.Keys, k.Public())
	}
	return r, errors.Join(damage, more), nil
}

// toSign returns the store paths of releases, or all.
func (b *Backup) toSign(ctx context.Context, releases []ReleaseID) (paths []storepath.Path, damage, err error) {
	if len(releases) == 0 {
		return b.Paths(ctx)
	}
	for _, id := range releases {
		closure, err := b.Closure(id)
		if err != nil {
			return nil, nil, err
		}
		paths = append(paths, closure...)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil, nil
}

// A signer adds signatures to narinfos that are there.
type signer struct {
	fsys     disk.FS
	backup   *Backup
	lock     *lock.Lock
	keys     []SignKey
	upstream map[storepath.Path]*narinfo.NarInfo // others that may have signatures, may be nil
	signed   int                                 // narinfos
}

// sign signs store paths, in groups, and then says so in README.txt. Damaged
// narinfos are joined into damage.
func (s *signer) sign(ctx context.Context, paths []storepath.Path) (damage, err error) {
	var bad []error
	for group := range slices.Chunk(paths, maxGroup) {
		for len(group) > 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			var found []error
			if group, found, err = s.group(ctx, group); err != nil {
				return nil, err
			}
			bad = append(bad, found...)
		}
	}
	err = s.lock.Exclusively(ctx, func() error { return s.readme() })
	return errors.Join(bad...), err
}

// A resigned is a narinfo and what is to be in its place.
type resigned struct {
	path   storepath.Path
	before []byte
	temp   string // "" if there is nothing to do
	damage error
}

// group signs some store paths. It returns those whose narinfo somebody else
// replaced meanwhile.
func (s *signer) group(ctx context.Context, paths []storepath.Path) (again []storepath.Path, bad []error, err error) {
	staged := make([]resigned, len(paths))
	defer func() {
		for _, r := range staged {
			if r.temp != "" {
				s.fsys.Remove(r.temp) // the error that led here counts, not this one
			}
		}
	}()
	err = inParallel(paths, func(i int, p storepath.Path) (err error) {
		staged[i], err = s.stage(p)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = s.lock.Exclusively(ctx, func() error {
		again, err = s.publish(staged)
		return err
	})
	for _, r := range staged {
		if r.damage != nil {
			bad = append(bad, r.damage)
		}
	}
	return again, bad, err
}

// stage writes the signed narinfo to a temporary file, if it is not signed yet.
func (s *signer) stage(p storepath.Path) (resigned, error) {
	info, text, err := s.backup.Cache.LookupText(p)
	if err = s.backup.promised(p, err); err != nil {
		if isDamage(err) {
			return resigned{path: p, damage: err}, nil
		}
		return resigned{}, err
	}
	sigs, err := s.sigs(info)
	if err != nil {
		return resigned{}, err
	}
	after := text
	for _, sig := range sigs {
		after = narinfo.AppendSig(after, sig)
	}
	r := resigned{path: p, before: text}
	if !bytes.Equal(after, text) {
		r.temp, err = disk.WriteTemp(s.fsys, s.backup.Cache.Dir(), after)
	}
	return r, err
}

// sigs returns the signatures that a narinfo is to get.
func (s *signer) sigs(info *narinfo.NarInfo) (sigs []string, err error) {
	if upstream := s.upstream[info.StorePath]; upstream != nil {
		sigs = missingSigs(info, upstream)
	}
	for _, k := range s.keys {
		sig, err := k.sign(info.Fingerprint())
		if err != nil {
			return nil, err
		}
		if !slices.Contains(info.Sigs, sig) && !slices.Contains(sigs, sig) {
			sigs = append(sigs, sig)
		}
	}
	return sigs, nil
}

// publish gives the narinfos their names. It is called under the mutex.
func (s *signer) publish(staged []resigned) (again []storepath.Path, err error) {
	changed := false
	for i := range staged {
		r := &staged[i]
		if r.temp == "" {
			continue
		}
		_, now, err := s.backup.Cache.LookupText(r.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !isDamage(err) {
			return nil, err
		}
		if !bytes.Equal(now, r.before) {
			again = append(again, r.path)
			continue
		}
		if err := s.fsys.Rename(r.temp, s.backup.cachePath(r.path.Hash()+".narinfo")); err != nil {
			return nil, err
		}
		r.temp, changed = "", true
		s.signed++
	}
	if !changed {
		return again, nil
	}
	return again, s.fsys.SyncDir(s.backup.Cache.Dir())
}

// readmeKeys begins the part of README.txt with the public keys.
const readmeKeys = `
Store paths of this backup are signed. With one of these public keys in
trusted-public-keys (nix.conf, or --option extra-trusted-public-keys KEY), Nix takes what
that key has signed without --no-check-sigs and require-sigs=false, from
ordinary users, too:

`

// readme notes the public keys in README.txt. It is called under the mutex.
func (s *signer) readme() error {
	name := s.backup.Path(layout.ReadmeFile)
	text, err := layout.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(readmeFor(s.backup.Cache.StoreDir())), nil
	}
	if err != nil {
		return err
	}
	after := string(text)
	for _, k := range s.keys {
		if strings.Contains(after, k.Public()) {
			continue
		}
		if !strings.Contains(after, readmeKeys) {
			after += readmeKeys
		}
		head, tail, _ := strings.Cut(after, readmeKeys)
		after = head + readmeKeys + "  " + k.Public() + "\n" + tail
	}
	if after == string(text) {
		return nil
	}
	return disk.WriteFile(s.fsys, name, []byte(after))
}
