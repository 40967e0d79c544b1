package backuptest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/narvault/narvault/backup/disk"
)

// Memory is the real file system without the waiting for the disk: for what
// tests do before and after the fault.
type Memory struct{ disk.OS }

// SyncDir implements disk.FS.
func (Memory) SyncDir(string) error { return nil }

// CreateTemp implements disk.FS.
func (Memory) CreateTemp(dir string) (disk.File, error) {
	f, err := disk.OS{}.CreateTemp(dir)
	return unsynced{f}, err
}

// Append implements disk.FS.
func (Memory) Append(name string) (disk.File, error) {
	f, err := disk.OS{}.Append(name)
	return unsynced{f}, err
}

type unsynced struct{ disk.File }

func (unsynced) Sync() error { return nil }

// ErrPower is what every operation returns once the power is gone.
var ErrPower = errors.New("the power is gone")

// A PowerFS is the real file system until its power fails at a chosen
// operation. Then Crash puts the disk into a state that a power cut may leave:
// of every directory, the name changes since its last SyncDir may be lost from
// some point on, together or each name for itself, and what was written to a file
// after its last Sync is lost. A file that was moved to another directory may be
// in both.
type PowerFS struct {
	t      *testing.T
	failAt int   // the operation that fails, 0 for never
	fail   error // with which error; ErrPower ends everything
	rng    *rand.Rand
	shadow string // where replaced and removed files are kept until they are gone for good

	mu      sync.Mutex
	Ops     int // so far
	dead    bool
	files   map[string]*powerFile // by present name
	pending map[string][]nameOp   // by directory
}

// A nameOp is a change of a directory that a crash can undo.
type nameOp struct {
	name string
	undo func()
}

// NewPowerFS makes one whose operation failAt, counted from 1, fails with fail; 0
// is none. What a crash loses is chosen by the seed.
func NewPowerFS(t *testing.T, failAt int, fail error, seed uint64) *PowerFS {
	return &PowerFS{
		t: t, failAt: failAt, fail: fail, shadow: t.TempDir(),
		rng:   rand.New(rand.NewPCG(seed, seed)),
		files: make(map[string]*powerFile), pending: make(map[string][]nameOp),
	}
}

// step counts an operation and says whether it may happen. The caller holds mu.
func (p *PowerFS) step() error {
	if p.dead {
		return ErrPower
	}
	p.Ops++
	if p.Ops != p.failAt {
		return nil
	}
	p.dead = errors.Is(p.fail, ErrPower)
	return p.fail
}

func (p *PowerFS) changed(name string, undo func()) {
	dir := filepath.Dir(name)
	p.pending[dir] = append(p.pending[dir], nameOp{name, undo})
}

func (p *PowerFS) must(err error) {
	if err != nil {
		p.t.Error(err)
	}
}

// keep saves what is at name, and returns how to bring it back; nil if there is
// nothing.
func (p *PowerFS) keep(name string) (restore func()) {
	saved := filepath.Join(p.shadow, fmt.Sprint(p.Ops))
	if err := os.Link(name, saved); err != nil {
		return nil
	}
	file := p.files[name]
	return func() {
		os.Remove(name)
		p.must(os.Link(saved, name))
		p.files[name] = file
	}
}

// CreateTemp implements disk.FS.
func (p *PowerFS) CreateTemp(dir string) (disk.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return nil, err
	}
	f, err := disk.OS{}.CreateTemp(dir)
	if err != nil {
		return nil, err
	}
	return p.opened(f, 0), nil
}

// Append implements disk.FS.
func (p *PowerFS) Append(name string) (disk.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return nil, err
	}
	st, statErr := os.Stat(name)
	f, err := disk.OS{}.Append(name)
	if err != nil {
		return nil, err
	}
	if statErr != nil {
		return p.opened(f, 0), nil
	}
	file := &powerFile{File: f, fs: p, size: st.Size(), durable: st.Size()}
	p.files[name] = file
	return file, nil
}

func (p *PowerFS) opened(f disk.File, size int64) *powerFile {
	file := &powerFile{File: f, fs: p, size: size, durable: size}
	p.files[f.Name()] = file
	p.changed(f.Name(), func() { os.Remove(f.Name()) })
	return file
}

