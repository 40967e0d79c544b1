package backup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/disk"
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
	if err := j.remove(); err != nil || exists(filepath.Join(dir, journalFile)) {
		t.Errorf("the journal is still there (%v)", err)
	}
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
	if err := os.Mkdir(filepath.Join(dir, journalFile), 0o755); err != nil {
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
