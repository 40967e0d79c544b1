package hydra

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/narvault/narvault/narread/storepath"
)

// A Release is a set of builds that belong together.
type Release struct {
	Project     string
	Name        string
	Description string
	Evaluation  int64   // 0 if it is not of one evaluation
	Builds      []Build // succeeded, by id
	Skipped     []int64 // ids of builds that did not, or are not finished
	Logs        []storepath.Path
	Rows        Rows
}

// A Build is a job that was built successfully.
type Build struct {
	ID          int64
	Project     string
	Jobset      string
	Job         string
	System      string
	NixName     string
	Description string
	ReleaseName string // of Hydra's rule for the names of releases, "" if it has none
	DrvPath     storepath.Path
	Finished    time.Time // to the second
	Outputs     []Output  // by name
	Products    []Product // in Hydra's order
}

// An Output is one of the store paths that a build made.
type Output struct {
	Name string
	Path storepath.Path
}

// A Product is a file in an output that Hydra offers, such as a manual or an
// installation image.
type Product struct {
	Type        string `json:"type"` // "file", "doc", ...
	Subtype     string `json:"subtype,omitempty"`
	Name        string `json:"name"`
	Path        string `json:"path,omitempty"`    // absolute
	Size        int64  `json:"size,omitempty"`    // bytes, 0 for a directory
	SHA256      string `json:"sha256,omitempty"`  // hexadecimal
	DefaultPath string `json:"default,omitempty"` // what to show of a directory
}

// Rows are the rows of Hydra's tables that describe a release, as a JSON
// document:
//
//	{"version": 1, "database": "hydra", "schemaVersion": 87,
//	 "tables": {"users": [{"username": "eelco", ...}, ...], "projects": [...], ...}}
//
// Tables come in the order in which the rows can be inserted, rows in that of
// their keys, columns by PostgreSQL's names. Only columns that are known are in
// it: no password, nor what precedes the host of a URL (http, https), which may be
// a token, and nothing that changes while the release does not.
type Rows json.RawMessage

// An OutputError names the builds of a release whose outputs cannot be backed
// up, each with the reason.
type OutputError struct{ Faults []string }

// faultsShown bounds the text of errors that could name every build.
const faultsShown = 20

func (e *OutputError) Error() string { return few(e.Faults) }

// few joins the first of many faults.
func few(faults []string) string {
	shown := faults[:min(len(faults), faultsShown)]
	text := strings.Join(shown, "; ")
	if more := len(faults) - len(shown); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// succeeded is the status of a build that did.
const succeeded = 0

// statusText says what a build's status means that is not succeeded.
func statusText(finished bool, status int) string {
	if !finished {
		return "is not finished"
	}
	switch status {
	case 1:
		return "failed"
	case 2:
		return "failed because a dependency did"
	case 3, 9:
		return "was aborted"
	case 4:
		return "was cancelled"
	case 6:
		return "failed, with output"
	case 7:
		return "timed out"
	case 10:
		return "went over the log limit"
	case 11:
		return "went over the output limit"
	case 12:
		return "is not deterministic"
	}
	return fmt.Sprintf("failed with status %d", status)
}
