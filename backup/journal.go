package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
)

// A narFile is a finished NAR file: the fields of a narinfo that tell what it
// is, whatever store path it belongs to.
type narFile struct {
	URL         string
	Compression string
	FileHash    narinfo.Hash
	FileSize    int64
	NarHash     narinfo.Hash
	NarSize     int64
}

// fill copies what describes the file into info.
func (f narFile) fill(info *narinfo.NarInfo) {
	info.URL, info.Compression = f.URL, f.Compression
	info.FileHash, info.FileSize = f.FileHash.String(), f.FileSize
	info.NarHash, info.NarSize = f.NarHash, f.NarSize
}

// A journal remembers the NAR files that are durable in the cache, until their
// narinfos are: a NAR is named by the hash of its file, so without it the next
// run could not tell whose they are and would compress everything again.
//
// It is a text file, a line each: NarHash, NarSize, URL, FileHash, FileSize,
// Compression and the CRC-32 (IEEE, hexadecimal) of the line up to it. A line
// that is damaged is passed over: the journal saves work, no more.
type journal struct {
	fsys disk.FS
	name string
	file disk.File // nil until the first add

	before time.Time // when the file last changed before this run, zero if it was not there
}

func newJournal(fsys disk.FS, dir string) *journal {
	return &journal{fsys: fsys, name: filepath.Join(dir, layout.JournalFile)}
}

// load returns the files that an earlier run finished, by NarHash.
func (j *journal) load() (map[narinfo.Hash]narFile, error) {
	known := make(map[narinfo.Hash]narFile)
	f, err := os.OpenFile(j.name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if n, ok := parseJournalLine(lines.Text()); ok {
			known[n.NarHash] = n
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("read journal %s: %w", j.name, err)
	}
	return known, nil
}

// PendingNARs returns the URLs of the NAR files that an interrupted run finished,
// or one that is under way, and whose narinfos may not be written yet.
func (b *Backup) PendingNARs() (map[string]bool, error) {
	if b.foreign {
		return nil, nil
	}
	known, err := newJournal(disk.OS{}, b.dir).load()
	pending := make(map[string]bool, len(known))
	for _, n := range known {
		pending[n.URL] = true
	}
	return pending, err
}

// add makes the memory of files durable.
func (j *journal) add(files []narFile) error {
	if j.file == nil {
		if st, err := os.Lstat(j.name); err == nil && j.before.IsZero() {
			j.before = st.ModTime()
		}
		f, err := j.fsys.Append(j.name)
		if err != nil {
			return err
		}
		j.file = f
		// The line end closes what a crash may have left half written.
		if _, err := j.file.Write([]byte("\n")); err != nil {
			return err
		}
		if err := j.fsys.SyncDir(filepath.Dir(j.name)); err != nil {
			return err
		}
	}
	var b strings.Builder
	for _, n := range files {
		b.WriteString(formatJournalLine(n))
	}
	if _, err := j.file.Write([]byte(b.String())); err != nil {
		return err
	}
	return j.file.Sync()
}

// finish forgets the files whose narinfos are written: it is called by a run that
// succeeded, when no other is under way. What an interrupted run finished that
// nobody has used yet stays, as old as it is: gc goes by the time of the file.
func (j *journal) finish(ctx context.Context, cache *bincache.Cache) error {
	if err := j.close(); err != nil {
		return err
	}
	left, err := j.load()
	if err != nil {
		return err
	}
	written, wanted := make(map[narinfo.Hash]narFile), make(map[narinfo.Hash]*job)
	for hash := range left {
		wanted[hash] = nil
	}
	if len(wanted) > 0 {
		if err := findArchived(ctx, cache, wanted, written); err != nil {
			return err
		}
	}
	var text strings.Builder
	for hash, n := range left {
		if _, ok := written[hash]; !ok && narFileThere(cache, n) {
			text.WriteString(formatJournalLine(n))
		}
	}
	if text.Len() == 0 {
		return j.fsys.Remove(j.name)
	}
	st, err := os.Lstat(j.name)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(j.fsys, j.name, []byte(text.String())); err != nil {
		return err
	}
	os.Chtimes(j.name, j.since(st), j.since(st)) // at worst gc waits for longer
	return nil
}

// since returns the time of the oldest line that finish keeps: that of the file
// before this run added to it.
func (j *journal) since(now fs.FileInfo) time.Time {
	if j.before.IsZero() {
		return now.ModTime()
	}
	return j.before
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

func formatJournalLine(n narFile) string {
	text := fmt.Sprintf("%s %d %s %s %d %s", n.NarHash, n.NarSize, n.URL, n.FileHash, n.FileSize, n.Compression)
	return fmt.Sprintf("%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

func parseJournalLine(line string) (narFile, bool) {
	text, sum, _ := cutLast(line, " ")
	if sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text))) {
		return narFile{}, false
	}
	var n narFile
	var narHash, fileHash string
	if _, err := fmt.Sscanf(text, "%s %d %s %s %d %s", &narHash, &n.NarSize, &n.URL, &fileHash, &n.FileSize, &n.Compression); err != nil {
		return narFile{}, false
	}
	err := errors.Join(n.NarHash.UnmarshalText([]byte(narHash)), n.FileHash.UnmarshalText([]byte(fileHash)), bincache.CheckURL(n.URL))
	return n, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
