// Package cmd_test holds the directions in which the packages of narvault may
// import each other.
package cmd_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/narvault/narvault"

// mayImport says which parts of narvault each part may import besides itself: a
// part is a directory at the top with all packages below it. Imports run one way,
//
//	cmd -> fusefs, backup, hydra -> index -> narread
//
// so that what reads the formats can be tested without a kernel or a database,
// and the mount without a backup on disk.
var mayImport = map[string][]string{
	"cmd":     {"fusefs", "backup", "hydra", "index", "narread"},
	"fusefs":  {"index", "narread"},
	"backup":  {"index", "narread"},
	"hydra":   {"index", "narread"},
	"index":   {"narread"},
	"narread": {},
}

// homes says which part alone may import a module that is heavy, or that could
// be exchanged for another: then the exchange stays in one place.
var homes = map[string]string{
	"github.com/jackc/pgx":        "hydra",
	"github.com/dgraph-io/badger": "index",
	"github.com/hanwen/go-fuse":   "fusefs",
	"github.com/ulikunitz/xz":     "narread",
	"github.com/dsnet/compress":   "narread",
	"github.com/klauspost/":       "narread",
	"github.com/andybalholm/":     "narread",
	"github.com/pierrec/lz4":      "narread",
	"github.com/spf13/":           "cmd",
	"github.com/vbauerster/mpb":   "cmd",
	"github.com/schollz/":         "cmd",
	"golang.org/x/term":           "cmd",
}

// breach says which rule it breaks that the package pkg, a path relative to the
// module, imports the package imp in a file of the given name; "" is none.
func breach(pkg, file, imp string) string {
	from := part(pkg)
	allowed, ok := mayImport[from]
	if !ok {
		return fmt.Sprintf("%s is a part of narvault that mayImport does not have", from)
	}
	// The tests of cmd are where the parts are tested together.
	if from == "cmd" && strings.HasSuffix(file, "_test.go") {
		return ""
	}
	if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
		to := part(rel)
		if to == from || slices.Contains(allowed, to) {
			return ""
		}
		return fmt.Sprintf("%s may import only %s of narvault", from, list(allowed))
	}
	if imp == "unsafe" && pkg == "narread/xz" {
		return "what decodes hostile input does without"
	}
	for prefix, home := range homes {
		if strings.HasPrefix(imp, prefix) && home != from {
			return fmt.Sprintf("only %s may import %s", home, prefix)
		}
	}
	return ""
}

// part returns the first element of a package's path in the module.
func part(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

func list(parts []string) string {
	if len(parts) == 0 {
		return "itself"
	}
	return "itself and " + strings.Join(parts, ", ")
}

// TestImportDirections reads the import clauses of all Go files, and not what
// the go command lists: that would leave out files for other systems and tags.
func TestImportDirections(t *testing.T) {
	root := ".."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && ignored(d.Name()) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		return checkFile(t, root, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 2 {
		t.Errorf("found %d Go files below %s: the test looks in the wrong place", files, root)
	}
}

// ignored reports whether the go command ignores a directory of this name.
func ignored(name string) bool {
	return name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func checkFile(t *testing.T, root, path string) error {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	pkg := filepath.ToSlash(filepath.Dir(rel))
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if rule := breach(pkg, rel, imp); rule != "" {
			t.Errorf("%s imports %s: %s", rel, imp, rule)
		}
	}
	return nil
}

func TestBreach(t *testing.T) {
	const ours = module + "/"
	tests := []struct {
		pkg, file, imp string
		rule           string // "" where the import is right
	}{
		{"cmd/narvault", "main.go", ours + "fusefs", ""},
		{"cmd/narvault", "main.go", ours + "narread/nar", ""},
		{"cmd/narvault", "main.go", "github.com/spf13/cobra", ""},
		{"cmd/narvault", "main.go", "github.com/klauspost/compress/zstd", "only narread may import"},
		{"cmd/narvault", "main_test.go", "github.com/klauspost/compress/zstd", ""},
		{"fusefs", "mount.go", ours + "index", ""},
		{"fusefs", "mount.go", ours + "narread/storepath", ""},
		{"fusefs", "mount.go", "github.com/hanwen/go-fuse/v2/fuse", ""},
		{"fusefs", "mount.go", ours + "backup", "fusefs may import only itself and index, narread"},
		{"fusefs", "mount_test.go", ours + "backup", "fusefs may import only"},
		{"fusefs/views", "x.go", ours + "hydra/dump", "fusefs may import only"},
		{"backup", "write.go", ours + "backup/nixstore", ""},
		{"backup/nixstore", "store.go", ours + "backup", ""},
		{"backup", "write.go", ours + "fusefs", "backup may import only"},
		{"backup", "write.go", ours + "cmd/narvault", "backup may import only"},
		{"backup", "write.go", "github.com/klauspost/compress/zstd", "only narread may import"},
		{"hydra", "db.go", "github.com/jackc/pgx/v5", ""},
		{"backup", "db.go", "github.com/jackc/pgx/v5/pgxpool", "only hydra may import"},
		{"index", "index.go", ours + "narread", ""},
		{"index/bincache", "cache.go", ours + "fusefs", "index may import only itself and narread"},
		{"index", "index.go", "github.com/dgraph-io/badger/v4", ""},
		{"narread", "cache.go", "github.com/dgraph-io/badger/v4", "only index may import"},
		{"narread", "archive.go", ours + "narread/nar", ""},
		{"narread", "archive.go", ours + "index", "narread may import only itself of narvault"},
		{"narread/xz", "xz_test.go", ours + "index/bincache", "narread may import only itself"},
		{"narread", "archive.go", "io", ""},
		{"narread/nar", "large.go", "unsafe", ""},
		{"narread/xz", "lzma.go", "unsafe", "does without"},
		{"util", "util.go", "io", "util is a part of narvault that mayImport does not have"},
		{".", "main.go", "io", ". is a part"},
	}
	for _, tt := range tests {
		got := breach(tt.pkg, tt.file, tt.imp)
		if (got == "") != (tt.rule == "") || !strings.Contains(got, tt.rule) {
			t.Errorf("breach(%q, %q, %q) = %q, want %q", tt.pkg, tt.file, tt.imp, got, tt.rule)
		}
	}
}

// TestModulePath fails when the module is renamed and this file is not: then no
// import would look like one of ours.
func TestModulePath(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "module " + module + "\n"; !strings.HasPrefix(string(mod), want) {
		t.Errorf("go.mod does not begin with %q", want)
	}
}
