package unpack

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/narvault/narvault/backup/disk"
)

// The receipt: what was restored into a directory, by this and earlier runs.
const (
	// SumsFile has the hashes of all files, for "sha256sum -c".
	SumsFile = "narvault-restore.sha256"
	// ReceiptFile is a JSON document, which is the caller's.
	ReceiptFile = "narvault-restore.json"

	tempSums = disk.TempPrefix + "sums" + disk.TempSuffix
	// maxReceipt bounds what is read of a receipt, in bytes.
	maxReceipt = 256 << 20
)

// Sums are the lines of a SumsFile that is being made. Close it.
type Sums struct {
	d     *Dir
	f     *os.File
	w     *bufio.Writer
	names map[string]bool // trees of this run: earlier lines of theirs are void
}

// NewSums begins a new SumsFile; the old one stays until Finish.
func (d *Dir) NewSums() (*Sums, error) {
	if err := d.root.Remove(tempSums); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := d.root.OpenFile(tempSums, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &Sums{d: d, f: f, w: bufio.NewWriter(f), names: make(map[string]bool)}, nil
}

// Add notes the files of a tree that has its name. Those of trees that could
// not be looked at whole are left out.
func (s *Sums) Add(t *Tree) {
	name := t.Name
	if t.State == Damaged {
		name += damagedSuffix
	}
	s.names[t.Name], s.names[t.Name+damagedSuffix] = true, true
	for _, f := range t.Files {
		s.w.WriteString(sumLine(f.SHA256[:], name+strings.TrimPrefix(f.Path, t.Name)))
	}
}

// sumLine is a line as sha256sum writes it.
func sumLine(sum []byte, path string) string {
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(path)
	mark := ""
	if escaped != path {
		mark = `\`
	}
	return mark + hex.EncodeToString(sum) + "  " + escaped + "\n"
}

// Finish completes the SumsFile by the lines of earlier runs, and makes doc the
// ReceiptFile.
func (s *Sums) Finish(doc []byte) error {
	if err := s.keepEarlier(); err != nil {
		return fmt.Errorf("write %s: %w", SumsFile, err)
	}
	if err := errors.Join(s.w.Flush(), s.f.Sync()); err != nil {
		return fmt.Errorf("write %s: %w", SumsFile, err)
	}
	if err := s.d.root.Rename(tempSums, SumsFile); err != nil {
		return err
	}
	return s.d.writeFile(ReceiptFile, doc)
}

func (s *Sums) keepEarlier() error {
	old, err := s.d.open(SumsFile)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer old.Close()
	lines := bufio.NewReader(old)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return ignoreEOF(err) // a line without an end is none of ours
		}
		if _, path, ok := strings.Cut(line, "  "); ok && !s.names[firstName(path)] {
			s.w.WriteString(line)
		}
	}
}

func firstName(path string) string {
	first, _, _ := strings.Cut(strings.TrimSuffix(path, "\n"), "/")
	return first
}

// Close takes away what Finish has not completed.
func (s *Sums) Close() error {
	err := s.f.Close()
	if rmErr := s.d.root.Remove(tempSums); !errors.Is(rmErr, fs.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return err
}

// Receipt returns the ReceiptFile of earlier runs, nil if there is none.
func (d *Dir) Receipt() ([]byte, error) {
	f, err := d.open(ReceiptFile)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxReceipt))
}

// open opens a regular file of the Dir for reading.
func (d *Dir) open(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, &fs.PathError{Op: "open", Path: name, Err: errors.New("is no regular file")})
	}
	return f, nil
}

// writeFile replaces a file, durably.
func (d *Dir) writeFile(name string, data []byte) error {
	if err := d.root.Remove(tempSums); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.root.OpenFile(tempSums, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.root.Rename(tempSums, name); err != nil {
		return err
	}
	return d.syncNames()
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
