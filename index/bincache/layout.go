package bincache

import (
	"encoding/json"
	"path"
	"path/filepath"
	"strings"

	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// The directories of a binary cache. Two of them say which path a
// content-addressed derivation was built to: realisations/<hash>!<output>.doi up
// to Nix 2.34, since then build-trace-v2/<derivation>/<output>.doi. One cannot be
// made from the other, and both are signed.
const (
	NARDir         = "nar"
	LogDir         = "log"
	RealisationDir = "realisations"
	BuildTraceDir  = "build-trace-v2"
	DebugInfoDir   = "debuginfo" // links from build ids to NAR files
)

// What names of files in a binary cache end in.
const (
	NarInfoExt     = ".narinfo"
	ListingExt     = ".ls"
	RealisationExt = ".doi"
)

// Dirs returns the directories that Nix wants to find in a binary cache and
// would make itself: opening a cache on a read-only medium fails without them.
// (Nix 2.4-2.34 want realisations, 2.35 and later build-trace-v2.)
func Dirs() []string { return []string{NARDir, LogDir, RealisationDir, BuildTraceDir} }

// StatNAR is OpenNAR for whoever only wants to know whether the file is there
// and of the right size.
func (c *Cache) StatNAR(info *narinfo.NarInfo) error {
	f, _, err := c.OpenNAR(info)
	if err != nil {
		return err
	}
	return f.Close()
}

// HashOfFile returns the hash part that the name of a narinfo begins with.
func HashOfFile(name string) string {
	return strings.TrimSuffix(filepath.Base(name), NarInfoExt)
}

// LoggedDerivation returns the derivation whose log a file is; the name of the
// file may say how it is compressed.
func LoggedDerivation(base string) (storepath.Path, bool) {
	drv, _, _ := strings.Cut(base, ".drv")
	p, err := storepath.Parse(drv + ".drv")
	return p, err == nil
}

// DebugInfoNAR returns the URL of the NAR file that a link in DebugInfoDir
// points to.
func DebugInfoNAR(text []byte) (string, error) {
	var link struct{ Archive string }
	if err := json.Unmarshal(text, &link); err != nil {
		return "", err
	}
	return path.Join(DebugInfoDir, link.Archive), nil
}

// RealisationPath returns the store path that a realisation is about.
func RealisationPath(text []byte) (storepath.Path, error) {
	var r struct{ OutPath string }
	if err := json.Unmarshal(text, &r); err != nil {
		return "", err
	}
	return storepath.Parse(path.Base(r.OutPath))
}
