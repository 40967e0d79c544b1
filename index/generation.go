package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/zpack"
)

// A generation is an open one, held by a shared lock on its directory.
type generation struct {
	dir      string
	current  pointer
	lock     *os.File
	manifest *manifest
	names    *names
	store    *store // nil if the records are damaged: see openGeneration
	codec    *codec

	entries func() []Entry                  // names.entries, made once
	table   func() (*referenceTable, error) // read once; the error is a *DamageError

	mu   sync.Mutex
	refs int // guarded by mu; 0: closed
}

// attempts is how often the generation that CURRENT names is looked for: a
// builder may have replaced and removed it in the meantime.
const attempts = 10

var errVanished = errors.New("generation was removed")

// openCurrent opens the generation that CURRENT names.
func openCurrent(dir string, cache string) (*generation, error) {
	var err error
	for range attempts {
		var p pointer
		if p, err = readCurrent(dir); err != nil {
			return nil, err
		}
		var g *generation
		if g, err = lockGeneration(dir, p); err == nil {
			if err = g.open(cache); err == nil {
				return g, nil
			}
			g.close()
			return nil, err
		}
		if !errors.Is(err, errVanished) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, damage(filepath.Join(dir, currentFile), "names a generation that is not there: %v", err)
}

// lockGeneration holds the generation that p names, without opening it. The
// error is errVanished or fs.ErrNotExist when a builder is removing it or has
// done so.
func lockGeneration(dir string, p pointer) (*generation, error) {
	g := &generation{dir: filepath.Join(dir, genName(p.gen)), current: p, refs: 1}
	d, err := os.Open(g.dir)
	if err != nil {
		return nil, err
	}
	err = flock(d, syscall.LOCK_SH)
	if err == nil && !isPath(d, g.dir) {
		err = errVanished
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	g.lock = d
	return g, nil
}

// flock takes a lock without waiting. The error is errVanished when it is held.
// File systems that have no locks are taken as if nobody held one: files that
// are mapped stay readable when they are removed.
func flock(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errVanished
	}
	return nil
}

// isPath reports whether f is what is called name now.
func isPath(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(name)
	return err == nil && os.SameFile(a, b)
}

// open reads the names and opens the records, in this order: after an error,
// what could be opened is set. Damage of any kind is a *DamageError.
func (g *generation) open(cache string) error {
	err := g.openNames(cache)
	if err == nil {
		err = g.openRecords()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &DamageError{File: g.dir, Err: fmt.Errorf("%v", err)} // not: "there is no index"
	}
	return err
}

func (g *generation) openNames(cache string) error {
	m, err := readManifest(filepath.Dir(g.dir), g.current)
	if err != nil {
		return err
	}
	if cache != "" && m.Cache != cache {
		return damage(g.dir, "is of another cache: %s, not %s", m.Cache, cache)
	}
	n, err := readNames(filepath.Join(g.dir, namesFile), m)
	if err != nil {
		return err
	}
	if g.codec, err = newCodec(); err != nil {
		return err
	}
	g.manifest, g.names = m, n
	g.entries = sync.OnceValue(n.entries)
	g.table = sync.OnceValues(g.readReferences)
	return nil
}

// readNames reads and checks the names that m describes.
func readNames(name string, m *manifest) (*names, error) {
	table, err := m.readPacked(name, m.NamesSize)
	if err != nil {
		return nil, err
	}
	n, err := decodeNames(table)
	if err == nil && n.count() != m.Paths {
		err = fmt.Errorf("has %d store paths instead of %d", n.count(), m.Paths)
	}
	if err != nil {
		return nil, damage(name, "%w", err)
	}
	return n, nil
}

// readPacked reads and checks a file of a generation that holds a table of size
// bytes.
func (m *manifest) readPacked(name string, size int) ([]byte, error) {
	f, ok := m.find(filepath.Base(name))
	if !ok {
		return nil, damage(name, "is not in the manifest")
	}
	packed, err := readFile(name, f.Size)
	switch {
	case err != nil:
		return nil, err
	case int64(len(packed)) != f.Size:
		return nil, damage(name, "has %d bytes instead of %d", len(packed), f.Size)
	case sha256.Sum256(packed) != f.Sum:
		return nil, damage(name, "has changed")
	}
	if tooDense(uint64(size), uint64(len(packed))) {
		return nil, damage(name, "has a table of %d bytes", size)
	}
	pack, err := zpack.New() // for this alone: it would keep the whole table
	if err != nil {
		return nil, err
	}
	table, err := pack.Unpack(packed, size)
	if err != nil {
		return nil, damage(name, "%w", err)
	}
	return table, nil
}

func (g *generation) readReferences() (*referenceTable, error) {
	name := filepath.Join(g.dir, referencesFile)
	table, err := g.manifest.readPacked(name, g.manifest.ReferencesSize)
	if errors.Is(err, fs.ErrNotExist) {
		err = damage(name, "%v", err) // not: "the cache does not have it"
	}
	if err != nil {
		return nil, err
	}
	t, err := decodeReferences(table, g.names)
	if err != nil {
		return nil, damage(name, "%w", err)
	}
	return t, nil
}

// references returns the references of a path that its record leaves out.
func (g *generation) references(p storepath.Path) ([]storepath.Path, error) {
	t, err := g.table()
	if err != nil {
		return nil, err
	}
	place, ok := g.names.find(string(p))
	if !ok {
		return nil, nil
	}
	return t.of(place), nil
}

func (g *generation) openRecords() error {
	if err := g.manifest.checkFiles(g.dir); err != nil {
		return err
	}
	s, err := openStore(filepath.Join(g.dir, recordsDir))
	if err != nil {
		return &DamageError{File: g.dir, Err: err}
	}
	g.store = s
	return nil
}

// value returns the encoded record of e, verified.
func (g *generation) value(e Entry) ([]byte, error) {
	if g.store == nil {
		return nil, damage(g.dir, "has no records")
	}
	value, err := g.store.get(e.Number)
	if err == nil && !sealed(value, e) {
		err = errRecord
	}
	if err != nil {
		return nil, damage(g.dir, "record of %s: %w", e.Path, err)
	}
	return value, nil
}

// verify hashes all files.
func (g *generation) verify(ctx context.Context) error {
	for _, f := range g.manifest.Files {
		err := f.check(ctx, g.dir, 0, f.Sum)
		if errors.Is(err, fs.ErrNotExist) {
			err = damage(g.dir, "%v", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// retain adds a reference, unless the last one is gone.
func (g *generation) retain() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs == 0 {
		return false
	}
	g.refs++
	return true
}

// close drops a reference. With the last one the generation is closed, and a
// builder may remove it.
func (g *generation) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs--; g.refs > 0 {
		return nil
	}
	var err error
	if g.store != nil {
		err = g.store.close()
	}
	return errors.Join(err, g.lock.Close())
}
