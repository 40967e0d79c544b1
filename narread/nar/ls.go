package nar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// ErrNotUTF8 is returned for a listing that JSON cannot hold, because a name
// or a target is not UTF-8. (Nix 2.8 writes invalid JSON then, newer ones fail.)
var ErrNotUTF8 = errors.New("name or target is not UTF-8")

// WriteLS writes the listing as Nix 2.8 writes the .ls files of a binary
// cache, byte for byte. It writes nothing when it returns ErrNotUTF8, wrapped
// with the path.
func (l *Listing) WriteLS(w io.Writer) error {
	for i := range l.Len() {
		if e := l.Entry(i); !utf8.ValidString(e.Name) || !utf8.ValidString(e.Target) {
			return fmt.Errorf("write listing: %q: %w", l.Path(i), ErrNotUTF8)
		}
	}
	lw := lsWriter{l: l, w: bufio.NewWriterSize(w, 32<<10)}
	lw.write()
	if err := lw.w.Flush(); err != nil {
		return fmt.Errorf("write listing: %w", err)
	}
	return nil
}

// An lsWriter writes the JSON of one listing. The error of w is looked at when
// it is flushed.
type lsWriter struct {
	l    *Listing
	w    *bufio.Writer
	open []lsDir
	buf  []byte
}

// An lsDir is a directory of which the entries [next, end) are to be written.
type lsDir struct{ first, next, end int }

func (lw *lsWriter) write() {
	lw.w.WriteString(`{"version":1,"root":`)
	lw.node(0)
	for len(lw.open) > 0 {
		dir := &lw.open[len(lw.open)-1]
		i := dir.next
		if i == dir.end {
			lw.w.WriteString("}}")
			lw.open = lw.open[:len(lw.open)-1]
			continue
		}
		if i > dir.first {
			lw.w.WriteByte(',')
		}
		dir.next++
		lw.text(lw.l.name(&lw.l.entries[i]))
		lw.w.WriteByte(':')
		lw.node(i)
	}
	lw.w.WriteByte('}')
}

// node writes entry i, of a directory only the start.
func (lw *lsWriter) node(i int) {
	e := lw.l.Entry(i)
	switch e.Type {
	case Directory:
		lw.w.WriteString(`{"type":"directory","entries":{`)
		lw.open = append(lw.open, lsDir{e.First, e.First, e.First + e.N})
	case Symlink:
		lw.w.WriteString(`{"type":"symlink","target":`)
		lw.text(e.Target)
		lw.w.WriteByte('}')
	case Regular:
		lw.w.WriteString(`{"type":"regular","size":`)
		lw.number(e.Size)
		if e.Executable {
			lw.w.WriteString(`,"executable":true`)
		}
		// Nix leaves an offset of 0 out, which no file of a NAR has.
		lw.w.WriteString(`,"narOffset":`)
		lw.number(e.Offset)
		lw.w.WriteByte('}')
	}
}

func (lw *lsWriter) number(n int64) {
	lw.buf = strconv.AppendInt(lw.buf[:0], n, 10)
	lw.w.Write(lw.buf)
}

// text writes a JSON string with the escapes that Nix uses.
func (lw *lsWriter) text(s string) {
	const hex = "0123456789abcdef"
	b := append(lw.buf[:0], '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	lw.buf = append(b, '"')
	lw.w.Write(lw.buf)
}
