package backup

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// A medium is what a file system cannot do, of what a backup may need.
type medium struct {
	kind    string // what such a file system is called
	maxFile int64  // bytes of the largest file; 0: any
	refuses string // characters that names cannot have
	fuse    bool   // it may be anything
}

const (
	// fatNames are the characters that names on FAT and exFAT cannot have.
	fatNames = `"*:<>?\|`
	// fatMax is how large files on FAT can be, in bytes.
	fatMax = 1<<32 - 1
)

// mediumOf returns what the file system of dir cannot do, or of its parent when
// dir is not there yet. With try, what cannot be known otherwise is found out by
// writing a temporary file.
func mediumOf(dir string, try bool) medium {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		dir = filepath.Dir(filepath.Clean(dir))
		if err := unix.Statfs(dir, &st); err != nil {
			return medium{} // whoever writes there will see
		}
	}
	m := mediumByType(int64(st.Type))
	if m.fuse && try {
		m.try(dir)
	}
	return m
}

// mediumByType knows the types of file systems as statfs(2) has them.
func mediumByType(magic int64) medium {
	switch uint32(magic) {
	case unix.MSDOS_SUPER_MAGIC:
		return medium{kind: "FAT", maxFile: fatMax, refuses: fatNames}
	case unix.EXFAT_SUPER_MAGIC:
		return medium{kind: "exFAT", refuses: fatNames}
	case unix.FUSE_SUPER_MAGIC:
		return medium{fuse: true}
	}
	return medium{}
}

// try finds out whether names can be all that Nix gives. Programs say EINVAL,
// ENOENT or EILSEQ when they cannot.
func (m *medium) try(dir string) {
	plain, odd := probe(dir, ""), probe(dir, ":")
	if plain == nil && odd != nil {
		m.kind, m.refuses = "a file system like FAT", fatNames
	}
}

// probe makes a temporary file that has some characters in its name, and removes
// it again.
func probe(dir, chars string, use ...func(*os.File) error) error {
	name := filepath.Join(dir, disk.TempPrefix+"probe"+chars+strconv.FormatUint(rand.Uint64(), 36)+disk.TempSuffix)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, u := range use {
		if err == nil {
			err = u(f)
		}
	}
	return errors.Join(err, f.Close(), os.Remove(name))
}

// tooLarge reports whether a file of so many bytes would be too large for the
// file system of a directory. There need not be room for it.
func tooLarge(dir string, size int64) bool {
	err := probe(dir, "", func(f *os.File) error { return f.Truncate(size) })
	return errors.Is(err, syscall.EFBIG)
}

// A MediumError says that a medium cannot hold what was to be backed up. Nothing
// was written.
type MediumError struct {
	Dir, Kind string
	Names     []string // what it cannot hold
	Reason    string
}

func (e *MediumError) Error() string {
	const shown = 5
	names := e.Names[:min(len(e.Names), shown)]
	more := ""
	if n := len(e.Names) - len(names); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s is on %s, which %s: %s%s; use a medium with another file system (exFAT, ext4, ...), or leave that out",
		e.Dir, e.Kind, e.Reason, strings.Join(names, ", "), more)
}

// checkMedium refuses, before anything is written, what m cannot hold, and
// returns warnings of what will be missing on it.
func (r *runner) checkMedium(m medium) (warnings []string, err error) {
	if name := r.req.Release.String(); strings.ContainsAny(name, m.refuses) {
		return nil, &MediumError{Dir: r.dir, Kind: m.kind, Names: []string{name}, Reason: "cannot hold names with any of " + m.refuses}
	}
	if err := r.checkCase(); err != nil {
		return nil, err
	}
	limit := m.maxFile
	if m.fuse && !r.req.DryRun {
		limit = fatMax
	}
	// Most files are small; only for a large one it is tried whether there may be one.
	if names := r.largerThan(limit); len(names) > 0 && (!m.fuse || tooLarge(r.existing(), fatMax+1)) {
		return nil, &MediumError{Dir: r.dir, Kind: cmp.Or(m.kind, "a file system like FAT"), Names: names,
			Reason: fmt.Sprintf("holds files of at most %d bytes, and how small these become is not known before they are compressed", limit)}
	}
	if strings.Contains(m.refuses, ":") {
		for _, p := range r.floating() {
			warnings = append(warnings, fmt.Sprintf("%s is the output of a content-addressed derivation: %s cannot hold its realisation, a file called realisations/sha256:...; "+
				"without it Nix finds the store path by its name only, and would build it again", p, m.kind))
		}
	}
	return warnings, nil
}

// existing returns the directory of the backup, or its parent if that is not there
// yet.
func (r *runner) existing() string {
	if st, err := os.Stat(r.dir); err == nil && st.IsDir() {
		return r.dir
	}
	return filepath.Dir(filepath.Clean(r.dir))
}

// largerThan names the store paths whose NARs have more than limit bytes and are
// not archived yet.
func (r *runner) largerThan(limit int64) (names []string) {
	if limit == 0 {
		return nil
	}
	b, err := Open(r.dir, r.req.Cache)
	if err == nil {
		defer b.Close()
	}
	for _, info := range r.infos {
		if info.NarSize <= limit {
			continue
		}
		if err == nil {
			if has, _ := b.Cache.Has(info.Path.Hash()); has {
				continue
			}
		}
		names = append(names, fmt.Sprintf("%s (%d bytes)", info.Path, info.NarSize))
	}
	return names
}

// floating returns the outputs of derivations that do not know them before they
// are built.
func (r *runner) floating() (paths []storepath.Path) {
	for _, info := range r.infos {
		if info.CA == "" || info.Deriver == "" {
			continue
		}
		d, err := r.store.Derivation(info.Deriver)
		if err != nil {
			continue
		}
		for _, output := range d.Outputs {
			if output == "" {
				paths = append(paths, info.Path)
				break
			}
		}
	}
	return paths
}

// checkCase refuses a release whose name the file system takes for that of
// another one, because it ignores case: it would replace that.
func (r *runner) checkCase() error {
	at := filepath.Join(r.dir, layout.ReleasesDir)
	for _, part := range []string{r.req.Release.Project, r.req.Release.Name} {
		names, err := disk.ReadNames(at)
		if err != nil {
			return nil // there are none
		}
		if other := folded(names, part, func(name string) bool { _, err := os.Lstat(filepath.Join(at, name)); return err == nil }); other != "" {
			return &MediumError{Dir: r.dir, Kind: "a file system that ignores case", Names: []string{part}, Reason: fmt.Sprintf("holds %q already", other)}
		}
		at = filepath.Join(at, part)
	}
	return nil
}

// folded returns which of the names in a directory a file system takes for part,
// though it is another one; "" if none. (Not by inode numbers: those of a FUSE
// file system may be those of names.)
func folded(names []string, part string, there func(name string) bool) string {
	if slices.Contains(names, part) || !there(part) {
		return ""
	}
	for _, name := range names {
		if strings.EqualFold(name, part) {
			return name
		}
	}
	return "" // another backup has just recorded it
}
