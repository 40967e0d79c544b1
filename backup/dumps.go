package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/narread/zseek"
)

// Dumps of databases are in layout.DumpsDir. Each is one file of SQL, packed as
// NARs are, and beside it is what is known of it, as JSON (Dump): the dump is
// whole without.
const (
	dumpExt     = ".sql.zst"
	dumpInfoExt = ".json"
	dumpTime    = "20060102T150405Z" // in names
)

// A Dump is a dump of a database in a backup.
type Dump struct {
	Version  int             `json:"version"`
	Database string          `json:"database"`
	Created  time.Time       `json:"created"`
	TextSize int64           `json:"textSize"`           // bytes of SQL
	SHA256   string          `json:"sha256"`             // of these, hexadecimal
	Verified *time.Time      `json:"verified,omitempty"` // when it was restored for trial
	Info     json.RawMessage `json:"info,omitempty"`     // what whoever made it knows of it

	File string `json:"-"` // its path
	Size int64  `json:"-"` // bytes, compressed
}

// A DumpRequest asks for a dump to be put into a backup.
type DumpRequest struct {
	// Write writes the SQL text, and returns the name of the database, and what
	// Dump.Info is to be.
	Write func(ctx context.Context, w io.Writer) (database string, info json.RawMessage, err error)
	// Verify restores the dump for trial; nil does not. It is in the backup by
	// then, and stays there if Verify fails.
	Verify func(ctx context.Context, d *Dump) error
	Keep   int // how many dumps of this database stay, the newest; 0: all
	// Same reports whether an older dump of a database of this name is of the same
	// one, and not of another server's; nil is always.
	Same  func(older *Dump) bool
	Level int // of zstd, 0 for what the backup was made with
	Lock  lock.Options
}

// Check refuses what makes no sense. AddDump calls it.
func (req *DumpRequest) Check() error {
	if req.Keep < 0 {
		return fmt.Errorf("%d dumps cannot be kept: at least the newest is, and 0 keeps all", req.Keep)
	}
	return checkCompression("", req.Level)
}

// A DumpResult says what AddDump did.
type DumpResult struct {
	Dump    *Dump
	Removed []string // older dumps, by path
}

// AddDump adds a dump of a database to the backup in dir, which must exist. It
// has its name when it is whole and durable; after an error of Write there is
// none. Older dumps go at the end, and only if all went well. The result is not
// nil when the dump is there, also if there is an error.
func AddDump(ctx context.Context, dir string, req DumpRequest) (*DumpResult, error) {
	d, err := addDump(ctx, disk.OS{}, dir, &req)
	if err != nil {
		return d, fmt.Errorf("add dump to %s: %w", dir, err)
	}
	return d, nil
}

func addDump(ctx context.Context, fsys disk.FS, dir string, req *DumpRequest) (*DumpResult, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	config, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	if !isBackup(dir) {
		return nil, noBackup(dir)
	}
	lock, err := lock.Take(ctx, dir, lock.Writing, req.Lock)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	a := &dumpAdder{fsys: fsys, dir: filepath.Join(dir, layout.DumpsDir), req: req, level: cmp.Or(req.Level, config.Level, compressionLevels["zstd"].usual)}
	if err := disk.MkdirAll(fsys, dir, a.dir); err != nil {
		return nil, err
	}
	if err := lock.Exclusively(ctx, func() error { return a.sweep(lock.Alone()) }); err != nil {
		return nil, err
	}
	temp, err := a.write(ctx)
	if err != nil {
		return nil, err
	}
	if err := lock.Exclusively(ctx, func() error { return a.publish(temp) }); err != nil {
		return nil, errors.Join(err, fsys.Remove(temp))
	}
	if err := a.verify(ctx); err != nil {
		return &DumpResult{Dump: a.dump}, err
	}
	result := &DumpResult{Dump: a.dump}
	err = lock.Exclusively(ctx, func() (err error) {
		result.Removed, err = a.rotate()
		return err
	})
	return result, err
}

// A dumpAdder is one run of AddDump.
type dumpAdder struct {
	fsys  disk.FS
	dir   string
	req   *DumpRequest
	level int
	dump  *Dump
}

