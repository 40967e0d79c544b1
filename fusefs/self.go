package fusefs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// selfView is .narvault/: what the mount does, and which damage it met.
//
// The files change all the time, but a version of one never does: it is a node
// of its own, as of a stream, so that nobody reads half of the one and half of
// the other.
type selfView struct {
	f     *fileSystem
	files []*selfFile // number 1 and following
}

// A selfFile is one of the files.
type selfFile struct {
	name string
	text func() []byte

	mu   sync.Mutex
	last []*version // guarded by mu: the newest last
	made time.Time  // guarded by mu: when text was last called
}

// A version is the content of a selfFile at one time.
type version struct {
	number int
	text   []byte
	mtime  time.Time
}

// What is kept of the versions of a file, so that who has one open can read it:
// at least a few, and all that this many bytes hold. With somebody who looks at
// the status all the time, these are the versions of some minutes.
const (
	keptVersions = 4
	keptBytes    = 1 << 20
)

func (f *fileSystem) selfView() *selfView {
	return &selfView{f: f, files: []*selfFile{
		{name: "errors", text: f.damage.text},
		{name: "status.json", text: f.status},
	}}
}

// current returns the newest version, made now unless it is very young.
func (s *selfFile) current(c *clock) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	var newest *version
	if len(s.last) > 0 {
		newest = s.last[len(s.last)-1]
		if now.Sub(s.made) < brief {
			return newest
		}
	}
	s.made = now
	text := s.text()
	if newest != nil && bytes.Equal(newest.text, text) {
		return newest
	}
	v := &version{text: text, mtime: c.stamp()}
	if newest != nil {
		v.number = (newest.number + 1) & maxEntry
	}
	s.last = append(s.last, v)
	s.forget()
	return v
}

// forget drops versions that are too old. Needs mu.
func (s *selfFile) forget() {
	size := 0
	for _, v := range s.last {
		size += len(v.text)
	}
	n := 0
	for ; len(s.last)-n > keptVersions && size > keptBytes; n++ {
		size -= len(s.last[n].text)
	}
	s.last = slices.Delete(s.last, 0, n)
}

// version returns one of the last versions.
func (s *selfFile) version(number int) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.last {
		if v.number == number {
			return v, nil
		}
	}
	return nil, errNoNode
}

// file returns the version that n is, errIsDir for the directory.
func (v *selfView) file(n node) (*version, error) {
	switch {
	case n.number() == 0 && n.entry() == 0:
		return nil, errIsDir
	case n.number() == 0 || n.number() > len(v.files):
		return nil, errNoNode
	}
	return v.files[n.number()-1].version(n.entry())
}

func (v *selfView) attr(n node, a *fuse.Attr) error {
	file, err := v.file(n)
	switch err {
	case nil:
		fileAttr(a, syscall.S_IFREG|0444, int64(len(file.text)))
		setTime(a, file.mtime)
	case errIsDir:
		dirAttr(a, 2)
	default:
		return err
	}
	return nil
}

func (v *selfView) lookup(n node, name string) (node, error) {
	if _, err := v.file(n); err != errIsDir {
		return 0, cmpErr(err, errNotDir)
	}
	for i, s := range v.files {
		if s.name == name {
			return pack(viewSelf, i+1, s.current(&v.f.cat.clock).number), nil
		}
	}
	return 0, errNoName
}

func (v *selfView) parent(n node) (node, error) {
	if n.number() == 0 {
		return nodeRoot, nil
	}
	return pack(viewSelf, 0, 0), nil
}

func (v *selfView) list(n node, after int, yield func(key int, e dirent) bool) error {
	if _, err := v.file(n); err != errIsDir {
		return cmpErr(err, errNotDir)
	}
	for i, s := range v.files {
		if key := i + 1; key > after && !yield(key, dirent{name: s.name, node: pack(viewSelf, key, 0), typ: syscall.S_IFREG}) {
			break
		}
	}
	return nil
}

func (v *selfView) read(n node, p []byte, off int64) (int, error) {
	file, err := v.file(n)
	if err != nil || off < 0 || off >= int64(len(file.text)) {
		return 0, err
	}
	return copy(p, file.text[off:]), nil
}

func (v *selfView) readlink(n node) (string, error) {
	_, err := v.file(n)
	if err == nil || err == errIsDir {
		err = errNotLink
	}
	return "", err
}

func (v *selfView) path(n node) string {
	if n.number() == 0 || n.number() > len(v.files) {
		return ".narvault"
	}
	return ".narvault/" + v.files[n.number()-1].name
}

// A status is the content of status.json.
type status struct {
	Version  int       `json:"version"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Backup   string    `json:"backup"`
	StoreDir string    `json:"storeDir"`
	Activity
	Paths        int      `json:"paths"`
	Requests     Requests `json:"requests"`
	ReadBytes    int64    `json:"readBytes"` // given to the kernel
	OpenTrees    int      `json:"openTrees"`
	ListingBytes int64    `json:"listingBytes"` // memory of their listings
	OpenStreams  int      `json:"openStreams"`
	Errors       int64    `json:"errors"` // requests that failed because of the backup
}

func (f *fileSystem) status() []byte {
	s := status{
		Version: 1, PID: os.Getpid(), Since: f.since.UTC(), Backup: f.o.Name, StoreDir: f.backup.StoreDir(),
		Paths: len(f.cat.held.Load().nums), Requests: f.count.requests(), ReadBytes: f.readBytes.Load(), Errors: f.damage.count(),
	}
	s.OpenTrees, s.ListingBytes = f.trees.size()
	s.OpenStreams, _ = f.streams.size()
	if r, ok := f.backup.(ActivityReporter); ok {
		s.Activity = r.Activity()
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		text = []byte(fmt.Sprintf(`{"version": 1, "error": %q}`, err))
	}
	return append(text, '\n')
}
