package check

import (
	"cmp"
	"slices"
	"time"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/storepath"
)

// A Severity says how bad a finding is.
type Severity string

// The severities, the worst first.
const (
	Damage     Severity = "damage"     // something is not what it has to be
	Unreadable Severity = "unreadable" // something could not be read: it may be all right
	Warning    Severity = "warning"    // some Nix cannot use it, or nobody vouches for it
	Note       Severity = "note"       // odd, and harmless
)

var severities = []Severity{Damage, Unreadable, Warning, Note}

// A Kind says what a finding is about. They are for programs: Message has the
// details.
type Kind string

// The kinds of findings.
const (
	CacheInfo     Kind = "cache-info"      // nix-cache-info is missing or wrong
	CacheDir      Kind = "cache-directory" // a directory that Nix wants is missing or is none
	Config        Kind = "config"          // narvault.json
	NarInfo       Kind = "narinfo"         // a narinfo that no Nix accepts
	NarInfoIndex  Kind = "narinfo-differs" // a narinfo is not what was indexed
	NarInfoOdd    Kind = "narinfo-odd"     // a field that some Nix refuses
	Reference     Kind = "reference"       // a store path refers to one that is not there
	NarMissing    Kind = "nar-missing"     // a narinfo names a NAR file that is not there
	NarSize       Kind = "nar-size"        // a NAR file is longer or shorter than its narinfo says
	NarConflict   Kind = "nar-conflict"    // narinfos disagree about one NAR file
	NarData       Kind = "nar-data"        // a NAR file or what is in it has changed
	NarFormat     Kind = "nar-format"      // a NAR that no Nix reads
	NarPortable   Kind = "nar-portable"    // a NAR that some Nix does not restore
	NarContainer  Kind = "nar-container"   // a container that some Nix, or narvault, does not open
	Listing       Kind = "listing"         // a .ls file
	Signature     Kind = "signature"       // a signature that is wrong
	Unsigned      Kind = "unsigned"        // no trusted key has signed a store path
	ContentAddr   Kind = "content-address" // a CA field that is wrong
	Release       Kind = "release"         // the record of a release
	ReleasePath   Kind = "release-path"    // a store path of a release is not there
	ReleaseClosed Kind = "release-closure" // a closure that lacks what it needs
	Realisation   Kind = "realisation"     // realisations and build-trace-v2
	DebugInfo     Kind = "debuginfo"       // a link from a build id to a NAR file
	BuildLog      Kind = "log"             // a build log
	Dump          Kind = "dump"            // a dump of Hydra's database
	Orphan        Kind = "orphan"          // a file that nothing refers to
	Leftover      Kind = "leftover"        // what a crash left
	Index         Kind = "index"           // the index is damaged
	IndexStale    Kind = "index-stale"     // the index is older than the files
	Memory        Kind = "memory"          // what was verified could not be noted
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		CacheInfo, CacheDir, Config, NarInfo, NarInfoIndex, NarInfoOdd, Reference, NarMissing, NarSize, NarConflict, NarData,
		NarFormat, NarPortable, NarContainer, Listing, Signature, Unsigned, ContentAddr, Release, ReleasePath, ReleaseClosed,
		Realisation, DebugInfo, BuildLog, Dump, Orphan, Leftover, Index, IndexStale, Memory,
	}
}

// A Finding is one thing that is not as it should be.
type Finding struct {
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	// File is where it is, relative to the directory that was checked, with
	// slashes; of an index elsewhere it is absolute.
	File    string `json:"file"`
	Offset  *int64 `json:"offset,omitempty"` // in File, in bytes, where that is known
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"` // what to do about it
	// StorePaths are those that it hurts, Releases those that have one of them,
	// or are hurt themselves. Both are sorted.
	StorePaths []storepath.Path   `json:"storePaths,omitempty"`
	Releases   []backup.ReleaseID `json:"releases,omitempty"`
	// Files are those in the store paths that are lost; the others can still be
	// read. None: it is not known which, or all are.
	Files []string `json:"files,omitempty"`
}

// A Report is what a check found.
type Report struct {
	Version    int              `json:"version"`
	Dir        string           `json:"dir"`
	StorePaths int              `json:"storePaths"` // that have a narinfo
	NarFiles   int              `json:"narFiles"`   // that narinfos name
	FileSize   int64            `json:"fileSize"`   // bytes of these
	Releases   int              `json:"releases"`
	ReadData   *ReadData        `json:"readData,omitempty"` // nil: none was asked for
	Counts     map[Severity]int `json:"counts"`
	Findings   []Finding        `json:"findings"` // the worst first
	Seconds    float64          `json:"seconds"`  // wall time
}

// ReadData says how much was read and verified.
type ReadData struct {
	NarFiles int   `json:"narFiles"`
	FileSize int64 `json:"fileSize"` // bytes of these
	NarSize  int64 `json:"narSize"`  // bytes decoded
	// Left is how many NAR files were not read this time, and Oldest when the one
	// of all was last that this is longest ago for; nil: one never was.
	Left   int        `json:"left"`
	Oldest *time.Time `json:"oldest,omitempty"`
}

// sortFindings brings findings into the order of Report.
func sortFindings(findings []Finding) {
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			slices.Index(severities, a.Severity)-slices.Index(severities, b.Severity),
			cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Message, b.Message),
		)
	})
}

// compareReleases orders releases as Backup.Releases does.
func compareReleases(a, b backup.ReleaseID) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}
