package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
}

// fatNames are the characters that names on FAT and exFAT cannot have.
const fatNames = `"*:<>?\|`

// mediumOf returns what the file system of dir cannot do, or of its parent when
// dir is not there yet.
func mediumOf(dir string) medium {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		if err := unix.Statfs(filepath.Dir(filepath.Clean(dir)), &st); err != nil {
			return medium{} // whoever writes there will see
		}
	}
	return mediumByType(int64(st.Type))
}

// mediumByType knows the types of file systems as statfs(2) has them.
func mediumByType(magic int64) medium {
	switch uint32(magic) {
	case unix.MSDOS_SUPER_MAGIC:
		return medium{kind: "FAT", maxFile: 1<<32 - 1, refuses: fatNames}
	case unix.EXFAT_SUPER_MAGIC:
		return medium{kind: "exFAT", refuses: fatNames}
	}
	return medium{}
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
	if names := r.largerThan(m.maxFile); len(names) > 0 {
		return nil, &MediumError{Dir: r.dir, Kind: m.kind, Names: names,
			Reason: fmt.Sprintf("holds files of at most %d bytes, and how small these become is not known before they are compressed", m.maxFile)}
	}
	if strings.Contains(m.refuses, ":") {
		for _, p := range r.floating() {
			warnings = append(warnings, fmt.Sprintf("%s is the output of a content-addressed derivation: %s cannot hold its realisation, a file called realisations/sha256:...; "+
				"without it Nix finds the store path by its name only, and would build it again", p, m.kind))
		}
	}
	return warnings, nil
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
		if other := sameFolded(names, part, func(name string) (os.FileInfo, error) { return os.Stat(filepath.Join(at, name)) }); other != "" {
			return &MediumError{Dir: r.dir, Kind: "a file system that ignores case", Names: []string{part}, Reason: fmt.Sprintf("holds %q already", other)}
		}
		at = filepath.Join(at, part)
	}
	return nil
}

// sameFolded returns the name that is part in other case and the same file, or "".
func sameFolded(names []string, part string, stat func(string) (os.FileInfo, error)) string {
	for _, name := range names {
		if name == part || !strings.EqualFold(name, part) {
			continue
		}
		a, errA := stat(name)
		b, errB := stat(part)
		if errors.Join(errA, errB) == nil && os.SameFile(a, b) {
			return name
		}
	}
	return ""
}
