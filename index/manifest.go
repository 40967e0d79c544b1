package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/narread/narinfo"
)

// The names in an index directory.
const (
	currentFile    = "CURRENT"
	lockFile       = "lock"
	manifestFile   = "manifest"
	namesFile      = "names"
	referencesFile = "references"
	recordsDir     = "records"
	genPrefix      = "gen-"
	tempSuffix     = ".tmp"
)

const (
	formatVersion = 3
	maxManifest   = 16 << 20
	maxCurrent    = 256
)

// A manifest describes a generation.
type manifest struct {
	Version        int       `json:"version"`
	Generation     uint64    `json:"generation"`
	Created        time.Time `json:"created"`
	Cache          string    `json:"cache"`    // identity of what was indexed
	StoreDir       string    `json:"storeDir"` // of the cache
	Numbering      string    `json:"numbering"`
	NextNumber     uint32    `json:"nextNumber"` // all numbers in use are smaller
	Paths          int       `json:"paths"`
	NamesSize      int       `json:"namesSize"`      // bytes of the table, unpacked
	ReferencesSize int       `json:"referencesSize"` // likewise
	Entries        int64     `json:"entries"`        // in all listings
	NarSize        int64     `json:"narSize"`        // bytes of all NARs
	Files          []file    `json:"files"`
}

// A file is one that a generation consists of.
type file struct {
	Name string       `json:"name"` // relative to the generation
	Size int64        `json:"size"`
	Sum  narinfo.Hash `json:"sha256"`
	// Tail is where the part begins that is read when the generation is opened,
	// and TailSum the sum of it.
	Tail    int64        `json:"tail"`
	TailSum narinfo.Hash `json:"tailSHA256"`
}

// genName returns the name of generation n, and parseGen the n of a name.
func genName(n uint64) string { return genPrefix + strconv.FormatUint(n, 10) }

func parseGen(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, genPrefix)
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, ok && err == nil && genName(n) == name
}

// A pointer is the content of CURRENT.
type pointer struct {
	gen uint64
	sum narinfo.Hash // of the manifest
}

func (p pointer) String() string { return fmt.Sprintf("%s %x\n", genName(p.gen), p.sum[:]) }

// readCurrent returns what CURRENT says. The error is fs.ErrNotExist when there
// is no index, a *DamageError when it says nothing sensible.
func readCurrent(dir string) (pointer, error) {
	name := filepath.Join(dir, currentFile)
	text, err := readFile(name, maxCurrent)
	if err != nil {
		return pointer{}, err
	}
	gen, digits, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	var p pointer
	var ok bool
	p.gen, ok = parseGen(gen)
	sum, err := hex.DecodeString(digits)
	if !ok || err != nil || len(sum) != len(p.sum) {
		return pointer{}, damage(name, "is malformed")
	}
	copy(p.sum[:], sum)
	return p, nil
}

// openFile opens a file for reading. It does not wait: what looks like a file
// may be a pipe, which nobody would ever write to.
func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// readFile reads a file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(min(st.Size(), limit)) + bytes.MinRead) // else it doubles as it grows
	_, err = b.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && int64(b.Len()) > limit {
		err = damage(name, "is larger than %d bytes", limit)
	}
	return b.Bytes(), err
}

// readManifest returns the manifest that p names, verified.
func readManifest(dir string, p pointer) (*manifest, error) {
	name := filepath.Join(dir, genName(p.gen), manifestFile)
	text, err := readFile(name, maxManifest)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(text) != p.sum {
		return nil, damage(name, "is not the one that CURRENT names")
	}
	m := &manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, damage(name, "%w", err)
	}
	switch {
	case m.Version != formatVersion:
		return nil, &DamageError{File: name, Err: &VersionError{m.Version}}
	case m.Generation != p.gen, m.Paths < 0, m.NamesSize < 0, m.ReferencesSize < 0, m.NextNumber < 1, m.NextNumber > maxNumber+1:
		return nil, damage(name, "contradicts itself")
	}
	return m, nil
}

