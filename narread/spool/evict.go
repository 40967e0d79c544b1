package spool

import (
	"cmp"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errTooLarge = errors.New("larger than the spool may become")
	errInUse    = errors.New("what is in the spool is in use")
)

// staleTemp is how old a file must be that was to become a .sums file. It is
// written at once.
const staleTemp = time.Hour

// minSums is how many bytes of sums are kept at least: those of 8 GiB.
const minSums = 1 << 20

// entry is a file of the spool.
type entry struct {
	name string
	size int64
	used time.Time
}

// makeRoom removes what was not used for longest, and leftovers, until size
// bytes more fit.
func (d *Dir) makeRoom(size int64) error {
	nars, sums, err := d.scan()
	if err != nil {
		return err
	}
	used := total(nars)
	limit := d.limit(used)
	if size > limit {
		return errTooLarge
	}
	// What is being decoded has its file already, but no size yet.
	d.remove(nars, used+size-limit)
	d.remove(sums, total(sums)-max(limit/64, minSums))
	if nars, _, err = d.scan(); err == nil && total(nars)+size > limit {
		err = errInUse
	}
	return err
}

// limit returns how large the spool may become, which has used bytes now.
func (d *Dir) limit(used int64) int64 {
	return min(d.max, (free(d.name)+used)/2)
}

// free returns how many bytes can be written where dir is; very many when that
// cannot be told.
func free(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return math.MaxInt64 / 2
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// scan lists NARs, whole and in the making, and sums, the least recently used
// first. It removes leftovers.
func (d *Dir) scan() (nars, sums []entry, err error) {
	list, err := os.ReadDir(d.name)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range list {
		info, err := item.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // it just went, or is none of ours
		}
		e := entry{filepath.Join(d.name, item.Name()), info.Size(), info.ModTime()}
		switch filepath.Ext(e.name) {
		case narExt:
			nars = append(nars, e)
		case sumsExt:
			sums = append(sums, e)
		case partExt:
			if !removeUnlocked(e.name) {
				nars = append(nars, e)
			}
		case tempExt:
			if time.Since(e.used) > staleTemp {
				os.Remove(e.name)
			}
		}
	}
	byUse := func(a, b entry) int { return cmp.Or(a.used.Compare(b.used), strings.Compare(a.name, b.name)) }
	slices.SortFunc(nars, byUse)
	slices.SortFunc(sums, byUse)
	return nars, sums, nil
}

// remove removes the first entries that nobody uses, until bytes have gone.
func (d *Dir) remove(entries []entry, bytes int64) {
	for _, e := range entries {
		if bytes <= 0 {
			break
		}
		if filepath.Ext(e.name) != partExt && removeUnlocked(e.name) {
			bytes -= e.size
			d.step("old file removed")
		}
	}
}

// removeUnlocked removes a file unless somebody has a lock on it, and reports
// whether it did. While it does, it has the lock: who opened the file before sees
// afterwards that it has lost its name.
func removeUnlocked(name string) bool {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil && os.Remove(name) == nil
}

func total(entries []entry) (n int64) {
	for _, e := range entries {
		n += e.size
	}
	return n
}
