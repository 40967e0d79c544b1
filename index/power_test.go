package index

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A powerDisk is a disk whose power fails before its n-th operation. Then crash
// takes back what was not durable: the changes of each name since the last
// SyncDir of its directory, from some point on, and the content of files that
// were not synced.
type powerDisk struct {
	osDisk
	t      *testing.T
	left   int
	fail   error // of that operation; errCrash ends everything
	dead   bool
	rng    *rand.Rand
	shadow string // where removed directories are kept

	undo    map[string]map[string][]func() // by directory, and name in it without tempSuffix
	durable map[string]bool                // files of generations being made that were synced
	made    []string                       // directories
}

func newPowerDisk(t *testing.T, left int, fail error) *powerDisk {
	return &powerDisk{
		t: t, left: left, fail: fail, shadow: t.TempDir(), rng: rand.New(rand.NewPCG(uint64(left), 1)),
		undo: make(map[string]map[string][]func()), durable: make(map[string]bool),
	}
}

func (d *powerDisk) step() error {
	if d.dead {
		return d.fail
	}
	if d.left--; d.left != -1 {
		return nil
	}
	d.dead = errors.Is(d.fail, errCrash)
	return d.fail
}

func (d *powerDisk) changed(name string, undo func()) {
	dir, base := filepath.Dir(name), strings.TrimSuffix(filepath.Base(name), tempSuffix)
	if d.undo[dir] == nil {
		d.undo[dir] = make(map[string][]func())
	}
	d.undo[dir][base] = append(d.undo[dir][base], undo)
}

func (d *powerDisk) Mkdir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.made = append(d.made, name)
	d.changed(name, func() { must(d.t, os.RemoveAll(name)) })
	return d.osDisk.Mkdir(name)
}

func (d *powerDisk) Write(name string, data []byte) error {
	if err := d.step(); err != nil {
		_ = os.WriteFile(name, data[:len(data)/2], 0o600)
		return err
	}
	before, err := os.ReadFile(name)
	d.changed(name, func() {
		if err != nil {
			_ = os.Remove(name)
		} else {
			must(d.t, os.WriteFile(name, before, 0o600))
		}
	})
	d.durable[name] = true
	return d.osDisk.Write(name, data)
}

func (d *powerDisk) Sync(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.durable[name] = true
	return nil
}

func (d *powerDisk) SyncDir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	delete(d.undo, name)
	return nil
}

func (d *powerDisk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	before, err := os.ReadFile(to) // of CURRENT; a generation is not renamed over another
	d.changed(to, func() {
		must(d.t, os.Rename(to, from))
		if err == nil {
			must(d.t, os.WriteFile(to, before, 0o600))
		}
	})
	return d.osDisk.Rename(from, to)
}

func (d *powerDisk) RemoveAll(name string) error {
	if err := d.step(); errors.Is(err, errCrash) {
		return err // a full disk can still delete
	}
	away := filepath.Join(d.shadow, fmt.Sprint(d.rng.Uint64()))
	if os.Rename(name, away) == nil {
		d.changed(name, func() { must(d.t, os.Rename(away, name)) })
	}
	return nil
}

// crash is the power cut. The deeper directories come first: what is in one that
// was moved or removed is lost, or not, with the names that it has there.
//
// With pointerFirst, CURRENT alone reaches the disk in time.
func (d *powerDisk) crash(pointerFirst bool) {
	for _, dir := range d.made {
		for _, at := range []string{dir, strings.Replace(dir, tempSuffix, "", 1)} {
			files, _ := filepath.Glob(filepath.Join(at, "*"))
			for _, name := range files {
				if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() && !d.durable[filepath.Join(dir, filepath.Base(name))] {
					must(d.t, os.Truncate(name, 0))
				}
			}
		}
	}
	dirs := slices.Sorted(maps.Keys(d.undo))
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(d.undo[dir])) {
			ops := d.undo[dir][name]
			survive := d.rng.IntN(len(ops) + 1)
			if pointerFirst {
				survive = 0
				if name == currentFile {
					survive = len(ops)
				}
			}
			for i := len(ops) - 1; i >= survive; i-- {
				ops[i]()
			}
		}
	}
}

// A power cut at every operation leaves an index that opens, or none that is
// taken for one, and the next build makes all well. So does a full disk.
func TestPowerCutAtEveryStep(t *testing.T) {
	for _, pointerFirst := range []bool{false, true} {
		testEveryStep(t, errCrash, func(d *powerDisk) { d.crash(pointerFirst) })
	}
}

func TestFullDiskAtEveryStep(t *testing.T) {
	testEveryStep(t, syscall.ENOSPC, func(*powerDisk) {})
}

func testEveryStep(t *testing.T, fail error, after func(*powerDisk)) {
	for steps := 0; ; steps++ {
		f := newFakeCache(t, 5)
		dir := t.TempDir()
		f.build(dir, BuildOptions{})
		before := *f
		before.want = maps.Clone(f.want)
		f.remove(f.paths()[1])
		f.add("added")

		d := newPowerDisk(t, steps, fail)
		_, err := Build(t.Context(), dir, f.open(), BuildOptions{disk: d})
		if err != nil && !errors.Is(err, fail) {
			t.Fatalf("step %d: %v", steps, err)
		}
		done := d.left >= 0
		after(d)
		checkEither(t, dir, &before, f)
		f.build(dir, BuildOptions{})
		f.check(dir)
		if got := generations(t, dir); len(got) != 1 {
			t.Errorf("step %d: generations %v", steps, got)
		}
		if t.Failed() {
			t.Fatalf("it was step %d", steps)
		}
		if done {
			t.Logf("%d operations", steps)
			return
		}
	}
}
