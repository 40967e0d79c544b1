package hydra

// A sqlScanner reads SQL, in pieces of any length, and knows whether a statement
// goes on at the end of what it has read. (PostgreSQL's manual: Lexical
// Structure; psql decides in the same way what it sends.)
type sqlScanner struct {
	in     sqlState
	open   bool     // something of a statement was there
	parens int      // that are not closed
	prev   byte     // the one before
	word   int      // how long the word is that has just been read, in bytes
	string sqlState // which kind of string ended last
	depth  int      // of comments in comments
	tag    []byte   // that ends a dollar-quoted text, as $body$
	match  int      // how much of it has just been read
}

type sqlState byte

const (
	inSQL           sqlState = iota
	inLineComment            // --
	inComment                // /* */
	inString                 // ''
	inEscapedString          // E''
	afterBackslash           // in E''
	inIdentifier             // ""
	inTag                    // $bo
	inDollars                // $body$
)

// maxTag is how long a tag may be, in bytes: a name of PostgreSQL's, and two
// dollars.
const maxTag = 65

// within reports whether a statement goes on, or a comment.
func (s *sqlScanner) within() bool { return s.open || s.in != inSQL }

// scan reads the next piece.
func (s *sqlScanner) scan(text []byte) {
	for _, c := range text {
		if s.in == inTag && !s.tagged(c) {
			s.in = inSQL // and c is not of it
		}
		switch s.in {
		case inSQL:
			s.sql(c)
		case inTag:
		default:
			s.quoted(c)
		}
		s.prev = c
	}
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// sql reads a byte outside of quotes and comments.
func (s *sqlScanner) sql(c byte) {
	word := s.word
	s.word = 0
	switch {
	case isWord(c):
		s.word, s.open = word+1, true
	case c == '-' && s.prev == '-':
		s.in = inLineComment
	case c == '*' && s.prev == '/':
		s.in, s.depth = inComment, 1
	case c == '\'':
		s.in, s.open = s.quote(word), true
		s.string = s.in
	case c == '"':
		s.in, s.open = inIdentifier, true
	case c == '$' && word > 0:
		s.word = word + 1 // names may have dollars
	case c == '$':
		s.in, s.open, s.tag = inTag, true, append(s.tag[:0], c)
	case c == '(':
		s.parens++
		s.open = true
	case c == ')':
		s.parens = max(s.parens-1, 0)
	case c == ';' && s.parens == 0:
		s.open = false
	case c > ' ' && c != '-' && c != '/':
		s.open = true
	}
}

// quote returns which kind of string a quote begins, behind a word of that
// length.
func (s *sqlScanner) quote(word int) sqlState {
	switch {
	case s.prev == '\'' && s.string != inSQL:
		return s.string // of which it is a quote that was doubled
	case word == 1 && (s.prev == 'e' || s.prev == 'E'):
		return inEscapedString
	}
	return inString
}

// tagged reads a byte of the beginning of a dollar-quoted text. It returns false
// if it is none.
func (s *sqlScanner) tagged(c byte) bool {
	digit := c >= '0' && c <= '9'
	if c != '$' && (!isWord(c) || digit && len(s.tag) == 1 || len(s.tag) == maxTag) {
		return false
	}
	s.tag = append(s.tag, c)
	if c == '$' {
		s.in, s.match = inDollars, -1 // c itself is quoted by nothing
	}
	return true
}

// quoted reads a byte in quotes or in a comment.
func (s *sqlScanner) quoted(c byte) {
	switch s.in {
	case inLineComment:
		s.leave(c == '\n')
	case inComment:
		s.comment(c)
	case inString:
		s.leave(c == '\'')
	case inEscapedString:
		s.leave(c == '\'')
		if c == '\\' {
			s.in = afterBackslash
		}
	case afterBackslash:
		s.in = inEscapedString
	case inIdentifier:
		s.leave(c == '"')
	case inDollars:
		s.dollars(c)
	}
}

func (s *sqlScanner) leave(ends bool) {
	if ends {
		s.in = inSQL
	}
}

// comment reads a byte of a comment, which may have others in it.
func (s *sqlScanner) comment(c byte) {
	switch {
	case c == '*' && s.prev == '/':
		s.depth++
	case c == '/' && s.prev == '*':
		s.depth--
		s.leave(s.depth == 0)
	}
}

// dollars reads a byte of a dollar-quoted text. In a tag, there are dollars at
// the ends only.
func (s *sqlScanner) dollars(c byte) {
	switch {
	case s.match < 0: // the end of the tag that begins it
		s.match = 0
	case c == s.tag[s.match]:
		s.match++
		s.leave(s.match == len(s.tag))
	case c == '$':
		s.match = 1
	default:
		s.match = 0
	}
}
