package hydra

import (
	"errors"
	"fmt"
	"strings"
)

// dsn returns what pgx understands for any of the ways to name a database:
// the string of Perl's DBI, a PostgreSQL URL, or keywords and values. Errors
// never quote it: there may be a password in it.
func dsn(database string) (string, error) {
	scheme, rest, found := strings.Cut(database, ":")
	switch {
	case database == "":
		return "", errors.New("is empty: name a database, as in dbi:Pg:dbname=hydra;host=localhost;user=hydra; or postgres://hydra@localhost/hydra")
	case found && strings.EqualFold(scheme, "dbi"):
		return fromDBI(rest)
	case strings.HasPrefix(database, "postgres://"), strings.HasPrefix(database, "postgresql://"):
		return database, nil
	case strings.Contains(database, "://"):
		return "", fmt.Errorf("is a URL of %q, not of postgres", scheme)
	case !strings.Contains(database, "="):
		return "", errors.New("is none of dbi:Pg:dbname=hydra;host=localhost;user=hydra; and postgres://hydra@localhost/hydra and host=localhost dbname=hydra user=hydra")
	}
	return database, nil
}

// dbiNames are the keywords that DBD::Pg has beside those of libpq.
var dbiNames = map[string]string{"db": "dbname", "database": "dbname"}

// fromDBI translates what follows "dbi:": the driver, perhaps attributes for
// DBI itself in parentheses, and keyword=value pairs with semicolons between
// them, where a value may be in single quotes.
func fromDBI(s string) (string, error) {
	driver, pairs, found := strings.Cut(s, ":")
	driver, _, _ = strings.Cut(driver, "(")
	if !found || driver != "Pg" {
		return "", fmt.Errorf("is for the DBI driver %q: Hydra's database is PostgreSQL, so it begins with dbi:Pg", driver)
	}
	var words []string
	for _, pair := range splitPairs(pairs) {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !found || key == "" || strings.ContainsAny(key, " \t'") {
			return "", errors.New("has a part without keyword=value between its semicolons")
		}
		if name, ok := dbiNames[key]; ok {
			key = name
		}
		if !strings.HasPrefix(value, "'") {
			value = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
		}
		words = append(words, key+"="+value)
	}
	return strings.Join(words, " "), nil
}

// splitPairs splits at semicolons outside of quotes, in which a backslash
// escapes.
func splitPairs(s string) (pairs []string) {
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '\'':
			quoted = !quoted
		case s[i] == ';' && !quoted:
			pairs = append(pairs, s[start:i])
			start = i + 1
		}
	}
	return append(pairs, s[start:])
}
