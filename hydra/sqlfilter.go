package hydra

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
)

// A sqlFilter copies the SQL of pg_dump without what the server that gets it
// cannot do. Rows, which are between a COPY statement and a line of \. only, are
// passed on as they are.
type sqlFilter struct {
	settings map[string]bool // what the server lets set
	noOwner  bool
	rows     bool       // in the rows of a table
	scanner  sqlScanner //  of all but rows: a function or a comment may have lines that look like statements
}

// longestStatement is how long a line of SQL may be that is looked at: one that
// names 1600 columns, the most of a table, has less. Rows may be of any length.
const longestStatement = 256 << 10

var (
	copyStatement = regexp.MustCompile(`^COPY .* FROM stdin;\r?\n$`)
	setStatement  = regexp.MustCompile(`^SET ([a-z_]+) = .*;\r?\n$`)
	// What pg_dump protects its dumps with has a key that everybody can read in
	// them: Load has one of its own.
	restrictCommand = regexp.MustCompile(`^\\(un)?restrict \w+\r?\n$`)
	// pg_dump writes each of these on a line of its own.
	ownerStatement = regexp.MustCompile(`^(ALTER .* OWNER TO .*|ALTER DEFAULT PRIVILEGES .*|GRANT .*|REVOKE .*|COMMENT ON (EXTENSION|SCHEMA) .*);\r?\n$`)
)

// copy copies all of r to w.
func (f *sqlFilter) copy(w io.Writer, r io.Reader) error {
	in := bufio.NewReaderSize(r, longestStatement)
	out := bufio.NewWriterSize(w, longestStatement)
	begins := true // of a line
	for {
		line, err := in.ReadSlice('\n')
		if !begins || f.passes(line) {
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		f.follow(line, begins)
		begins = !errors.Is(err, bufio.ErrBufferFull)
		switch {
		case err == io.EOF:
			return out.Flush()
		case err != nil && begins:
			return err // what is not flushed is not missed: there will be no COMMIT
		}
	}
}

// passes reports whether a line, or its long beginning, goes to the server.
func (f *sqlFilter) passes(line []byte) bool {
	switch {
	case f.rows:
		f.rows = !bytes.Equal(bytes.TrimRight(line, "\r\n"), []byte(`\.`))
	case f.scanner.within():
	case bytes.HasPrefix(line, []byte("COPY ")):
		f.rows = copyStatement.Match(line)
	case bytes.HasPrefix(line, []byte(`\`)):
		return !restrictCommand.Match(line)
	case bytes.HasPrefix(line, []byte("SET ")):
		m := setStatement.FindSubmatch(line)
		return m == nil || f.settings[string(m[1])]
	case f.noOwner:
		return !ownerStatement.Match(line)
	}
	return true
}

// follow reads a line, or a part of one.
func (f *sqlFilter) follow(line []byte, begins bool) {
	if f.rows || begins && len(line) > 0 && line[0] == '\\' && !f.scanner.within() {
		return // rows, or a command of psql's
	}
	f.scanner.scan(line)
}
