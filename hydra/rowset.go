package hydra

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// A rowSet is a Rows document, taken apart.
type rowSet struct {
	Version       int              `json:"version"`
	Database      string           `json:"database"`
	SchemaVersion int              `json:"schemaVersion"`
	Tables        map[string][]row `json:"tables"`
}

// A row has values by column. What is not there and what is null is the same.
type row map[string]json.RawMessage

// ErrRows is wrapped by errors about Rows that are none, or that contradict
// themselves.
var ErrRows = errors.New("these are not the rows of a release")

// rowsVersion is that of the document.
const rowsVersion = 1

func parseRows(rows Rows) (*rowSet, error) {
	s := new(rowSet)
	if err := json.Unmarshal(rows, s); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRows, err)
	}
	if s.Version != rowsVersion {
		return nil, fmt.Errorf("the rows of the release have format version %d, this narvault knows %d: use a newer one", s.Version, rowsVersion)
	}
	if len(s.Tables["builds"]) == 0 {
		return nil, fmt.Errorf("%w: there are no builds among them", ErrRows)
	}
	return s, nil
}

// text returns a column's text, "" if there is none.
func (r row) text(column string) (s string) {
	json.Unmarshal(r[column], &s) // what is no text is as good as missing
	return s
}

// number returns a column's integer, 0 if there is none.
func (r row) number(column string) (n int64) {
	json.Unmarshal(r[column], &n) // as text
	return n
}

// has reports whether there is a value.
func (r row) has(column string) bool {
	v := string(r[column])
	return v != "" && v != "null"
}

// means reports whether there is a value that says something.
func (r row) means(column string) bool {
	switch string(r[column]) {
	case "", "null", "0", `""`, "false":
		return false
	}
	return true
}

func (r row) setText(column, s string) {
	text, err := json.Marshal(s)
	if err == nil { // always
		r[column] = text
	}
}

// setNumber sets a column; 0 stands for null.
func (r row) setNumber(column string, n int64) {
	if n == 0 {
		r[column] = json.RawMessage("null")
		return
	}
	r[column] = json.RawMessage(strconv.FormatInt(n, 10))
}

// take copies a column of another row, if that has it and this has not.
func (r row) take(column string, from row) {
	if !r.has(column) && from.has(column) {
		r[column] = from[column]
	}
}

// A jobsetName is how a jobset is named where its id may differ.
type jobsetName struct{ project, name string }

func (j jobsetName) String() string { return j.project + ":" + j.name }

// jobsetNames returns a function that tells to which jobset a row of builds or
// jobsetevals belongs.
func (s *rowSet) jobsetNames() func(row) (jobsetName, error) {
	byID := make(map[int64]jobsetName)
	for _, r := range s.Tables["jobsets"] {
		if id := r.number("id"); id != 0 {
			byID[id] = jobsetName{r.text("project"), r.text("name")}
		}
	}
	return func(r row) (jobsetName, error) {
		if r.has("project") && r.has("jobset") {
			return jobsetName{r.text("project"), r.text("jobset")}, nil
		}
		name, known := byID[r.number("jobset_id")]
		if !known {
			return name, fmt.Errorf("%w: one belongs to the jobset %d, which is not among them", ErrRows, r.number("jobset_id"))
		}
		return name, nil
	}
}
