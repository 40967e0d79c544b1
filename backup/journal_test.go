package backup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	files := []narFile{
		{URL: "nar/a.nar.zst", Compression: "zstd", FileHash: narinfo.Hash{1}, FileSize: 10, NarHash: narinfo.Hash{2}, NarSize: 20},
		{URL: "nar/b.nar", Compression: "none", FileHash: narinfo.Hash{3}, FileSize: 30, NarHash: narinfo.Hash{3}, NarSize: 30},
	}
	j := newJournal(disk.OS{}, dir)
	if known, err := j.load(); err != nil || len(known) != 0 {
		t.Fatalf("a missing journal is %v, %v", known, err)
	}
	// Two runs, the first of which was cut off in the middle of a line.
	if err := j.add(files[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.Write([]byte("sha256:0000")); err != nil {
		t.Fatal(err)
	}
	j.close()
	j = newJournal(disk.OS{}, dir)
	if err := j.add(files[1:]); err != nil {
		t.Fatal(err)
	}
	known, err := j.load()
	want := map[narinfo.Hash]narFile{files[0].NarHash: files[0], files[1].NarHash: files[1]}
	if err != nil || !reflect.DeepEqual(known, want) {
		t.Errorf("got %v, %v", known, err)
	}
	j.close()
}

// What is noted outlives a power cut, so that it is not done again.
func TestJournalIsDurable(t *testing.T) {
	n := narFile{URL: "nar/a.nar", Compression: "none", FileHash: narinfo.Hash{1}, FileSize: 10, NarHash: narinfo.Hash{1}, NarSize: 10}
	for seed := range uint64(8) {
		fs := backuptest.NewPowerFS(t, 0, backuptest.ErrPower, seed)
		j := newJournal(fs, t.TempDir())
		if err := j.add([]narFile{n}); err != nil {
			t.Fatal(err)
		}
		fs.Crash()
		if known, err := j.load(); err != nil || known[n.NarHash] != n {
			t.Errorf("it has %v, %v", known, err)
		}
		j.close()
	}
}

// What an interrupted backup finished is there for it also after other backups,
// and the journal gets no younger by them; in the end it is gone.
func TestJournalOutlivesOthers(t *testing.T) {
	s := twoReleases(t)
	info := s.NarInfo(s.Drop)
	fileHash, err := narinfo.ParseHash(info.FileHash)
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal(backuptest.Memory{}, s.Dir)
	lost := narFile{"nar/gone.nar", "none", narinfo.Hash{7}, 7, narinfo.Hash{7}, 7}
	err = j.add([]narFile{{info.URL, info.Compression, fileHash, info.FileSize, info.NarHash, info.NarSize}, lost})
	if err := errors.Join(err, j.close()); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(s.Path(layout.JournalFile), old, old); err != nil {
		t.Fatal(err)
	}
	s.Remove(layout.ReleasesDir, "p", "drop")
	s.Remove(layout.CacheDir, s.Drop.Hash()+bincache.NarInfoExt)

	mustRun(t, s.Dir, s.Store, request("other", s.Store.Add("new", "new")))
	known, err := newJournal(backuptest.Memory{}, s.Dir).load()
	if _, there := known[info.NarHash]; err != nil || !there || len(known) != 1 {
		t.Errorf("after another backup the journal has %v, %v", known, err)
	}
	if st, err := os.Stat(s.Path(layout.JournalFile)); err != nil || !st.ModTime().Equal(old) {
		t.Errorf("the journal is of %v, want %v, %v", st.ModTime(), old, err)
	}
	if r := mustRun(t, s.Dir, s.Store, request("drop", s.Drop)); r.Write.Paths != 0 {
		t.Errorf("written again: %+v", r.Estimate)
	}
	if backuptest.Exists(s.Path(layout.JournalFile)) {
		t.Error("the journal is left")
	}
	backuptest.CheckWhole(t, s.Dir, "p/keep", "p/drop", "p/other")
}

// No flipped byte of a line may name another file.
func TestJournalDamage(t *testing.T) {
	n := narFile{URL: "nar/a.nar.zst", Compression: "zstd", FileHash: narinfo.Hash{1}, FileSize: 10, NarHash: narinfo.Hash{2}, NarSize: 20}
	line := strings.TrimSuffix(formatJournalLine(n), "\n")
	if got, ok := parseJournalLine(line); !ok || got != n {
		t.Fatalf("got %v, %v", got, ok)
	}
	for i := range line {
		for _, bit := range []byte{1, 0x20, 0x80} {
			damaged := []byte(line)
			damaged[i] ^= bit
			if got, ok := parseJournalLine(string(damaged)); ok {
				t.Errorf("%q was taken for %v", damaged, got)
			}
		}
	}
}

func TestJournalUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, layout.JournalFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := newJournal(disk.OS{}, dir).load(); err == nil {
		t.Error("a directory was read as a journal")
	}
}

func FuzzJournalLine(f *testing.F) {
	f.Add(formatJournalLine(narFile{URL: "nar/a", Compression: "none", FileSize: 1, NarSize: 1}))
	f.Fuzz(func(t *testing.T, line string) {
		if n, ok := parseJournalLine(line); ok && bincache.CheckURL(n.URL) != nil {
			t.Errorf("%q names %q", line, n.URL)
		}
	})
}
