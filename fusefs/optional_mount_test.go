package fusefs

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// These tests are about the optional views, mounted for real.

func TestOptionalViewsInTheMount(t *testing.T) {
	b := fullSample(t)
	s := mounted(t, b, Options{XAttrs: true, Logf: t.Logf})
	in := func(script string) string { return sh(t, `cd "$1"; `+script, s.Mountpoint()) }
	if got := in(`ls -A | tr '\n' ' '`); got != ".narvault cache exports jobs logs releases store " {
		t.Errorf("the top: %q", got)
	}
	// The target of a link is what its length says.
	if got := in(`jobs/demo/demo-1.0/build.x86_64-linux/out/bin/hello x; cd jobs/demo/demo-1.0/build*/out; pwd -P`); got != "hello x\n"+s.Mountpoint()+"/store/"+string(samplePath)+"\n" {
		t.Errorf("through a job: %q", got)
	}
	if got := in(`find jobs -type l -printf '%s %l\n'`); strings.Count(got, fmt.Sprintf("%d ../../../../store/", len("../../../../store/")+len(samplePath))) != 2 {
		t.Errorf("links: %q", got)
	}
	if got := in(`cat logs/x.drv cache/log/x.drv; stat -c %i logs/x.drv cache/log/x.drv | uniq | wc -l`); got != "built\nbuilt\n1\n" {
		t.Errorf("logs: %q", got)
	}
	if got := in(`cat cache/nar/a.nar.zst`); got != string(content(300000)) {
		t.Error("a file of the cache is wrong")
	}
	if got := in(`grep -c . .narvault/status.json .narvault/errors`); !strings.HasSuffix(got, "errors:1\n") {
		t.Errorf(".narvault: %q", got)
	}
	if got := child(t, "xattr", s.Mountpoint()+"/store/"+string(samplePath)); !strings.HasPrefix(got, "user.nix.deriver user.nix.narHash user.nix.references sha256:x\nok") {
		t.Errorf("extended attributes: %q", got)
	}
}

// What changes in the cache is seen within a second, also by who has just
// looked, also when size and name stay the same.
func TestCacheChangesShow(t *testing.T) {
	b := fullSample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	const file = "log/x.drv"
	shows := func(what, check string) {
		t.Helper()
		sh(t, `cd "$1"; i=0; until `+check+`; do i=$((i+1)); test $i -lt 1000 || exit 1; sleep 0.02; done`, s.Mountpoint())
	}
	sh(t, `cd "$1"; cat logs/x.drv; ls -R cache logs`, s.Mountpoint())
	b.do(func() { b.files[file], b.times[file] = "BUILT\n", time.Unix(1000, 1) })
	shows("another content", `test "$(cat logs/x.drv)" = BUILT`)
	b.do(func() { b.files["log/new.drv"], b.times["log"] = "", time.Unix(1000, 1) })
	shows("a new file", `ls logs | grep -q new && test -e cache/log/new.drv`)
	b.do(func() { delete(b.files, file); b.times["log"] = time.Unix(1000, 2) })
	shows("a removed file", `test ! -e logs/x.drv && ! ls cache/log | grep -q x`)
}

// Somebody who looks all the time sees whole versions only.
func TestStatusIsNeverTorn(t *testing.T) {
	b := fullSample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	sh(t, `cd "$1/.narvault"; for i in $(seq 200); do cat status.json | tail -c 2; done | grep -c '^}$' | grep -qx 200`, s.Mountpoint())
}
