package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/index"
)

// A memory says when NAR files were last read whole and found to be right. It is
// a text file: a line that tells the format, then for each NAR file a line of
// the time, in seconds since 1970, and its URL. It may be lost at any time: then
// all files are as if never read.
type memory struct {
	name string // "" if there is no place for it
	make bool   // its directory may have to be made
	last map[string]time.Time
}

const (
	memoryFile   = "verified" // in a backup, or where the index of a foreign cache is
	memoryHeader = "narvault verified 1"
	maxMemory    = 64 << 20
)

// recall reads the memory of a backup: it is in the backup if that is ours and
// can be written, else in the user's cache directory.
func (c *checker) recall() *memory {
	m := &memory{last: make(map[string]time.Time)}
	if !c.b.Foreign() && c.b.Config().Version != 0 && unix.Access(c.b.Dir(), unix.W_OK) == nil {
		m.name = filepath.Join(c.b.Dir(), memoryFile)
	} else if id, err := index.Identity(c.cache, c.b.Config().ID); err == nil {
		if dir, err := index.UserDir(id, ""); err == nil {
			m.name, m.make = filepath.Join(dir, memoryFile), true
		}
	}
	m.last = readMemory(m.name)
	return m
}

func readMemory(name string) map[string]time.Time {
	last := make(map[string]time.Time)
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return last
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxMemory {
		return last
	}
	lines := bufio.NewScanner(f)
	if !lines.Scan() || lines.Text() != memoryHeader {
		return last
	}
	for lines.Scan() {
		seconds, url, _ := strings.Cut(lines.Text(), " ")
		if s, err := strconv.ParseInt(seconds, 10, 64); err == nil && s > 0 && !time.Unix(s, 0).After(time.Now()) {
			last[url] = time.Unix(s, 0).UTC()
		}
	}
	return last
}

// save writes the memory, of the files in nars only. What another check has
// written meanwhile is kept where it is newer, unless the file is damaged.
func (m *memory) save(nars []*narFile) error {
	if m.name == "" {
		return nil
	}
	others := readMemory(m.name)
	keep := make(map[string]time.Time)
	for _, n := range nars {
		t := m.last[n.url]
		if other := others[n.url]; other.After(t) {
			t = other
		}
		if !t.IsZero() && !n.damaged {
			keep[n.url] = t
		}
	}
	if maps.Equal(keep, others) {
		return nil
	}
	var text bytes.Buffer
	fmt.Fprintln(&text, memoryHeader)
	for _, url := range slices.Sorted(maps.Keys(keep)) {
		fmt.Fprintf(&text, "%d %s\n", keep[url].Unix(), url)
	}
	if m.make {
		if err := os.MkdirAll(filepath.Dir(m.name), 0o755); err != nil {
			return err
		}
	}
	err := disk.WriteFile(disk.OS{}, m.name, text.Bytes())
	if errors.Is(err, fs.ErrNotExist) {
		// A backup that began took the temporary file for one of a crash.
		err = disk.WriteFile(disk.OS{}, m.name, text.Bytes())
	}
	return err
}
