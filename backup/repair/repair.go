// Package repair mends a backup: it runs a check, has what that found repaired
// by package backup, and checks the result. What can be mended out of what, and
// what becomes of the rest, is said at backup.Repair.
package repair

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// Options say what Run does. Suspects of the request are set by it.
type Options struct {
	Check check.Options // what is looked at first
	// Findings are those of a check that was made before; nil: one is made.
	Findings []check.Finding
	Request  backup.RepairRequest
	// Checked is told what the check found, before anything is changed. It may be
	// nil.
	Checked func(*check.Report)
}

// A Report says what Run did.
type Report struct {
	*backup.RepairResult
	Dir   string `json:"dir"`
	Found int    `json:"found"` // damage before
	// Remaining is the damage, and what could not be read, that is still there: of
	// a dry run, what would be.
	Remaining []check.Finding `json:"remaining"`
}

// Run checks the backup in dir, repairs it, and checks it again. After an error
// the report, if there is one, says what was done until then.
func Run(ctx context.Context, dir string, o Options) (*Report, error) {
	if o.Findings != nil {
		return mend(ctx, dir, o, o.Findings)
	}
	before, err := check.Run(ctx, dir, o.Check)
	if err != nil {
		return nil, err
	}
	if o.Checked != nil {
		o.Checked(before)
	}
	return mend(ctx, dir, o, before.Findings)
}

// mend repairs what was found.
func mend(ctx context.Context, dir string, o Options, findings []check.Finding) (*Report, error) {
	findings = slices.DeleteFunc(slices.Clone(findings), func(f check.Finding) bool { return !wanted(&f) })
	r := &Report{Dir: dir, Remaining: []check.Finding{}}
	for i := range findings {
		if bad(&findings[i]) {
			r.Found++
		}
	}
	o.Request.Suspects = suspects(findings)
	var err error
	if r.RepairResult, err = backup.Repair(ctx, dir, o.Request); err != nil {
		return r, err
	}
	after := findings
	if !o.Request.DryRun {
		o.Check.ReadData, o.Check.Progress = check.Selection{}, check.Progress{}
		again, err := check.Run(ctx, dir, o.Check)
		if err != nil {
			return r, err
		}
		after = again.Findings
	}
	for i := range after {
		if f := &after[i]; bad(f) && !(o.Request.DryRun && r.mends(f)) {
			r.Remaining = append(r.Remaining, *f)
		}
	}
	r.Remaining = append(r.Remaining, r.unread(findings)...)
	r.Lost = slices.DeleteFunc(r.Lost, func(l backup.Quarantined) bool {
		// Who named it was damaged, and is mended.
		return !slices.ContainsFunc(r.Remaining, func(f check.Finding) bool {
			return f.File == l.File || slices.Contains(f.StorePaths, l.StorePath)
		})
	})
	return r, nil
}

// bad reports whether a finding makes a backup that is not whole.
func bad(f *check.Finding) bool { return f.Severity == check.Damage || f.Severity == check.Unreadable }

// wanted reports whether a finding is about something that is to be repaired.
func wanted(f *check.Finding) bool {
	return bad(f) || f.Kind == check.CacheInfo || f.Kind == check.CacheDir || f.Kind == check.IndexStale ||
		f.Kind == check.Orphan && path.Ext(f.File) == bincache.ListingExt
}

// unread are the findings of reading NAR files and dumps, which the second check
// does not see, about those that nothing could be done about.
func (r *Report) unread(findings []check.Finding) (left []check.Finding) {
	if r.DryRun {
		return nil // they are among what remains
	}
	stays := make(map[storepath.Path]bool)
	for _, l := range r.Lost {
		stays[l.StorePath] = true
	}
	for _, f := range findings {
		if f.Kind == check.Dump && bad(&f) && !r.mends(&f) {
			left = append(left, f)
		}
		read := f.Kind == check.NarData || f.Kind == check.NarFormat
		if read && bad(&f) && slices.ContainsFunc(f.StorePaths, func(p storepath.Path) bool { return stays[p] }) {
			left = append(left, f)
		}
	}
	return left
}

