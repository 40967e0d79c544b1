package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/narvault/narvault/narread/nar"
)

// An lsFile is a parsed .ls file. It is parsed here token by token and not by
// json.Unmarshal, which would take "Version" for "version", as Nix does not.
type lsFile struct {
	root    *lsNode
	unknown string // a field that is none of the format
}

// An lsNode is a node of a .ls file.
type lsNode struct {
	kind       string
	size       int64
	executable bool
	offset     int64 // 0 if it is not told
	target     string
	entries    map[string]*lsNode
}

// parseLS parses a .ls file.
func parseLS(text []byte) (*lsFile, error) {
	p := &lsParser{json.NewDecoder(bytes.NewReader(text)), new(lsFile)}
	version := int64(0)
	err := p.object(func(key string) (err error) {
		switch key {
		case "version":
			version, err = p.number()
		case "root":
			p.file.root, err = p.node(0)
		default:
			err = p.skip(key)
		}
		return err
	})
	if err == nil && (version != 1 || p.file.root == nil) {
		err = fmt.Errorf("has version %d, not 1, or no root", version)
	}
	return p.file, err
}

type lsParser struct {
	*json.Decoder
	file *lsFile
}

// object parses an object; value is called for each key and parses its value.
func (p *lsParser) object(value func(key string) error) error {
	if t, err := p.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(err, errLS)
	}
	for p.More() {
		key, err := p.Token()
		if err != nil {
			return err
		}
		if err := value(key.(string)); err != nil {
			return err
		}
	}
	_, err := p.Token()
	return err
}

var errLS = errors.New("is no listing")

// node parses a node, which is at the given depth.
func (p *lsParser) node(depth int) (*lsNode, error) {
	if depth > nar.MaxDepth {
		return nil, fmt.Errorf("is nested more than %d deep", nar.MaxDepth)
	}
	n := new(lsNode)
	return n, p.object(func(key string) (err error) {
		switch key {
		case "type":
			err = p.Decode(&n.kind)
		case "size":
			n.size, err = p.number()
		case "narOffset":
			n.offset, err = p.number()
		case "executable":
			err = p.Decode(&n.executable)
		case "target":
			err = p.Decode(&n.target)
		case "entries":
			n.entries = make(map[string]*lsNode)
			err = p.object(func(name string) (err error) {
				n.entries[name], err = p.node(depth + 1)
				return err
			})
		default:
			err = p.skip(key)
		}
		return err
	})
}

func (p *lsParser) number() (n int64, err error) {
	err = p.Decode(&n)
	return n, err
}

// skip passes over a value that is not of the format.
func (p *lsParser) skip(key string) error {
	p.file.unknown = key
	var value json.RawMessage
	return p.Decode(&value)
}
