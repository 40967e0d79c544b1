package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

// emptyBackup makes a backup without releases.
func emptyBackup(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "backup")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := create(backuptest.Memory{}, dir, "/nix/store", Config{Compression: "zstd", Level: 1}, bincache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	return dir
}

// dumpOf asks for a dump with this text.
func dumpOf(database, text string) *DumpRequest {
	return &DumpRequest{Write: func(_ context.Context, w io.Writer) (string, json.RawMessage, error) {
		_, err := io.WriteString(w, text)
		return database, json.RawMessage(`{"n":1}`), err
	}}
}

func mustAddDump(t *testing.T, dir string, req *DumpRequest) *DumpResult {
	t.Helper()
	r, err := addDump(t.Context(), backuptest.Memory{}, dir, req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dumpTexts returns what the dumps of a backup hold, the newest first.
func dumpTexts(t *testing.T, dir string) (texts []string) {
	t.Helper()
	b := mustOpen(t, dir)
	dumps, err := b.Dumps()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dumps {
		text, err := readDump(d)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

func readDump(d *Dump) (string, error) {
	r, err := d.Open()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), errors.Join(err, r.Close())
}

// TestDumps adds, lists, finds and rotates dumps.
func TestDumps(t *testing.T) {
	dir := emptyBackup(t)
	long := strings.Repeat("row of a table\n", 100_000)
	first := mustAddDump(t, dir, dumpOf("hydra", "first"))
	second := mustAddDump(t, dir, dumpOf("hydra", long)) // within the same second
	b := mustOpen(t, dir)
	d, err := b.Dump("")
	if err != nil || d.File != second.Dump.File || d.Database != "hydra" || len(d.Info) == 0 || d.Size == 0 || d.Verified != nil {
		t.Errorf("the newest is %+v, %v", d, err)
	}
	mustAddDump(t, dir, dumpOf("../ü b", "odd"))
	if got := dumpTexts(t, dir); !slices.Contains(got, "first") || !slices.Contains(got, long) || !slices.Contains(got, "odd") || len(got) != 3 {
		t.Fatalf("%d dumps", len(got))
	}
	// There are hashes of passwords in it.
	if st, err := os.Stat(d.File); err != nil || st.Mode() != 0o600 {
		t.Errorf("the mode of a dump is %v, %v", st.Mode(), err)
	}
	if _, err := b.Dump(""); err == nil || !strings.Contains(err.Error(), "several databases") {
		t.Errorf("the newest of two databases: %v", err)
	}
	byName, err := b.Dump(filepath.Base(first.Dump.File))
	if err != nil || byName.File != first.Dump.File || byName.Database != "hydra" {
		t.Errorf("by name: %+v, %v", byName, err)
	}
	if _, err := b.Dump("hydra-20140722.pgsql.xz"); !errors.Is(err, ErrNoDump) {
		t.Errorf("one that is not there: %v", err)
	}
	names, err := disk.ReadNames(filepath.Join(dir, layout.DumpsDir))
	if err != nil || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "%2E.%2F%C3%BC%20b-") }) {
		t.Errorf("names are %q, %v", names, err)
	}

	req := dumpOf("hydra", "third")
	req.Keep = 2
	r := mustAddDump(t, dir, req)
	if !slices.Equal(r.Removed, []string{first.Dump.File}) || backuptest.Exists(first.Dump.File+dumpInfoExt) || !backuptest.Exists(second.Dump.File) {
		t.Errorf("removed %v", r.Removed)
	}
	if got := dumpTexts(t, dir); len(got) != 3 || slices.Contains(got, "first") {
		t.Errorf("%d dumps are left", len(got))
	}
	// That of another server stays, and does not count.
	req = dumpOf("hydra", "fourth")
	req.Keep, req.Same = 2, func(older *Dump) bool { return older.File != second.Dump.File }
	if other := mustAddDump(t, dir, req); len(other.Removed) != 0 || !backuptest.Exists(r.Dump.File) || !backuptest.Exists(second.Dump.File) {
		t.Errorf("removed %v", other.Removed)
	}
	// Without what is known of it, a dump is as good.
	if err := os.WriteFile(second.Dump.File+dumpInfoExt, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Dump(filepath.Base(second.Dump.File)); err != nil || d.Database != "hydra" || d.Info != nil {
		t.Errorf("without a description: %+v, %v", d, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hydra-20140722.pgsql"), []byte("by hand"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Dump("hydra-20140722.pgsql"); err != nil || d.Size != 7 {
		t.Errorf("by hand: %+v, %v", d, err)
	}
}

// TestDumpDamaged reads dumps of which a byte changed, or the end is gone: what
// is read without an error is what was written.
func TestDumpDamaged(t *testing.T) {
	dir := emptyBackup(t)
	text := strings.Repeat("a row\n", 100_000)
	d := mustAddDump(t, dir, dumpOf("hydra", text)).Dump
	packed, err := os.ReadFile(d.File)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, content []byte) (damaged bool) {
		if err := os.WriteFile(d.File, content, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readDump(describedDump(d.File))
		if err == nil && got != text {
			t.Errorf("%s: another text is taken for good", name)
		}
		var damage *narread.DamageError
		if err != nil && !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
		return err != nil
	}
	damaged := 0
	for i := range packed {
		flipped := slices.Clone(packed)
		flipped[i] ^= 0x10
		if check(fmt.Sprintf("byte %d flipped", i), flipped) {
			damaged++
		}
		check(fmt.Sprintf("cut off at %d", i), packed[:i])
	}
	if damaged < len(packed)/2 {
		t.Errorf("%d of %d flipped bytes were damage", damaged, len(packed))
	}
}

// TestDumpVerified keeps a dump that could not be verified, and the others.
func TestDumpVerified(t *testing.T) {
	dir := emptyBackup(t)
	mustAddDump(t, dir, dumpOf("hydra", "old"))
	errTrial := errors.New("no room for a scratch database")
	req := dumpOf("hydra", "new")
	req.Keep = 1
	req.Verify = func(context.Context, *Dump) error { return errTrial }
	r, err := addDump(t.Context(), backuptest.Memory{}, dir, req)
	if !errors.Is(err, errTrial) || r == nil || !strings.Contains(err.Error(), "is kept, but was not verified") {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := dumpTexts(t, dir); len(got) != 2 {
		t.Errorf("dumps are %q", got)
	}
	req = dumpOf("hydra", "newest")
	req.Keep = 1
	req.Verify = func(_ context.Context, d *Dump) error {
		if !backuptest.Exists(d.File) {
			return errors.New("it is not there")
		}
		return nil
	}
	if r := mustAddDump(t, dir, req); r.Dump.Verified == nil || describedDump(r.Dump.File).Verified == nil || len(r.Removed) != 2 {
		t.Errorf("verified: %+v, removed %v", r.Dump, r.Removed)
	}
	if got := dumpTexts(t, dir); !slices.Equal(got, []string{"newest"}) {
		t.Errorf("dumps are %q", got)
	}
}

// TestDumpFails leaves nothing of a dump that fails, whatever was written.
func TestDumpFails(t *testing.T) {
	dir := emptyBackup(t)
	mustAddDump(t, dir, dumpOf("hydra", "old"))
	errDatabase := errors.New("the server went away")
	req := &DumpRequest{Keep: 1, Write: func(_ context.Context, w io.Writer) (string, json.RawMessage, error) {
		io.WriteString(w, strings.Repeat("half", 1<<20))
		return "", nil, errDatabase
	}}
	if r, err := addDump(t.Context(), backuptest.Memory{}, dir, req); r != nil || !errors.Is(err, errDatabase) {
		t.Errorf("%+v, %v", r, err)
	}
	backuptest.CheckNoTemp(t, dir)
	if got := dumpTexts(t, dir); !slices.Equal(got, []string{"old"}) {
		t.Errorf("dumps are %q", got)
	}
	if _, err := AddDump(t.Context(), t.TempDir(), *dumpOf("hydra", "x")); !errors.Is(err, ErrNoBackup) {
		t.Errorf("into what is no backup: %v", err)
	}
	busy, err := lock.Take(t.Context(), dir, lock.Excluding, lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	var locked *lock.HeldError
	if _, err := AddDump(t.Context(), dir, *dumpOf("hydra", "x")); !errors.As(err, &locked) {
		t.Errorf("while gc is at work: %v", err)
	}
}

// TestDumpCrashAnywhere cuts the power at each operation of a dump that rotates:
// there is always a dump that is whole.
func TestDumpCrashAnywhere(t *testing.T) {
	testDumpFaults(t, backuptest.ErrPower, func(fs *backuptest.PowerFS, _ string) { fs.Crash() })
}

// TestDumpDiskFullAnywhere lets one operation fail for lack of space.
func TestDumpDiskFullAnywhere(t *testing.T) {
	testDumpFaults(t, syscall.ENOSPC, func(_ *backuptest.PowerFS, dir string) {
		backuptest.CheckNoTemp(t, filepath.Join(dir, layout.DumpsDir))
	})
}

func testDumpFaults(t *testing.T, fault error, after func(fs *backuptest.PowerFS, dir string)) {
	newText := strings.Repeat("new row\n", 100_000)
	for op := 1; ; op++ {
		dir := emptyBackup(t)
		mustAddDump(t, dir, dumpOf("hydra", "older"))
		mustAddDump(t, dir, dumpOf("hydra", "old"))
		fs := backuptest.NewPowerFS(t, op, fault, uint64(op))
		req := dumpOf("hydra", newText)
		req.Keep = 1
		req.Verify = func(context.Context, *Dump) error { return nil }
		_, err := addDump(t.Context(), fs, dir, req)
		if err != nil && !errors.Is(err, fault) {
			t.Fatalf("operation %d: %v", op, err)
		}
		after(fs, dir)
		got := dumpTexts(t, dir)
		for _, text := range got {
			if text != "older" && text != "old" && text != newText {
				t.Errorf("operation %d: there is a dump of %d bytes", op, len(text))
			}
		}
		if !slices.Contains(got, newText) && !slices.Contains(got, "old") {
			t.Errorf("operation %d: dumps are %.40q", op, got)
		}
		if err == nil && !slices.Contains(got, newText) {
			t.Errorf("operation %d: the dump was lost", op)
		}
		mustAddDump(t, dir, req) // the next one
		if got := dumpTexts(t, dir); !slices.Equal(got, []string{newText}) {
			t.Errorf("after operation %d and another dump there are %d", op, len(got))
		}
		backuptest.CheckNoTemp(t, filepath.Join(dir, layout.DumpsDir))
		if fs.Ops < op || t.Failed() {
			t.Logf("%d operations", op-1)
			return
		}
	}
}

// TestFileName makes names that every file system takes.
func TestFileName(t *testing.T) {
	for database, want := range map[string]string{
		"hydra": "hydra", "Hydra_2-b.c": "Hydra_2-b.c", "../x": "%2E.%2Fx", "a b": "a%20b", "ü": "%C3%BC", "%": "%25", "": "",
	} {
		if got := fileName(database); got != want {
			t.Errorf("fileName(%q) is %q, want %q", database, got, want)
		}
	}
	if m := dumpName.FindStringSubmatch(fmt.Sprintf("%s-%s%s", fileName("a-b"), "20261124T210415Z", dumpExt)); m == nil || m[1] != "a-b" {
		t.Errorf("parsed as %q", m)
	}
}
