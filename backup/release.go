package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// A Release is the content of release.json: what a release is and where it
// came from. The store paths that belong to it are in closure.txt.
type Release struct {
	Version     int       `json:"version"`
	Project     string    `json:"project"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Method      Method    `json:"method"`
	Created     time.Time `json:"created"`
	StoreDir    string    `json:"storeDir"`
	Paths       int       `json:"paths"`   // in closure.txt
	NarSize     int64     `json:"narSize"` // of all paths together, in bytes
	Source      Source    `json:"source"`
	Roots       []Root    `json:"roots"`
	Builds      []Build   `json:"builds,omitempty"` // of Hydra, by id

	// unknown holds the fields of a newer format, which are kept.
	unknown map[string]json.RawMessage
	broken  bool // it has a checksum, and that is not right
}

// Intact reports whether a release that was read has the checksum that it says.
// Those that narvault wrote at first have none.
func (r *Release) Intact() bool { return !r.broken }

// checksumKey is the field of release.json that has the SHA-256 of all others,
// without white space and with their keys sorted.
const checksumKey = "checksum"

// sealed returns the text of release.json.
func (r *Release) sealed() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	out := *r
	out.unknown = maps.Clone(r.unknown)
	if out.unknown == nil {
		out.unknown = make(map[string]json.RawMessage)
	}
	out.unknown[checksumKey] = recordSum(all)
	return json.MarshalIndent(&out, "", "  ")
}

// recordSum returns the checksum, as JSON, of the fields of a release.json.
func recordSum(all map[string]json.RawMessage) json.RawMessage {
	all = maps.Clone(all)
	delete(all, checksumKey)
	text, _ := json.Marshal(all) // what was parsed can be written
	return fmt.Appendf(nil, "\"sha256:%x\"", sha256.Sum256(text))
}

// A Source says where a release was taken from.
type Source struct {
	Kind       string `json:"kind"`                 // "store": the local Nix store, "cache": another backup or binary cache, "hydra"
	Database   string `json:"database,omitempty"`   // Hydra's
	Evaluation int64  `json:"evaluation,omitempty"` // Hydra's, 0 if the release is not one
}

// A Root is one thing that a release was made for; the rest of its closure is
// what the roots need.
type Root struct {
	Job       string         `json:"job"`
	Jobset    string         `json:"jobset,omitempty"` // Hydra's
	System    string         `json:"system,omitempty"`
	Output    string         `json:"output,omitempty"`
	StorePath storepath.Path `json:"storePath"`
	DrvPath   storepath.Path `json:"drvPath,omitempty"`
	Build     int64          `json:"build,omitempty"` // Hydra's number of the build
	NixName   string         `json:"nixName"`
}

// plainRelease is Release without its own JSON methods.
type plainRelease Release

// UnmarshalJSON keeps the fields that it does not know.
func (r *Release) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*plainRelease)(r)); err != nil {
		return err
	}
	r.unknown = nil
	if err := json.Unmarshal(text, &r.unknown); err != nil {
		return err
	}
	if sum, has := r.unknown[checksumKey]; has {
		r.broken = !bytes.Equal(sum, recordSum(r.unknown))
		delete(r.unknown, checksumKey)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[plainRelease]()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		delete(r.unknown, name)
	}
	return nil
}

// MarshalJSON adds the unknown fields, behind the known ones and sorted.
func (r Release) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(plainRelease(r))
	if err != nil || len(r.unknown) == 0 {
		return known, err
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(known, []byte("}")))
	for _, key := range slices.Sorted(maps.Keys(r.unknown)) {
		fmt.Fprintf(&b, ",%q:%s", key, r.unknown[key])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// ErrNoRelease is wrapped by errors about a release that the backup lacks.
var ErrNoRelease = errors.New("is not in the backup")

// Releases returns the releases of the backup, sorted by project and name.
// What is no release (other files, names that no release can have, directories
// without closure.txt) is passed over.
func (b *Backup) Releases() ([]ReleaseID, error) {
	if b.foreign {
		return nil, nil
	}
	projects, err := os.ReadDir(b.Path(layout.ReleasesDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	var ids []ReleaseID
	for _, project := range projects {
		names, err := os.ReadDir(b.Path(layout.ReleasesDir, project.Name()))
		if disk.IsNotDir(err) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list releases: %w", err)
		}
		for _, name := range names {
			id, err := ParseReleaseID(project.Name() + "/" + name.Name())
			if err == nil && disk.IsFile(b.Path(layout.ReleasesDir, id.Project, id.Name, layout.ClosureFile)) {
				ids = append(ids, id)
			}
		}
	}
	slices.SortFunc(ids, func(x, y ReleaseID) int {
		if c := strings.Compare(x.Project, y.Project); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	return ids, nil
}

// releasePath returns the path of a file of a release.
func (b *Backup) releasePath(id ReleaseID, elem ...string) string {
	return b.Path(append([]string{layout.Release(id.Project, id.Name)}, elem...)...)
}

// ReleaseTime returns when the record of a release last changed.
func (b *Backup) ReleaseTime(id ReleaseID) (time.Time, error) {
	st, err := os.Stat(b.releasePath(id, layout.ClosureFile))
	if err != nil {
		return time.Time{}, b.ReleaseError(id, err)
	}
	return st.ModTime(), nil
}

// Release reads release.json. One that hydra-backup recorded, with closure.txt
// only, has little more than its name; method and source are empty.
func (b *Backup) Release(id ReleaseID) (*Release, error) {
	name := b.releasePath(id, layout.ReleaseFile)
	text, err := layout.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && disk.IsFile(b.releasePath(id, layout.ClosureFile)) {
		return b.closureOnly(id)
	}
	if err != nil {
		return nil, b.ReleaseError(id, err)
	}
	return parseRelease(id, name, text)
}

// PreviousRelease reads the release.json that a release had before its last
// change. The error is fs.ErrNotExist when there is none.
func (b *Backup) PreviousRelease(id ReleaseID) (*Release, error) {
	name := b.releasePath(id, layout.PreviousDir, layout.ReleaseFile)
	text, err := layout.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseRelease(id, name, text)
}

func parseRelease(id ReleaseID, name string, text []byte) (*Release, error) {
	r := new(Release)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, &bincache.DamageError{File: name, Err: err}
	}
	if r.Version > FormatVersion {
		return nil, fmt.Errorf("release %s: %s has format version %d, this narvault knows %d: use a newer one", id, name, r.Version, FormatVersion)
	}
	return r, nil
}

// closureOnly makes up the record of a release that has only closure.txt.
func (b *Backup) closureOnly(id ReleaseID) (*Release, error) {
	paths, err := b.Closure(id)
	if err != nil {
		return nil, err
	}
	created, err := b.ReleaseTime(id)
	if err != nil {
		return nil, err
	}
	return &Release{
		Version: FormatVersion, Project: id.Project, Name: id.Name, Created: created.UTC().Truncate(time.Second),
		StoreDir: b.Cache.StoreDir(), Paths: len(paths), Roots: []Root{},
	}, nil
}

// Closure reads closure.txt: the store paths of a release, sorted. An empty or
// malformed one is a *bincache.DamageError.
func (b *Backup) Closure(id ReleaseID) ([]storepath.Path, error) {
	paths, err := b.ReadClosure(b.releasePath(id, layout.ClosureFile))
	var damage *bincache.DamageError
	if err != nil && !errors.As(err, &damage) {
		return nil, b.ReleaseError(id, err)
	}
	return paths, err
}

// PreviousClosure reads the closure.txt that a release had before its last
// change, as Closure does. The error is fs.ErrNotExist when there is none.
func (b *Backup) PreviousClosure(id ReleaseID) ([]storepath.Path, error) {
	return b.ReadClosure(b.releasePath(id, layout.PreviousDir, layout.ClosureFile))
}

// ReadClosure reads a closure.txt wherever it is, that of a record in the trash
// for example, as Closure does.
func (b *Backup) ReadClosure(file string) ([]storepath.Path, error) {
	text, err := layout.ReadFile(file)
	if err != nil {
		return nil, err
	}
	paths, err := parseClosure(text, b.Cache.StoreDir())
	if err != nil {
		return nil, &bincache.DamageError{File: file, Err: err}
	}
	return paths, nil
}

// ReleaseError says what an error about the files of a release means: when they
// are not there, it wraps ErrNoRelease.
func (b *Backup) ReleaseError(id ReleaseID, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release %s %w (narvault ls %s releases shows what is)", id, ErrNoRelease, b.dir)
	}
	return fmt.Errorf("release %s: %w", id, err)
}

func parseClosure(text []byte, storeDir string) ([]storepath.Path, error) {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, errors.New("does not end in a newline: it is truncated")
	}
	var paths []storepath.Path
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		p, err := storepath.ParseIn(storeDir, strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return nil, errors.New("names no store path")
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func formatClosure(paths []storepath.Path, storeDir string) []byte {
	var b bytes.Buffer
	for _, p := range paths {
		b.WriteString(p.In(storeDir))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// writeRelease records a release whose paths are all durable in the cache. The
// record that was there is kept as previous/. With a nil hydra, there is no
// hydra.json.
func writeRelease(fsys disk.FS, b *Backup, r *Release, closure []storepath.Path, hydra []byte) error {
	id := ReleaseID{Project: r.Project, Name: r.Name}
	dir := b.releasePath(id)
	if err := disk.MkdirAll(fsys, b.dir, dir); err != nil {
		return fmt.Errorf("record release %s: %w", id, err)
	}
	text, err := r.sealed()
	if err != nil {
		return fmt.Errorf("record release %s: %w", id, err)
	}
	if err := keepPrevious(fsys, b, id); err != nil {
		return fmt.Errorf("record release %s: %w", id, err)
	}
	content := map[string][]byte{
		layout.HydraFile: hydra, layout.ClosureFile: formatClosure(closure, r.StoreDir), layout.ReleaseFile: append(text, '\n'),
	}
	for _, name := range recordFiles {
		if err := writeOrRemove(fsys, filepath.Join(dir, name), content[name]); err != nil {
			return fmt.Errorf("record release %s: %w", id, err)
		}
	}
	return nil
}

// syncRelease makes a record durable that is there already: the run that wrote
// it may have been killed before it did.
func syncRelease(fsys disk.FS, b *Backup, id ReleaseID) error {
	if err := disk.MkdirAll(fsys, b.dir, b.releasePath(id)); err != nil {
		return err
	}
	return fsys.SyncDir(b.releasePath(id))
}

// keepPrevious copies the record of a release to previous/, if there is one
// that is whole: a damaged record, or one of which a crash left only the half,
// does not replace a good one.
func keepPrevious(fsys disk.FS, b *Backup, id ReleaseID) error {
	closure, err := b.Closure(id)
	if err != nil {
		return ignoreDamage(err)
	}
	old, err := b.Release(id)
	if err != nil {
		return ignoreDamage(err)
	}
	if old.Paths != len(closure) || !old.Intact() || b.HalfWritten(id) {
		return nil
	}
	for _, name := range recordFiles {
		if err := copyPrevious(fsys, b.releasePath(id), name); err != nil {
			return err
		}
	}
	return nil
}

// ignoreDamage returns nil for a record that is damaged or not there.
func ignoreDamage(err error) error {
	var damage *bincache.DamageError
	if errors.As(err, &damage) || errors.Is(err, ErrNoRelease) {
		return nil
	}
	return err
}

// copyPrevious copies a file of a release to previous/; if there is none, there
// is none afterwards.
func copyPrevious(fsys disk.FS, dir, name string) error {
	data, err := layout.ReadFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := disk.MkdirAll(fsys, dir, filepath.Join(dir, layout.PreviousDir)); err != nil {
		return err
	}
	return writeOrRemove(fsys, filepath.Join(dir, layout.PreviousDir, name), data)
}

// writeOrRemove is WriteFile, or with nil data, the opposite.
func writeOrRemove(fsys disk.FS, name string, data []byte) error {
	if data == nil {
		return fsys.Remove(name)
	}
	return disk.WriteFile(fsys, name, data)
}
