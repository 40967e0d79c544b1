package hydra

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Config says what of a Hydra is backed up, and where to. As a file it is the
// JSON that hydra-backup had,
//
//	{"dbiConnection": "dbi:Pg:dbname=hydra;host=localhost;user=hydra;",
//	 "outDir": "/media/backup",
//	 "releases": [{"project": "disnix", "name": "disnix-0.3", "method": "binary"}]}
//
// where a release may also have
//
//	"description": "Disnix 0.3"
//	"evaluation": 3                   the builds of an evaluation
//	"jobset": "trunk"                 those of its latest one whose builds are all finished
//	"jobs": ["build", "tests.*"]      of an evaluation or a jobset, those of these jobs
//	"builds": [12, 13]                these builds
//	"outputs": ["out", "doc"]         only these outputs
//	"aggregate": 12                   a build and its constituents; "tested": the job of that name in the evaluation or the jobset
//
// and needs no name then. A name with *, ? or [ in it stands for all releases of
// the project in Hydra's tables that match.
type Config struct {
	Database string // as Open has it
	OutDir   string
	Releases []Selection
}

// A ConfigError says what is wrong in a configuration file, and where.
type ConfigError struct {
	File string
	Text string
}

func (e *ConfigError) Error() string { return e.File + ": " + e.Text }

// maxConfig is the longest configuration file that is read, in bytes.
const maxConfig = 16 << 20

// ReadConfig reads a configuration file. What is wrong with its content is a
// *ConfigError.
func ReadConfig(file string) (*Config, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxConfig {
		return nil, fmt.Errorf("read configuration: %s is no file of at most %d bytes", file, maxConfig)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := ParseConfig(text)
	if err != nil {
		return nil, &ConfigError{File: file, Text: err.Error()}
	}
	return c, nil
}

// ParseConfig reads the text of a configuration file. Fields that are unknown,
// there twice, or of the wrong type are errors: what is meant to be backed up
// shall not be missed because of a typing error.
func ParseConfig(text []byte) (*Config, error) {
	if err := syntax(text); err != nil {
		return nil, err
	}
	c := new(Config)
	err := object("", text, fields{
		"dbiConnection": is("a string", &c.Database),
		"outDir":        is("a string", &c.OutDir),
		"releases":      listOf("releases", &c.Releases, parseSelection),
	})
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) check() error {
	switch {
	case c.Database == "":
		return errors.New(`dbiConnection is missing: it says which database is Hydra's, as in "dbi:Pg:dbname=hydra;host=localhost;user=hydra;"`)
	case c.OutDir == "":
		return errors.New("outDir is missing: it says which directory the backup is in")
	case len(c.Releases) == 0:
		return errors.New("releases is missing or empty: it says what is backed up")
	}
	if _, err := dsn(c.Database); err != nil {
		return fmt.Errorf("dbiConnection %w", err)
	}
	seen := make(map[string]int)
	for i := range c.Releases {
		sel := &c.Releases[i]
		if err := sel.Check(); err != nil {
			return fmt.Errorf("releases[%d] %w", i, err)
		}
		if sel.Name == "" {
			continue
		}
		id := sel.Project + "/" + sel.Name
		if first, twice := seen[id]; twice {
			return fmt.Errorf("releases[%d] is release %s, and so is releases[%d]: leave one out", i, id, first)
		}
		seen[id] = i
	}
	return nil
}

func parseSelection(at string, text []byte) (sel Selection, err error) {
	err = object(at, text, fields{
		"project":     is("a string", &sel.Project),
		"name":        is("a string", &sel.Name),
		"description": is("a string", &sel.Description),
		"method":      is("a string", &sel.Method),
		"evaluation":  positive("the number of an evaluation", &sel.Evaluation),
		"jobset":      is("a string", &sel.Jobset),
		"jobs":        listOf(at+".jobs", &sel.Jobs, parseString),
		"outputs":     listOf(at+".outputs", &sel.Outputs, parseString),
		"builds":      listOf(at+".builds", &sel.Builds, parseBuild),
		"aggregate":   sel.Aggregate.parse,
	})
	return sel, err
}

func parseString(at string, text []byte) (s string, err error) {
	if err := is("a string", &s)(text); err != nil {
		return "", fmt.Errorf("%s %w", at, err)
	}
	return s, nil
}

func parseBuild(at string, text []byte) (id int64, err error) {
	if err := positive("the number of a build", &id)(text); err != nil {
		return 0, fmt.Errorf("%s %w", at, err)
	}
	return id, nil
}

func (a *Aggregate) parse(text []byte) error {
	if positive("", &a.Build)(text) == nil {
		return nil
	}
	if err := is("", &a.Job)(text); err != nil || a.Job == "" {
		return errors.New("is neither the number of a build nor the name of a job")
	}
	return nil
}

// fields says what to do with the values of an object, by key. Errors complete
// a sentence that begins with the field's name.
type fields map[string]func(text []byte) error

// object reads a JSON object, called at in messages ("" is the whole file).
func object(at string, text []byte, known fields) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return fmt.Errorf("%s is %s, not an object", orWhole(at), kind(text))
	}
	name := func(key string) string { return strings.TrimPrefix(at+"."+key, ".") }
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		key := token.(string) // of an object that syntax has seen
		set, ok := known[key]
		if !ok {
			return fmt.Errorf("%s is no field that narvault knows: did you mean %q?", name(key), nearest(key, slices.Sorted(maps.Keys(known))))
		}
		if seen[key] {
			return fmt.Errorf("%s is there twice", name(key))
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		var inner *innerError
		switch err := set(value); {
		case errors.As(err, &inner):
			return inner.error
		case err != nil:
			return fmt.Errorf("%s %w", name(key), err)
		}
	}
	return nil
}

