package hydra

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// keywords are the words of libpq that name a database, for PostgreSQL's own
// programs. Later ones count.
type keywords []keyword

type keyword struct{ name, value string }

// secrets are the keywords that must not be seen on a command line.
var secrets = []string{"password", "sslpassword"}

// parseKeywords takes apart what dsn returns: a URL, or keywords and values.
func parseKeywords(text string) (keywords, error) {
	if strings.Contains(text, "://") {
		return fromURL(text)
	}
	return fromWords(text)
}

func fromURL(text string) (keywords, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("is a malformed URL") // the error would quote it
	}
	var k keywords
	if u.User != nil {
		k.add("user", u.User.Username())
		password, _ := u.User.Password()
		k.add("password", password)
	}
	// A URL may name several servers: each has a host and a port.
	var hosts, ports []string
	for host := range strings.SplitSeq(u.Host, ",") {
		one := url.URL{Host: host}
		hosts, ports = append(hosts, one.Hostname()), append(ports, one.Port())
	}
	k.add("host", strings.Join(hosts, ","))
	if strings.Trim(strings.Join(ports, ""), ",") != "" {
		k.add("port", strings.Join(ports, ","))
	}
	k.add("dbname", strings.TrimPrefix(u.Path, "/"))
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("is a URL with a malformed query")
	}
	for name, values := range query {
		k.add(name, values[len(values)-1])
	}
	return k, nil
}

var errWords = errors.New("has a part that is no keyword=value")

// fromWords reads keyword=value pairs, where a value may be in single quotes,
// and a backslash escapes.
func fromWords(text string) (keywords, error) {
	var k keywords
	for rest := strings.TrimSpace(text); rest != ""; {
		name, after, found := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.ContainsAny(name, " \t\n'") {
			return nil, errWords
		}
		value, left, err := cutValue(strings.TrimLeft(after, " \t\n"))
		if err != nil {
			return nil, err
		}
		k = append(k, keyword{name, value})
		rest = strings.TrimSpace(left)
	}
	return k, nil
}

// cutValue returns the value at the beginning of s, and what follows it.
func cutValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	s = strings.TrimPrefix(s, "'")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errWords
	}
	return b.String(), "", nil
}

func (k *keywords) add(name, value string) {
	if value != "" {
		*k = append(*k, keyword{name, value})
	}
}

// with returns the keywords with another value of one.
func (k keywords) with(name, value string) keywords {
	return append(slices.Clone(k), keyword{name, value})
}

// String returns what libpq and pgx parse again.
func (k keywords) String() string {
	words := make([]string, len(k))
	for i, w := range k {
		words[i] = w.name + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(w.value) + "'"
	}
	return strings.Join(words, " ")
}

// forProgram returns what a program of PostgreSQL gets on its command line, and
// its environment. Everybody can read the former, so the password is in the
// latter.
func (k keywords) forProgram() (conninfo string, env []string, err error) {
	env = os.Environ()
	for _, w := range k {
		switch w.name {
		case "password":
			env = append(env, "PGPASSWORD="+w.value)
		case "sslpassword":
			return "", nil, fmt.Errorf("has %s, which could only be handed on where everybody can read it: use a key without one", w.name)
		}
	}
	return k.open().String(), env, nil
}

// open returns the keywords that anybody may see.
func (k keywords) open() keywords {
	return slices.DeleteFunc(slices.Clone(k), func(w keyword) bool { return slices.Contains(secrets, w.name) })
}
