package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread"
)

var (
	dumpName = regexp.MustCompile(`^(.*)-([0-9]{8}T[0-9]{6}Z)\.sql\.zst$`)
	// handMade are dumps as one makes them with pg_dump and a compressor.
	handMade = regexp.MustCompile(`\.(pgsql|sql)(\.(zst|xz|gz|bz2|lz4))?$`)
)

// Dumps returns the dumps in a backup, the newest first: those that AddDump put
// there, and those made by hand in its directory, as hydra-20140722.pgsql.xz.
func (b *Backup) Dumps() ([]*Dump, error) {
	dumps, err := readDumps(b.Path(layout.DumpsDir))
	if err != nil {
		return nil, fmt.Errorf("list dumps: %w", err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("list dumps: %w", err)
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && handMade.MatchString(e.Name()) {
			dumps = append(dumps, &Dump{File: b.Path(e.Name()), Size: st.Size(), Created: st.ModTime().UTC().Truncate(time.Second)})
		}
	}
	slices.SortStableFunc(dumps, newerFirst)
	return dumps, nil
}

func newerFirst(x, y *Dump) int { return y.Created.Compare(x.Created) }

func readDumps(dir string) ([]*Dump, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var dumps []*Dump
	for _, e := range entries {
		m := dumpName.FindStringSubmatch(e.Name())
		st, err := e.Info()
		if m == nil || err != nil || !st.Mode().IsRegular() {
			continue
		}
		d := describedDump(filepath.Join(dir, e.Name()))
		d.Size = st.Size()
		d.Database = cmp.Or(d.Database, m[1])
		if at, err := time.Parse(dumpTime, m[2]); err == nil {
			d.Created = at
		}
		dumps = append(dumps, d)
	}
	slices.SortFunc(dumps, newerFirst)
	return dumps, nil
}

// describedDump returns what is known of a dump: nothing but its path, if the
// description is missing or damaged.
func describedDump(file string) *Dump {
	d := new(Dump)
	text, err := layout.ReadFile(file + dumpInfoExt)
	if err != nil || json.Unmarshal(text, d) != nil || d.Version != FormatVersion {
		d = new(Dump)
	}
	d.File = file
	return d
}

// ErrNoDump is wrapped by the error about a dump that a backup has not.
var ErrNoDump = errors.New("there is no dump of a database")

// Dump returns a dump by its name in the backup, or by the path of a file
// anywhere; "" is the newest.
func (b *Backup) Dump(name string) (*Dump, error) {
	dumps, err := b.Dumps()
	if err != nil {
		return nil, err
	}
	if name == "" {
		return b.newestDump(dumps)
	}
	for _, d := range dumps {
		if filepath.Base(d.File) == name {
			return d, nil
		}
	}
	st, err := os.Stat(name)
	if err != nil && !strings.Contains(name, "/") {
		return nil, fmt.Errorf("%w %s in %s: \"narvault hydra dumps\" lists them", ErrNoDump, name, b.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open dump: %w", err)
	}
	d := describedDump(name)
	d.Size = st.Size()
	return d, nil
}

// newestDump returns the newest dump that AddDump put there or, without any, that
// was made by hand. Of which database it is must not be a matter of luck.
func (b *Backup) newestDump(dumps []*Dump) (*Dump, error) {
	var newest *Dump
	for _, d := range dumps {
		switch {
		case d.Database == "":
		case newest == nil:
			newest = d
		case d.Database != newest.Database:
			return nil, fmt.Errorf("%s has dumps of several databases, %s and %s: name one (\"narvault hydra dumps\" lists them)", b.dir, newest.Database, d.Database)
		}
	}
	switch {
	case newest != nil:
		return newest, nil
	case len(dumps) > 0:
		return dumps[0], nil
	}
	return nil, fmt.Errorf("%w in %s: \"narvault hydra dump\" makes one", ErrNoDump, b.dir)
}

// compressions are those of dumps, by the extensions of their names.
var compressions = map[string]string{".zst": "zstd", ".xz": "xz", ".gz": "gzip", ".bz2": "bzip2", ".lz4": "lz4"}

// Open opens the SQL text of a dump. Damage is a *narread.DamageError, of a text
// that is not the one that was written at the end of it. The caller closes it.
func (d *Dump) Open() (io.ReadCloser, error) { return d.open(d.File) }

// open opens a file that has, or is to have, the content of the dump.
func (d *Dump) open(name string) (io.ReadCloser, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open dump: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &bincache.DamageError{File: d.File, Err: errors.New("is no regular file")}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open dump: %w", err)
	}
	text, err := narread.Decompress(f, st.Size(), d.File, cmp.Or(compressions[filepath.Ext(d.File)], "none"))
	if err != nil {
		f.Close()
		return nil, err
	}
	return &openDump{dump: d, text: text, file: f, sum: newTextSum()}, nil
}

type openDump struct {
	dump *Dump
	text io.ReadCloser
	file *os.File
	sum  *textSum
}

func (o *openDump) Read(p []byte) (int, error) {
	n, err := o.text.Read(p)
	o.sum.Write(p[:n]) // never fails
	if err == io.EOF && o.dump.SHA256 != "" && (o.sum.size != o.dump.TextSize || o.sum.String() != o.dump.SHA256) {
		err = &narread.DamageError{File: o.dump.File, Block: -1, Offset: -1, Err: fmt.Errorf("is not the text of %d bytes that was written", o.dump.TextSize)}
	}
	return n, err
}

func (o *openDump) Close() error { return errors.Join(o.text.Close(), o.file.Close()) }
