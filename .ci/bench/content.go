package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// content is what is in the tree: lists of files, and what they amount to.
type content struct {
	first      string // a store path
	entries    int
	all, small fileList
	large      fileList // the largest alone
	largest    string
}

type fileList struct {
	name  string // of the file that has the names
	files int
	bytes int64
}

const smallFile = 64 << 10

// A file is a regular file of the tree.
type file struct {
	name string
	size int64
}

// scan looks at a tree, and writes the lists of what is in it.
func scan(tree string) (*content, error) {
	c := new(content)
	var files []file
	err := fs.WalkDir(os.DirFS(tree), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		c.entries++
		if c.first == "" && name != "." {
			c.first = name
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err == nil {
			files = append(files, file{name, info.Size()})
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no files")
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", tree, err)
	}
	return c, c.writeLists(files)
}

func (c *content) writeLists(files []file) (err error) {
	if c.all, err = writeList("all.list", files); err != nil {
		return err
	}
	largest := slices.MaxFunc(files, func(a, b file) int { return cmp.Compare(a.size, b.size) })
	c.largest = largest.name
	if c.large, err = writeList("large.list", []file{largest}); err != nil {
		return err
	}
	small := slices.DeleteFunc(files, func(f file) bool { return f.size >= smallFile })
	c.small, err = writeList("small.list", small)
	return err
}

func writeList(name string, files []file) (fileList, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return fileList{}, err
	}
	l := fileList{name: path, files: len(files)}
	var text strings.Builder
	for _, f := range files {
		l.bytes += f.size
		text.WriteString(f.name + "\n")
	}
	return l, os.WriteFile(path, []byte(text.String()), 0o644)
}

func (c *content) aboutEntries() string { return fmt.Sprintf("%d entries", c.entries) }

func (l *fileList) about() string {
	return fmt.Sprintf("%d files, %.0f MB", l.files, float64(l.bytes)/1e6)
}
