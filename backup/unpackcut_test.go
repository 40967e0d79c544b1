package backup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/unpack"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
	"github.com/narvault/narvault/narread/testenv/blockfs"
)

// A cutScene restores a release into a real file system, from which the power is
// taken again and again.
type cutScene struct {
	*testing.T
	b     *Backup
	store *backuptest.Store
	items []UnpackItem
	fs    *blockfs.FS
	rng   *rand.Rand
	cuts  []string // images of what would be left
	whole []int    // how many items were restored, durably, when they were taken
	done  int
}

func newCutScene(t *testing.T) *cutScene {
	s := &cutScene{T: t, store: backuptest.NewStore(t), rng: rand.New(rand.NewPCG(5, 5))}
	lib := s.store.Add("lib", strings.Repeat("library ", 40_000))
	zeros := s.store.Add("zeros", "x"+strings.Repeat("\x00", 300_000)+"x", lib)
	top := s.store.Add("top", strings.Repeat("0123456789abcdef", 20_000), zeros)
	for name, text := range map[string]string{"dir/a": strings.Repeat("a", 100_000), "dir/b": "b", "dir/deep/empty": ""} {
		file := filepath.Join(s.store.RealPath(top), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.store.Register(top, []storepath.Path{zeros})
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, s.store, request("r", top))
	b, err := Open(dir, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s.b = b
	for _, p := range []storepath.Path{lib, zeros, top} {
		s.items = append(s.items, UnpackItem{Path: p})
	}
	if s.fs, err = blockfs.Make(filepath.Join(t.TempDir(), "disk"), t.TempDir(), 16); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// cut takes what a power cut would leave now; at times the kernel has just
// written something of its own accord.
func (s *cutScene) cut() {
	s.Helper()
	if s.rng.IntN(3) > 0 {
		s.writeBack()
	}
	image := filepath.Join(s.TempDir(), "cut")
	if err := s.fs.Cut(image); err != nil {
		s.Fatal(err)
	}
	s.cuts, s.whole = append(s.cuts, image), append(s.whole, s.done)
}

// writeBack lets one file or directory reach the disk, as the kernel may at any
// time. With it go the names of all others, without what is in these.
func (s *cutScene) writeBack() {
	s.Helper()
	var names []string
	filepath.WalkDir(s.fs.Dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			names = append(names, name)
		}
		return nil
	})
	f, err := os.Open(names[s.rng.IntN(len(names))])
	if err != nil {
		return // it was a temporary file
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		s.Error(err)
	}
}

func (s *cutScene) unpack(ctx context.Context, to string, progress RestoreProgress, items ...UnpackItem) error {
	_, err := s.b.Unpack(ctx, UnpackRequest{Dir: to, Items: items, Progress: progress})
	return err
}

// TestUnpackPowerCut restores a release, takes the power away in the middle of
// each store path, at its end, and when the process was killed there before. Of
// what is left, nothing that has its name, and nothing that the receipt or the
// sums tell of, is wrong; what was restored before is there; and the next run
// completes the rest.
func TestUnpackPowerCut(t *testing.T) {
	testenv.Need(t, "root", "mkfs.ext4", "losetup")
	s := newCutScene(t)
	to := filepath.Join(s.fs.Dir, "to")
	for i, it := range s.items {
		// Killed in the middle, and begun again.
		ctx, cancel := context.WithCancel(t.Context())
		read := 0
		kill := RestoreProgress{Read: func(n int) {
			if read += n; read > 100_000 {
				s.cut()
				cancel()
			}
		}}
		if err := s.unpack(ctx, to, kill, it); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		s.cut()
		progress := RestoreProgress{Read: func(int) { s.cut() }, Done: func(storepath.Path) { s.cut() }}
		if err := s.unpack(t.Context(), to, progress, it); err != nil {
			t.Fatal(err)
		}
		s.done = i + 1
		s.cut()
	}
	t.Logf("%d cuts", len(s.cuts))
	if len(s.cuts) < 20 {
		t.Error("these are too few")
	}
	for i := range s.cuts {
		s.after(i)
		if t.Failed() {
			t.Fatalf("it was cut %d of %d", i, len(s.cuts))
		}
	}
}

// after mounts what a power cut left.
func (s *cutScene) after(i int) {
	s.Helper()
	disk, err := blockfs.Mount(s.cuts[i], s.TempDir())
	if err != nil {
		s.Fatal(err)
	}
	defer func() {
		if err := disk.Close(); err != nil {
			s.Error(err)
		}
	}()
	to := filepath.Join(disk.Dir, "to")
	there := 0
	for _, it := range s.items {
		if backuptest.Exists(filepath.Join(to, string(it.Path))) {
			there++
			s.same(to, it.Path)
		}
	}
	if there < s.whole[i] {
		s.Errorf("%d store paths are there, %d were restored", there, s.whole[i])
	}
	s.checkReceipt(to)
	if err := s.unpack(s.Context(), to, RestoreProgress{}, s.items...); err != nil {
		s.Errorf("the next run: %v", err)
	}
	for _, it := range s.items {
		s.same(to, it.Path)
	}
	if n := s.checkReceipt(to); n != len(s.items) {
		s.Errorf("the receipt has %d store paths", n)
	}
	if names, err := os.ReadDir(to); err != nil || len(names) != len(s.items)+2 {
		s.Errorf("there are %v, %v", names, err)
	}
}

// same checks that a restored store path is what was archived.
func (s *cutScene) same(to string, p storepath.Path) {
	s.Helper()
	sum := newSum()
	if _, _, err := nar.Dump(s.Context(), sum, filepath.Join(to, string(p))); err != nil || sum.sum() != s.store.Valid[p].NarHash {
		s.Errorf("%s is not what was archived (%v)", p, err)
	}
}

// checkReceipt checks that all is right that the receipt and the sums say is
// there, and returns how many store paths the receipt names.
func (s *cutScene) checkReceipt(to string) int {
	s.Helper()
	sums, err := os.ReadFile(filepath.Join(to, unpack.SumsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Error(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, name, _ := strings.Cut(lines.Text(), "  ")
		text, err := os.ReadFile(filepath.Join(to, name))
		if got := sha256.Sum256(text); err != nil || hex.EncodeToString(got[:]) != sum {
			s.Errorf("%s has another sum than %s says (%v)", name, unpack.SumsFile, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(to, unpack.ReceiptFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var r UnpackResult
	if err := errors.Join(err, json.Unmarshal(text, &r)); err != nil {
		s.Error(fmt.Errorf("%s: %w", unpack.ReceiptFile, err))
	}
	for _, it := range r.Items {
		if it.State == unpack.Restored || it.State == unpack.Kept {
			s.same(to, it.StorePath)
		}
	}
	return len(r.Items)
}
