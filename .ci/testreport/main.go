// Testreport reads the output of `go test -json`, several runs one after the
// other, and prints what a person or a CI machine wants to see of it: go test's
// own line for each package, the output of what failed, a list of what was
// skipped and why, and as its last line
//
//	N passed, N failed, N skipped
//
// which counts tests and subtests. Lines that are not JSON are passed through.
//
// It exits 1 when anything failed, or when a test of the -required file did not
// run: one that silently does not run looks like one that passed. With -strict,
// which CI uses, no test may be skipped either.
//
// Each line of the -required file is a package, relative to the module, and a
// test: "fusefs TestMount". Blank lines and lines that start with # do not count.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	strict := flag.Bool("strict", false, "fail when a test was skipped")
	required := flag.String("required", "", "`file` that names the tests that must run")
	module := flag.String("module", "", "module `path` that the packages in the required file are relative to")
	flag.Parse()
	ok, err := run(os.Stdin, os.Stdout, *required, *module, *strict)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, required, module string, strict bool) (ok bool, err error) {
	var want []test
	if required != "" {
		f, err := os.Open(required)
		if err != nil {
			return false, err
		}
		defer f.Close()
		if want, err = parseRequired(f, module); err != nil {
			return false, fmt.Errorf("read %s: %w", required, err)
		}
	}
	r := newReport(out)
	if err := r.readAll(in); err != nil {
		return false, err
	}
	return r.finish(want, strict), nil
}

// A test is a test or subtest of a package; name is empty for the package
// itself.
type test struct{ pkg, name string }

func (t test) String() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + " " + t.name
}

// parseRequired reads a -required file.
func parseRequired(in io.Reader, module string) ([]test, error) {
	var tests []test
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("line %d: want a package and a test, got %q", n, lines.Text())
		}
		tests = append(tests, test{module + "/" + words[0], words[1]})
	}
	return tests, lines.Err()
}

// An event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of what did not build
	Test       string
	Output     string
}

// A report collects events. Output is kept until its test has ended, because
// only then it is known whether anyone wants to see it.
type report struct {
	out     io.Writer
	output  map[test][]string
	ran     map[test]bool // to some end, in some run
	failed  map[test]string
	skipped map[test]string // the reason, as the test wrote it
	nPass   int
	nFail   int
	nSkip   int
	failing map[string]bool // packages with a failed test in the present run
}

func newReport(out io.Writer) *report {
	return &report{
		out:     out,
		output:  map[test][]string{},
		ran:     map[test]bool{},
		failed:  map[test]string{},
		skipped: map[test]string{},
		failing: map[string]bool{},
	}
}

func (r *report) readAll(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		io.WriteString(r.out, line)
		return
	}
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(t, e.Action)
		} else {
			r.endTest(t, e.Action)
		}
		delete(r.output, t)
	}
}

func (r *report) endTest(t test, action string) {
	r.ran[t] = true
	switch action {
	case "pass":
		r.nPass++
	case "fail":
		r.nFail++
		r.failed[t], r.failing[t.pkg] = "failed", true
		io.WriteString(r.out, strings.Join(r.output[t], ""))
	case "skip":
		r.nSkip++
		r.skipped[t] = skipReason(r.output[t])
	}
}

// endPackage prints go test's line for the package, and all that was written
// outside of finished tests if it failed: it may not have built, have exited in
// the middle of a test, or have run out of time.
func (r *report) endPackage(t test, action string) {
	if action == "fail" {
		if !r.failing[t.pkg] {
			r.nFail++
			r.failed[t] = "failed"
		}
		for _, unfinished := range r.unfinished(t.pkg) {
			io.WriteString(r.out, strings.Join(r.output[unfinished], ""))
			delete(r.output, unfinished)
		}
	}
	for _, line := range r.output[t] {
		if action == "fail" || isPackageLine(line) {
			io.WriteString(r.out, line)
		}
	}
	delete(r.failing, t.pkg)
}

// unfinished lists the tests of pkg that began to write and never ended.
func (r *report) unfinished(pkg string) []test {
	var tests []test
	for t := range r.output {
		if t.pkg == pkg && t.name != "" {
			tests = append(tests, t)
		}
	}
	slices.SortFunc(tests, compareTests)
	return tests
}

// isPackageLine reports whether line is the one by which go test sums a package
// up: "ok  pkg 0.1s", "FAIL pkg 0.1s" or "?   pkg [no test files]".
func isPackageLine(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// skipReason takes what the test said to t.Skip out of its output, whose other
// lines are "=== RUN" and "--- SKIP".
func skipReason(output []string) string {
	var reasons []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		reasons = append(reasons, line)
	}
	return strings.Join(reasons, " ")
}

// finish prints the end of the report and says whether all is well.
func (r *report) finish(want []test, strict bool) bool {
	ok := r.nFail == 0
	r.list("Skipped", r.skipped)
	if r.nSkip > 0 && strict {
		fmt.Fprintln(r.out, "Tests were skipped, and none may be.")
		ok = false
	}
	absent := map[test]string{}
	for _, t := range want {
		if !r.ran[t] {
			absent[t] = "did not run"
		}
	}
	r.list("Required", absent)
	r.list("Failed", r.failed)
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.nPass, r.nFail, r.nSkip)
	return ok && len(absent) == 0
}

func (r *report) list(title string, tests map[test]string) {
	if len(tests) == 0 {
		return
	}
	fmt.Fprintf(r.out, "\n%s:\n", title)
	for _, t := range slices.SortedFunc(maps.Keys(tests), compareTests) {
		fmt.Fprintf(r.out, "  %s: %s\n", t, tests[t])
	}
}

func compareTests(a, b test) int {
	return strings.Compare(a.String(), b.String())
}
