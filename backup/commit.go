package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// parallelSyncs is how many fsyncs are under way at once: the journal of a file
// system serves many with one write.
const parallelSyncs = 16

// commitAll waits for the jobs in their order and commits them in groups: the
// next one, and with it all that happen to be ready behind it.
func (a *archiver) commitAll(ctx context.Context, jobs []*job, ahead <-chan struct{}) error {
	for len(jobs) > 0 {
		n, err := ready(ctx, jobs)
		if err != nil {
			return err
		}
		if err := a.commit(ctx, jobs[:n]); err != nil {
			return fmt.Errorf("write to backup: %w", err)
		}
		for _, j := range jobs[:n] {
			a.progress.archived(j)
			<-ahead
		}
		jobs = jobs[n:]
	}
	return nil
}

// ready waits for the first job and returns how many from it on are done.
func ready(ctx context.Context, jobs []*job) (int, error) {
	for n, j := range jobs {
		if n == maxGroup {
			return n, nil
		}
		if n > 0 {
			select {
			case <-j.done:
			default:
				return n, nil
			}
		}
		select {
		case <-j.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if j.err != nil {
			return n, nilIfSome(n, j.err)
		}
	}
	return len(jobs), nil
}

// nilIfSome lets the jobs before a failed one be committed.
func nilIfSome(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}

// commit makes a group of jobs durable and visible: the NAR files first, then
// the narinfos, level by level, so that at no instant, and after no crash, a
// narinfo is there without its NAR file or without the narinfos it refers to.
func (a *archiver) commit(ctx context.Context, group []*job) error {
	if err := a.commitNARs(group); err != nil {
		return err
	}
	staged, err := a.stage(group)
	defer func() {
		for _, s := range staged {
			s.discard(a.fsys)
		}
	}()
	if err != nil {
		return err
	}
	err = a.lock.Exclusively(ctx, func() error { return a.publish(group, staged) })
	if err != nil {
		return err
	}
	for _, j := range group {
		if !j.shared {
			j.listing = nil // there may be many
		}
	}
	return nil
}

// publish gives the staged files of a group their names: first the listings, then
// the narinfos, level by level. A store path that another backup has archived
// since the plan was made stays as that one has it.
func (a *archiver) publish(group []*job, staged []stagedInfo) error {
	absent, err := a.absent(group)
	if err != nil {
		return err
	}
	var listings []*stagedInfo
	for i := range staged {
		if absent[i] {
			listings = append(listings, &staged[i])
		}
	}
	if err := publishListings(a.fsys, a.backup.Cache.Dir(), listings...); err != nil {
		return err
	}
	for _, level := range jobLevels(group) {
		for _, i := range level {
			if !absent[i] {
				continue
			}
			if err := staged[i].publish(a.fsys); err != nil {
				return err
			}
		}
		if err := a.fsys.SyncDir(a.backup.Cache.Dir()); err != nil {
			return err
		}
	}
	return nil
}

// absent reports for each job of a group whether its store path is still not
// archived, and notes conflicts with those that are.
func (a *archiver) absent(group []*job) ([]bool, error) {
	absent := make([]bool, len(group))
	for i, j := range group {
		have, err := archived(a.backup.Cache, j.info)
		if err != nil {
			return nil, err
		}
		if have.conflict != nil {
			a.conflicts = append(a.conflicts, *have.conflict)
		}
		absent[i] = have.info == nil
	}
	return absent, nil
}

// commitNARs gives the NAR files of a group their names and notes them in the
// journal.
func (a *archiver) commitNARs(group []*job) error {
	files, err := a.nameNARs(group)
	if err != nil || len(files) == 0 {
		return err
	}
	for _, f := range files {
		a.written += f.FileSize
	}
	return a.journal.add(files)
}

// nameNARs gives the NAR files of a group their names, durably, and returns
// what they are.
func (a *archiver) nameNARs(group []*job) (files []narFile, err error) {
	err = inParallel(group, func(_ int, j *job) error {
		if j.temp == nil {
			return nil
		}
		if err := j.temp.file.Sync(); err != nil {
			return err
		}
		return j.temp.file.Close()
	})
	if err != nil {
		return nil, err
	}
	for _, j := range group {
		if j.temp == nil {
			continue
		}
		if err := a.fsys.Rename(j.temp.file.Name(), a.backup.cachePath(j.temp.URL)); err != nil {
			return nil, err
		}
		j.content, j.temp = &j.temp.narFile, nil
		files = append(files, *j.content)
	}
	if len(files) == 0 {
		return nil, nil
	}
	return files, a.fsys.SyncDir(a.backup.cachePath(bincache.NARDir))
}

// A stagedInfo is the narinfo and the listing of a store path, durable, but
// without their names.
type stagedInfo struct {
	narInfo, listing         string // temporary files, "" if none
	narInfoName, listingName string
}

// stage writes what a group needs beside the NARs to temporary files.
func (a *archiver) stage(group []*job) ([]stagedInfo, error) {
	staged := make([]stagedInfo, len(group))
	err := inParallel(group, func(i int, j *job) (err error) {
		s := &staged[i]
		s.narInfoName = a.backup.cachePath(j.info.Path.Hash() + ".narinfo")
		s.listingName = a.backup.cachePath(j.info.Path.Hash() + ".ls")
		if j.sameAs != nil {
			j.content, j.listing = j.sameAs.content, j.sameAs.listing
		}
		info, err := a.narInfo(j)
		if err != nil {
			return err
		}
		if s.narInfo, err = disk.WriteTemp(a.fsys, filepath.Dir(s.narInfoName), info.Bytes()); err != nil {
			return err
		}
		if j.listing != nil {
			s.listing, err = disk.WriteTemp(a.fsys, filepath.Dir(s.listingName), j.listing)
		}
		return err
	})
	return staged, err
}

// publishListings gives listings their names in dir, durably: a crash that lost
// one after its narinfo has its name would lose it for good, as nobody looks
// whether the listing of an archived path is there.
func publishListings(fsys disk.FS, dir string, staged ...*stagedInfo) error {
	named := false
	for _, s := range staged {
		if s.listing == "" {
			continue
		}
		if err := fsys.Rename(s.listing, s.listingName); err != nil {
			return err
		}
		s.listing, named = "", true
	}
	if !named {
		return nil
	}
	return fsys.SyncDir(dir)
}

// publish gives the narinfo its name, which makes the store path exist.
func (s *stagedInfo) publish(fsys disk.FS) error {
	if err := fsys.Rename(s.narInfo, s.narInfoName); err != nil {
		return err
	}
	s.narInfo = ""
	return nil
}

// discard removes what was not published.
func (s *stagedInfo) discard(fsys disk.FS) {
	for _, name := range []string{s.narInfo, s.listing} {
		if name != "" {
			fsys.Remove(name) // the error that led here counts, not this one
		}
	}
}

func (a *archiver) narInfo(j *job) (*narinfo.NarInfo, error) {
	info := narInfoOf(a.backup.Cache.StoreDir(), &j.info)
	j.content.fill(info)
	for _, key := range a.keys {
		sig, err := key.sign(info.Fingerprint())
		if err != nil {
			return nil, err
		}
		if !slices.Contains(info.Sigs, sig) {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	return info, nil
}

// jobLevels is levels for the paths of a group of jobs.
func jobLevels(group []*job) [][]int {
	paths := make([]storepath.Path, len(group))
	references := make(map[storepath.Path][]storepath.Path, len(group))
	for i, j := range group {
		paths[i] = j.info.Path
		references[j.info.Path] = j.info.References
	}
	return storepath.Levels(paths, func(p storepath.Path) []storepath.Path { return references[p] })
}

// inParallel calls f for each member of a group, parallelSyncs at a time.
func inParallel[T any](group []T, f func(int, T) error) error {
	var g errgroup.Group
	g.SetLimit(parallelSyncs)
	for i, member := range group {
		g.Go(func() error { return f(i, member) })
	}
	return g.Wait()
}
