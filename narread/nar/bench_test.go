package nar

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// manyFiles is a NAR of 20,000 files of 200 bytes in 200 directories.
func manyFiles() []byte {
	contents := strings.Repeat("x", 200)
	var dirs []any
	for d := range 200 {
		var files []any
		for i := range 100 {
			files = append(files, in(fmt.Sprintf("file-%03d.txt", i), file(contents)))
		}
		dirs = append(dirs, in(fmt.Sprintf("dir-%03d", d), directory(files...)))
	}
	return magic(directory(dirs...))
}

func largeFile() []byte { return magic(file(strings.Repeat("x", 64<<20))) }

func BenchmarkReader(b *testing.B) {
	for name, nar := range map[string][]byte{"many": manyFiles(), "large": largeFile()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(nar)))
			b.ReportAllocs()
			for b.Loop() {
				r := NewReader(bytes.NewReader(nar), ReaderOptions{Strict: true})
				for {
					if _, err := r.Next(); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkReadListing(b *testing.B) {
	for name, nar := range map[string][]byte{"many": manyFiles(), "large": largeFile()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(nar)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ReadListing(bytes.NewReader(nar), int64(len(nar))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDump(b *testing.B) {
	many := map[string]string{}
	for i := range 5000 {
		many[fmt.Sprintf("many/dir-%03d/file-%03d", i/100, i%100)] = strings.Repeat("x", 200)
	}
	root := b.TempDir()
	writeTree(b, root, many)
	writeTree(b, root, map[string]string{"large": strings.Repeat("x", 64<<20)})
	for _, name := range []string{"many", "large"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, _, err := Dump(b.Context(), io.Discard, root+"/"+name)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(l.NarSize())
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	l, _ := tolerantListing(manyFiles())
	for b.Loop() {
		if _, ok := l.Find("dir-123/file-045.txt"); !ok {
			b.Fatal("not found")
		}
	}
}
