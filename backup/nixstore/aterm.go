package nixstore

import (
	"bytes"
	"fmt"

	"github.com/narvault/narvault/narread/storepath"
)

// A .drv file is an ATerm (Nix's derivation/aterm.cc):
//
//	Derive(OUTPUTS,INPUTDRVS,INPUTSRCS,PLATFORM,BUILDER,ARGS,ENV)
//	DrvWithVersion("xp-dyn-drv",OUTPUTS,...)
//
//	OUTPUTS    [("name","path","hash algorithm","hash"),...]
//	INPUTDRVS  [("path",OUTPUTSUSED),...]
//	INPUTSRCS  ["path",...]
//	ENV        [("key","value"),...]
//
// where OUTPUTSUSED is ["name",...] or, with dynamic derivations only,
// (["name",...],[("name",OUTPUTSUSED),...]). Strings are bytes with the escapes
// \" \\ \n \r \t; a backslash before anything else means that byte.

// aterm walks over the text of a derivation. The first fault stops it: then err
// is set, and every further step does nothing and returns zero values.
type aterm struct {
	text []byte
	pos  int
	err  error
}

func (t *aterm) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("offset %d: %s", t.pos, fmt.Sprintf(format, args...))
	}
}

// next reports whether the text goes on with s.
func (t *aterm) next(s string) bool {
	return t.err == nil && bytes.HasPrefix(t.text[t.pos:], []byte(s))
}

// skip passes over s if the text goes on with it.
func (t *aterm) skip(s string) bool {
	if !t.next(s) {
		return false
	}
	t.pos += len(s)
	return true
}

func (t *aterm) expect(s string) {
	if !t.skip(s) {
		t.fail("expected %q", s)
	}
}

// list calls element for each element of a bracketed list.
func (t *aterm) list(element func()) {
	t.expect("[")
	if t.skip("]") {
		return
	}
	for t.err == nil {
		element()
		if t.skip("]") {
			return
		}
		t.expect(",")
	}
}

// string reads a quoted string.
func (t *aterm) string() string {
	t.expect(`"`)
	if t.err != nil {
		return ""
	}
	start := t.pos
	end := t.closingQuote()
	if end < 0 {
		t.fail("string has no end")
		return ""
	}
	t.pos = end + 1
	return unescapeATerm(t.text[start:end])
}

// closingQuote returns the offset of the quote that ends the string at pos, or
// -1.
func (t *aterm) closingQuote() int {
	for i := t.pos; i < len(t.text); i++ {
		switch t.text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func unescapeATerm(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	plain := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '\\' { // closingQuote made sure that another byte follows
			i++
			switch c = raw[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
		}
		plain = append(plain, c)
	}
	return string(plain)
}

// path reads a quoted absolute store path.
func (t *aterm) path(storeDir string) storepath.Path {
	s := t.string()
	if t.err != nil {
		return ""
	}
	p, err := storepath.ParseIn(storeDir, s)
	if err != nil {
		t.fail("%v", err)
	}
	return p
}

func (t *aterm) strings() []string {
	var list []string
	t.list(func() { list = append(list, t.string()) })
	return list
}

// skipList passes over a list of anything, however deep, without recursion.
func (t *aterm) skipList() {
	if !t.next("[") {
		t.fail("expected %q", "[")
	}
	for depth := 0; t.err == nil; {
		switch {
		case t.next(`"`):
			t.string()
		case t.skip("["), t.skip("("):
			depth++
		case t.skip("]"), t.skip(")"):
			if depth--; depth == 0 {
				return
			}
		case !t.skip(","):
			t.fail("expected a list")
		}
	}
}

// parseDerivation reads the text of a .drv file; Path and Name are left to the
// caller.
func parseDerivation(text []byte, storeDir string) (*Derivation, error) {
	t := &aterm{text: text}
	d := &Derivation{Outputs: map[string]storepath.Path{}, InputDrvs: map[storepath.Path][]string{}}
	if t.skip("DrvWithVersion(") {
		if version := t.string(); version != "xp-dyn-drv" {
			t.fail("derivation format %q is not known", version)
		}
		t.expect(",")
	} else {
		t.expect("Derive(")
	}
	t.list(func() { t.output(d, storeDir) })
	t.expect(",")
	t.list(func() { t.inputDrv(d, storeDir) })
	t.expect(",")
	t.list(func() { d.InputSrcs = append(d.InputSrcs, t.path(storeDir)) })
	t.expect(",")
	d.System = t.string()
	t.expect(",")
	t.string() // builder
	t.expect(",")
	t.strings() // its arguments
	t.expect(",")
	t.list(t.pair) // environment
	t.expect(")")
	if t.err == nil && t.pos != len(text) {
		t.fail("%d bytes follow the derivation", len(text)-t.pos)
	}
	if t.err != nil {
		return nil, t.err
	}
	return d, nil
}

func (t *aterm) output(d *Derivation, storeDir string) {
	t.expect("(")
	name := t.string()
	t.expect(",")
	var p storepath.Path
	if !t.skip(`""`) {
		p = t.path(storeDir)
	}
	t.expect(",")
	t.string() // hash algorithm
	t.expect(",")
	t.string() // hash
	t.expect(")")
	if _, twice := d.Outputs[name]; twice {
		t.fail("output %q appears twice", name)
	}
	d.Outputs[name] = p
}

func (t *aterm) inputDrv(d *Derivation, storeDir string) {
	t.expect("(")
	p := t.path(storeDir)
	t.expect(",")
	if t.skip("(") { // outputs of outputs, which are not known before the build
		d.InputDrvs[p] = t.strings()
		t.expect(",")
		t.skipList()
		t.expect(")")
	} else {
		d.InputDrvs[p] = t.strings()
	}
	t.expect(")")
}

func (t *aterm) pair() {
	t.expect("(")
	t.string()
	t.expect(",")
	t.string()
	t.expect(")")
}