// An innerError says by itself where it is.
type innerError struct{ error }

func orWhole(at string) string {
	if at == "" {
		return "the file"
	}
	return at
}

// is stores a value in p; what is the type in words.
func is[T any](what string, p *T) func([]byte) error {
	return func(text []byte) error {
		if err := json.Unmarshal(text, p); err != nil || kind(text) == "null" {
			return fmt.Errorf("is %s, not %s", kind(text), what)
		}
		return nil
	}
}

// positive stores a number of at least 1 in p.
func positive(what string, p *int64) func([]byte) error {
	return func(text []byte) error {
		if err := is(what, p)(text); err != nil {
			return err
		}
		if *p < 1 {
			return fmt.Errorf("is %d, not %s", *p, what)
		}
		return nil
	}
}

// listOf stores a list in p; parse reads its elements, called at[i].
func listOf[T any](at string, p *[]T, parse func(at string, text []byte) (T, error)) func([]byte) error {
	return func(text []byte) error {
		var list []json.RawMessage
		if err := is("a list", &list)(text); err != nil {
			return err
		}
		*p = []T{}
		for i, one := range list {
			v, err := parse(fmt.Sprintf("%s[%d]", at, i), one)
			if err != nil {
				return &innerError{err}
			}
			*p = append(*p, v)
		}
		return nil
	}
}

// kind names the type of a JSON value.
func kind(text []byte) string {
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
		return "nothing"
	case text[0] == '{':
		return "an object"
	case text[0] == '[':
		return "a list"
	case text[0] == '"':
		return "a string"
	case text[0] == 'n':
		return "null"
	case text[0] == 't', text[0] == 'f':
		return "true or false"
	}
	return "a number"
}

// syntax reports text that is no JSON, with line and column.
func syntax(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("is not UTF-8: save it in that encoding")
	}
	var v json.RawMessage
	err := json.Unmarshal(text, &v)
	var bad *json.SyntaxError
	if errors.As(err, &bad) {
		before := text[:min(max(int(bad.Offset)-1, 0), len(text))]
		line := 1 + bytes.Count(before, []byte("\n"))
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("is no JSON: line %d, column %d: %v", line, column, bad)
	}
	return err
}