// sweep removes what a crash left: temporary files, if nobody else writes, and
// what describes dumps that there are not.
func (a *dumpAdder) sweep(alone bool) error {
	if !alone {
		return nil
	}
	names, err := disk.ReadNames(a.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		base, describes := strings.CutSuffix(name, dumpInfoExt)
		orphan := describes && dumpName.MatchString(base) && !slices.Contains(names, base)
		if !disk.IsTemp(name) && !orphan {
			continue
		}
		if err := a.fsys.Remove(filepath.Join(a.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// write writes the dump to a temporary file, durably.
func (a *dumpAdder) write(ctx context.Context) (temp string, err error) {
	f, err := a.createTemp()
	if err != nil {
		return "", err
	}
	z := zseek.NewWriter(f, zseek.NewPool(runtime.GOMAXPROCS(0), a.level), zseek.WriterOptions{})
	defer z.Abort()
	a.dump = &Dump{Version: FormatVersion}
	sum := newTextSum()
	a.dump.Database, a.dump.Info, err = a.req.Write(ctx, io.MultiWriter(z, sum))
	a.dump.TextSize, a.dump.SHA256 = sum.size, sum.String()
	if err == nil {
		err = z.Close()
	}
	z.Abort() // nothing is written any more
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, a.fsys.Remove(f.Name()))
	}
	return f.Name(), nil
}

// publish gives the dump its name, one that no dump has yet.
func (a *dumpAdder) publish(temp string) error {
	for at := time.Now().UTC().Truncate(time.Second); ; at = at.Add(time.Second) {
		a.dump.Created = at
		a.dump.File = filepath.Join(a.dir, fileName(a.dump.Database)+"-"+at.Format(dumpTime)+dumpExt)
		if _, err := os.Lstat(a.dump.File); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
	}
	st, err := os.Stat(temp)
	if err != nil {
		return err
	}
	a.dump.Size = st.Size()
	// First: a dump of which it is not known what it is would be worth less than
	// a description of a dump that never came to be.
	if err := a.describe(); err != nil {
		return err
	}
	if err := a.fsys.Rename(temp, a.dump.File); err != nil {
		return errors.Join(err, a.fsys.Remove(a.dump.File+dumpInfoExt))
	}
	return a.fsys.SyncDir(a.dir)
}

// describe writes what is known of the dump.
func (a *dumpAdder) describe() error {
	text, err := json.MarshalIndent(a.dump, "", "  ")
	if err != nil {
		return err
	}
	return disk.WriteFile(a.fsys, a.dump.File+dumpInfoExt, append(text, '\n'))
}

func (a *dumpAdder) verify(ctx context.Context) error {
	if a.req.Verify == nil {
		return nil
	}
	if err := a.req.Verify(ctx, a.dump); err != nil {
		return fmt.Errorf("%s is kept, but was not verified: %w", a.dump.File, err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	a.dump.Verified = &now
	return a.describe()
}

// rotate removes older dumps of the database. It returns their paths.
func (a *dumpAdder) rotate() (removed []string, err error) {
	if a.req.Keep <= 0 {
		return nil, nil
	}
	dumps, err := readDumps(a.dir)
	if err != nil {
		return nil, err
	}
	kept := 1 // the one just made, whatever the clock said
	for _, d := range dumps {
		if d.Database != a.dump.Database || d.File == a.dump.File || a.req.Same != nil && !a.req.Same(d) {
			continue
		}
		if kept++; kept <= a.req.Keep {
			continue
		}
		// The dump first: a description of nothing is swept.
		if err := errors.Join(a.fsys.Remove(d.File), a.fsys.Remove(d.File+dumpInfoExt)); err != nil {
			return removed, err
		}
		removed = append(removed, d.File)
	}
	return removed, a.fsys.SyncDir(a.dir)
}

// fileName makes a name of PostgreSQL's, in which there may be anything, one
// that every file system takes: other bytes become %XX.
func fileName(database string) string {
	var b strings.Builder
	for i := range len(database) {
		c := database[i]
		switch {
		case c >= '0' && c <= '9', isLetter(c), c == '_', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// A textSum tells texts apart.
type textSum struct {
	hash.Hash
	size int64
}

func newTextSum() *textSum { return &textSum{Hash: sha256.New()} }

func (t *textSum) Write(p []byte) (int, error) {
	t.size += int64(len(p))
	return t.Hash.Write(p)
}

func (t *textSum) String() string { return hex.EncodeToString(t.Sum(nil)) }