// find returns the file called name.
func (m *manifest) find(name string) (file, bool) {
	i := slices.IndexFunc(m.Files, func(f file) bool { return f.Name == name })
	if i < 0 {
		return file{}, false
	}
	return m.Files[i], true
}

// checkFiles makes sure that the generation in dir consists of the files that
// it should, in their sizes, and that what is going to be read at once is right.
func (m *manifest) checkFiles(dir string) error {
	there, err := listFiles(dir)
	if err != nil {
		return err
	}
	there = slices.DeleteFunc(there, func(name string) bool { return name == manifestFile })
	// Badger deletes tables that it does not know, even when it only reads.
	if len(there) != len(m.Files) {
		return damage(dir, "has %d files instead of %d", len(there), len(m.Files))
	}
	for _, f := range m.Files {
		if !slices.Contains(there, f.Name) {
			return damage(filepath.Join(dir, f.Name), "is missing")
		}
		if err := f.check(context.Background(), dir, f.Tail, f.TailSum); err != nil {
			return err
		}
	}
	return nil
}

// check compares the size of a file, and the sum of its bytes from off on.
func (f file) check(ctx context.Context, dir string, off int64, want narinfo.Hash) error {
	name := filepath.Join(dir, f.Name)
	got, size, err := hashFile(ctx, name, off)
	switch {
	case err != nil:
		return err
	case size != f.Size:
		return damage(name, "has %d bytes instead of %d", size, f.Size)
	case got != want:
		return damage(name, "has changed")
	}
	return nil
}

// hashFile returns the sum of the bytes of a file from off on, and its size.
func hashFile(ctx context.Context, name string, off int64) (sum narinfo.Hash, size int64, err error) {
	f, err := openFile(name)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return sum, 0, err
	}
	h := sha256.New()
	r := &contextReader{ctx, io.NewSectionReader(f, off, max(st.Size()-off, 0))}
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, 256<<10)); err != nil {
		return sum, 0, fmt.Errorf("hash %s: %w", name, err)
	}
	return narinfo.Hash(h.Sum(nil)), st.Size(), nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// listFiles returns the files of a generation, relative to it, sorted. What is
// no regular file is damage.
func listFiles(dir string) ([]string, error) {
	var files []string
	for _, sub := range []string{"", recordsDir} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) && sub != "" {
			return nil, damage(filepath.Join(dir, sub), "is missing")
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := filepath.Join(sub, e.Name())
			if e.IsDir() && name == recordsDir {
				continue
			}
			if !e.Type().IsRegular() {
				return nil, damage(filepath.Join(dir, name), "is not a regular file")
			}
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files, nil
}

// describe returns what a manifest says of a file that was just written.
func describe(ctx context.Context, dir, name string) (file, error) {
	f := file{Name: name}
	path := filepath.Join(dir, name)
	var err error
	if f.Sum, f.Size, err = hashFile(ctx, path, 0); err != nil {
		return f, err
	}
	switch {
	case name == referencesFile: // read only when a narinfo is asked for
		f.Tail = f.Size
	case filepath.Ext(name) == ".sst":
		if f.Tail, err = tableTail(path, f.Size); err != nil {
			return f, err
		}
	}
	f.TailSum, _, err = hashFile(ctx, path, f.Tail)
	return f, err
}

// tableTail returns where in a Badger table the part begins that is read when
// the table is opened: its last block, the index, and the footer
//
//	index, its size (4 bytes), checksum, its size (4 bytes)
//
// Which block is the last one is in the index; that it is no larger than twice
// a piece is due to us.
func tableTail(name string, size int64) (int64, error) {
	f, err := openFile(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end := size
	for range 2 {
		var b [4]byte
		if _, err := f.ReadAt(b[:], end-4); err != nil {
			return 0, fmt.Errorf("read footer of %s: %w", name, err)
		}
		end -= 4 + int64(binary.BigEndian.Uint32(b[:]))
	}
	return max(end-2*pieceSize, 0), nil
}

// encode returns the bytes of the file.
func (m *manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	err := e.Encode(m)
	return b.Bytes(), err
}
