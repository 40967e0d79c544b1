package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	passes = `{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
`
	skips = `{"Action":"output","Package":"m/b","Test":"TestMount","Output":"=== RUN   TestMount\n"}
{"Action":"output","Package":"m/b","Test":"TestMount","Output":"    b_test.go:9: needs fuse\n"}
{"Action":"output","Package":"m/b","Test":"TestMount","Output":"--- SKIP: TestMount (0.00s)\n"}
{"Action":"skip","Package":"m/b","Test":"TestMount"}
{"Action":"output","Package":"m/b","Output":"ok  \tm/b\t0.1s\n"}
{"Action":"pass","Package":"m/b"}
`
	fails = `{"Action":"output","Package":"m/c","Test":"TestBad","Output":"    c_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"m/c","Test":"TestBad"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c\t0.1s\n"}
{"Action":"fail","Package":"m/c"}
`
	doesNotBuild = `{"ImportPath":"m/d","Action":"build-output","Output":"d.go:3: undefined: x\n"}
{"ImportPath":"m/d","Action":"build-fail"}
{"Action":"output","Package":"m/d","Output":"FAIL\tm/d [build failed]\n"}
{"Action":"fail","Package":"m/d","FailedBuild":"m/d"}
`
	exits = `{"Action":"output","Package":"m/e","Test":"TestExit","Output":"last words\n"}
{"Action":"output","Package":"m/e","Output":"FAIL\tm/e\t0.1s\n"}
{"Action":"fail","Package":"m/e"}
`
)

func TestReport(t *testing.T) {
	tests := []struct {
		name     string
		in       string
		required string
		strict   bool
		ok       bool
		want     []string // in this order
		absent   string
	}{
		{name: "nothing", ok: true, want: []string{"0 passed, 0 failed, 0 skipped\n"}},
		{name: "pass", in: passes, required: "# why\n\na TestGood\n", strict: true, ok: true,
			want: []string{"ok  \tm/a\t0.1s\n", "1 passed, 0 failed, 0 skipped\n"}, absent: "chatter"},
		{name: "two runs", in: "first\n" + passes + "second\n" + passes, ok: true,
			want: []string{"first\nok  \tm/a", "second\nok  \tm/a", "2 passed, 0 failed, 0 skipped\n"}},
		{name: "skip", in: passes + skips, required: "b TestMount", ok: true,
			want: []string{"m/b TestMount: b_test.go:9: needs fuse\n", "1 passed, 0 failed, 1 skipped\n"}},
		{name: "skip in CI", in: passes + skips, strict: true,
			want: []string{"Tests were skipped, and none may be.\n", "1 passed, 0 failed, 1 skipped\n"}},
		{name: "required test is gone", in: passes, required: "a TestGood\na TestGone\n",
			want: []string{"m/a TestGone: did not run\n", "1 passed, 0 failed, 0 skipped\n"}},
		{name: "required in another package", in: passes, required: "b TestGood\n",
			want: []string{"m/b TestGood: did not run\n"}},
		{name: "fail", in: passes + fails,
			want: []string{"got 1, want 2\n", "FAIL\tm/c\t0.1s\n", "m/c TestBad: failed\n", "1 passed, 1 failed, 0 skipped\n"}},
		{name: "fails once in two runs", in: fails + strings.ReplaceAll(passes, "m/a", "m/c"),
			want: []string{"1 passed, 1 failed, 0 skipped\n"}},
		{name: "does not build", in: passes + doesNotBuild,
			want: []string{"undefined: x\n", "FAIL\tm/d [build failed]\n", "m/d: failed\n", "1 passed, 1 failed, 0 skipped\n"}},
		{name: "exits in a test", in: exits,
			want: []string{"last words\n", "FAIL\tm/e", "0 passed, 1 failed, 0 skipped\n"}},
		{name: "no newline at the end", in: "stopped", ok: true, want: []string{"stopped"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			required := filepath.Join(t.TempDir(), "required")
			if err := os.WriteFile(required, []byte(tt.required), 0o666); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			ok, err := run(strings.NewReader(tt.in), &out, required, "m", tt.strict)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tt.ok {
				t.Errorf("ok = %v, want %v", ok, tt.ok)
			}
			rest := out.String()
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("output lacks %q, or has it too early:\n%s", want, &out)
				}
				rest = after
			}
			if tt.absent != "" && strings.Contains(out.String(), tt.absent) {
				t.Errorf("output has %q:\n%s", tt.absent, &out)
			}
		})
	}
}

func TestRequiredFileErrors(t *testing.T) {
	if _, err := run(strings.NewReader(""), &strings.Builder{}, filepath.Join(t.TempDir(), "absent"), "m", true); err == nil {
		t.Error("absent file: no error")
	}
	if _, err := parseRequired(strings.NewReader("a TestGood\nTestAlone\n"), "m"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("line without a package: %v, want an error that names line 2", err)
	}
}