// Rename implements disk.FS.
func (p *PowerFS) Rename(from, to string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return err
	}
	for dir := range p.pending {
		if dir == from || strings.HasPrefix(dir, from+"/") {
			p.t.Errorf("%s is moved before the names in it are durable", from)
		}
	}
	restore := p.keep(to)
	if err := (disk.OS{}).Rename(from, to); err != nil {
		return err
	}
	file := p.files[from]
	if file != nil {
		p.files[to] = file
		delete(p.files, from)
	}
	p.changed(to, func() {
		os.Remove(from) // if it has come back already, below
		p.must(os.Rename(to, from))
		delete(p.files, to)
		p.files[from] = file
		if restore != nil {
			restore()
		}
	})
	if filepath.Dir(from) != filepath.Dir(to) {
		// The new name is durable, that the old one is gone is not. (A directory
		// cannot be in two places: that it is moved is one change.)
		p.changed(from, func() { os.Link(to, from) })
	}
	return nil
}

// SyncDir implements disk.FS.
func (p *PowerFS) SyncDir(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return err
	}
	delete(p.pending, filepath.Clean(dir))
	return nil
}

// Mkdir implements disk.FS.
func (p *PowerFS) Mkdir(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return err
	}
	_, statErr := os.Stat(dir)
	if err := (disk.OS{}).Mkdir(dir); err != nil {
		return err
	}
	if statErr != nil {
		p.changed(dir, func() { p.must(os.RemoveAll(dir)) })
	}
	return nil
}

// Remove implements disk.FS.
func (p *PowerFS) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A disk that is full can still delete.
	if err := p.step(); errors.Is(err, ErrPower) {
		return err
	}
	restore := p.keep(name)
	if st, err := os.Lstat(name); err == nil && st.IsDir() {
		restore = func() { p.must(os.Mkdir(name, 0o755)) }
	}
	if err := (disk.OS{}).Remove(name); err != nil {
		return err
	}
	delete(p.files, name)
	if restore != nil {
		p.changed(name, restore)
	}
	return nil
}

// Revive lets operations succeed again, as for the next process after a kill.
func (p *PowerFS) Revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead, p.failAt = false, 0
}

// Crash takes back what was not made durable. A directory comes before what is
// in it: one that is not there takes along what happened in it.
func (p *PowerFS) Crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for name, f := range p.files {
		if f != nil && f.size > f.durable {
			p.must(os.Truncate(name, f.durable))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(p.pending)) {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			continue
		}
		p.lose(p.pending[dir])
	}
	// What is there now is what is on the disk, for who begins anew (Revive).
	clear(p.files)
	clear(p.pending)
}

// lose takes back changes of a directory: all from some point on, or, as file
// systems may that keep no order among names, those of each name from some point
// on.
func (p *PowerFS) lose(ops []nameOp) {
	inOrder := p.rng.IntN(2) == 0
	count, survive := make(map[string]int), make(map[string]int)
	for i := range ops {
		if inOrder {
			ops[i].name = ""
		}
		count[ops[i].name]++
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		survive[name] = p.rng.IntN(count[name] + 1)
	}
	for _, op := range slices.Backward(ops) {
		if count[op.name]--; count[op.name] >= survive[op.name] {
			op.undo()
		}
	}
}

// A powerFile knows how much of it is durable.
type powerFile struct {
	disk.File
	fs            *PowerFS
	size, durable int64 // guarded by fs.mu
}

func (f *powerFile) Write(b []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step(); err != nil {
		// A write that is cut off may have done a part.
		n, _ := f.File.Write(b[:len(b)/2])
		f.size += int64(n)
		return n, err
	}
	n, err := f.File.Write(b)
	f.size += int64(n)
	return n, err
}

func (f *powerFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step(); err != nil {
		return err
	}
	f.durable = f.size
	return nil
}

// Everywhere stops do at each of its operations on the file system, the first of
// which is 1, on a copy of the scene for each: the operation fails with fault,
// after is called, and then check.
func (s *Scene) Everywhere(t *testing.T, fault error, after func(*PowerFS), do func(*Scene, *PowerFS) error, check func(*Scene)) {
	t.Helper()
	for op := 1; !t.Failed(); op++ {
		c := s.Copy(t)
		fs := NewPowerFS(t, op, fault, uint64(op))
		if err := do(c, fs); err != nil && !errors.Is(err, fault) {
			t.Fatalf("operation %d: ended with %v", op, err)
		}
		done := fs.Ops < op
		after(fs)
		check(c)
		if t.Failed() {
			t.Errorf("it was operation %d", op)
		}
		if done {
			t.Logf("%d operations", op-1)
			return
		}
	}
}