// mends reports whether a dry run found a source for all that a finding is about.
func (r *Report) mends(f *check.Finding) bool {
	gone := func(l backup.Quarantined) bool {
		return l.File == f.File || l.StorePath != "" && slices.Contains(f.StorePaths, l.StorePath)
	}
	if slices.ContainsFunc(r.Lost, gone) || slices.ContainsFunc(r.Quarantined, gone) && !misfit(f) {
		return false
	}
	switch f.Kind {
	case check.Release, check.ReleaseClosed:
		return misfit(f) || slices.ContainsFunc(r.Repaired, func(m backup.Repaired) bool { return path.Dir(m.File) == path.Dir(f.File) })
	case check.Dump:
		return slices.ContainsFunc(r.Repaired, func(m backup.Repaired) bool { return m.File == f.File })
	}
	return true
}

// suspects sorts findings by what is to be done about them.
func suspects(findings []check.Finding) backup.Suspects {
	s := backup.Suspects{Names: make(map[string]storepath.Path)}
	for i := range findings {
		add(&s, &findings[i])
	}
	for _, list := range []*[]string{&s.NarInfos, &s.NARs, &s.Listings} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.SortFunc(s.Releases, func(a, b backup.ReleaseID) int { return strings.Compare(a.String(), b.String()) })
	s.Releases = slices.Compact(s.Releases)
	return s
}

func add(s *backup.Suspects, f *check.Finding) {
	hash, isNarInfo := strings.CutSuffix(path.Base(f.File), bincache.NarInfoExt)
	switch f.Kind {
	case check.CacheInfo:
		s.CacheInfo = s.CacheInfo || f.Severity != check.Note
	case check.Config:
		s.Config = true
	case check.NarInfo, check.NarInfoIndex, check.ContentAddr, check.Signature:
		if isNarInfo {
			s.NarInfos = append(s.NarInfos, hash)
		}
		s.NarInfos = append(s.NarInfos, named(s, f)...)
	case check.Reference, check.ReleasePath, check.ReleaseClosed:
		s.NarInfos = append(s.NarInfos, named(s, f)...)
		if f.Kind == check.ReleaseClosed {
			s.Releases = append(s.Releases, f.Releases...)
		}
	case check.NarMissing, check.NarSize, check.NarConflict, check.NarData, check.NarFormat:
		s.NARs = append(s.NARs, named(s, f)...)
	case check.Listing:
		s.Listings = append(s.Listings, strings.TrimSuffix(path.Base(f.File), bincache.ListingExt))
	case check.Release:
		if strings.Contains(f.File, "/previous/") && f.Severity == check.Damage {
			s.Misfits = append(s.Misfits, misfitOf(f))
		}
		s.Releases = append(s.Releases, f.Releases...)
	case check.Dump:
		s.Dumps = append(s.Dumps, path.Base(f.File))
	case check.Index:
		s.Index = s.Index || f.Severity == check.Damage && !path.IsAbs(f.File)
	case check.CacheDir:
		if f.Severity == check.Damage {
			s.Misfits = append(s.Misfits, misfitOf(f))
		}
		s.CacheDirs = s.CacheDirs || f.Severity == check.Warning
	case check.Realisation, check.DebugInfo, check.BuildLog, check.Orphan:
		if f.Severity != check.Unreadable {
			s.Misfits = append(s.Misfits, misfitOf(f))
		}
	}
}

// misfit reports whether a finding is about a file that nothing is lost with.
func misfit(f *check.Finding) bool {
	switch f.Kind {
	case check.CacheDir, check.Realisation, check.DebugInfo, check.BuildLog, check.Orphan, check.Index, check.Listing:
		return true
	}
	return f.Kind == check.Release && strings.Contains(f.File, "/previous/")
}

func misfitOf(f *check.Finding) backup.Misfit { return backup.Misfit{File: f.File, Reason: f.Message} }

// named returns the hash parts of the store paths of a finding, and notes their
// names.
func named(s *backup.Suspects, f *check.Finding) (hashes []string) {
	for _, p := range f.StorePaths {
		s.Names[p.Hash()] = p
		hashes = append(hashes, p.Hash())
	}
	return hashes
}
