package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/nar"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// These tests mount for real. Everything that touches the mount runs in a child
// process: the server must not wait for itself.

// mounted mounts b until the end of the test.
func mounted(t testing.TB, b Backup, o Options) *Server {
	t.Helper()
	testenv.Need(t, "fuse")
	if o.Linger == 0 {
		o.Linger = 500 * time.Millisecond
	}
	s, err := Mount(b, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Wait(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Wait: %v", err)
			}
		case <-time.After(patience):
			s.Detach()
			t.Error("the mount cannot be unmounted")
		}
	})
	return s
}

// sh runs a shell script with arguments in a child and returns what it prints.
func sh(t testing.TB, script string, args ...string) string {
	t.Helper()
	return testenv.Run(t, "/", "sh", append([]string{"-ec", script, "sh"}, args...)...)
}

// shFails runs a script that must fail and returns what it says.
func shFails(t testing.TB, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput()
	if err == nil {
		t.Errorf("%s %q succeeds: %s", script, args, out)
	}
	return string(out)
}

func TestMountIsRight(t *testing.T) {
	b, oracle := sample(t)
	s := mounted(t, b, Options{RawLinks: true, Logf: t.Logf})
	for _, p := range []storepath.Path{samplePath, filePath, linkPath} {
		for _, view := range []string{"/store/", "/releases/demo/demo-1.0/"} {
			mine, theirs := s.Mountpoint()+view+string(p), filepath.Join(oracle, string(p))
			sh(t, `diff -r --no-dereference "$1" "$2"`, theirs, mine)
			// Everything but owner, times and write permission.
			const list = `find "$1" -type l -printf '%P %y %s %n %l\0' -o -printf '%P %y %m %s %n\0' | sed -z 's/ \([df]\) 755/ \1 555/; s/ d \([0-9]*\) [0-9]*/ d \1/' | sort -z`
			if got, want := sh(t, list, mine), sh(t, list, theirs); got != want {
				t.Errorf("%s%s:\n%q\nwant\n%q", view, p, got, want)
			}
		}
	}
	if got := sh(t, `stat -c '%X %Y %Z %U %b' "$1"`, s.Mountpoint()+"/store/"+string(samplePath)+"/big"); got != "1 1 1 "+strings.TrimSpace(sh(t, "id -un"))+" 6145\n" {
		t.Errorf("stat: %q", got)
	}
	if got := sh(t, `ls "$1/store/$2"`, s.Mountpoint(), string(manyPath)); strings.Count(got, "\n") != manyEntries {
		t.Errorf("%d entries", strings.Count(got, "\n"))
	}
}

func TestNixSeesTheArchivedNARs(t *testing.T) {
	testenv.Need(t, "nix")
	b, _ := sample(t)
	s := mounted(t, b, Options{RawLinks: true, Logf: t.Logf})
	for _, p := range []storepath.Path{samplePath, filePath, linkPath, manyPath} {
		if got := testenv.Run(t, "/", "nix-store", "--dump", s.Mountpoint()+"/releases/../store/"+string(p)); got != string(b.nars[p]) {
			t.Errorf("nix-store --dump of %s: %d bytes, want %d", p, len(got), len(b.nars[p]))
		}
	}
}

func TestLinksResolveInTheMount(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	for _, dir := range []string{s.Mountpoint() + "/store/", s.Mountpoint() + "/releases/demo/demo-1.0/"} {
		for _, link := range []string{
			string(linkPath) + "/bin/hello",
			string(samplePath) + "/lib/a/to-store",
			string(samplePath) + "/lib/a/b/c/to-dir/../bin/hello",
		} {
			if got := sh(t, `"$1" x`, dir+link); got != "hello x\n" {
				t.Errorf("%s: %q", link, got)
			}
		}
		if got := sh(t, `"$1" a b`, dir+string(samplePath)+"/to-store"); got != "ran a b\n" {
			t.Errorf("%q", got)
		}
		if got := sh(t, `realpath "$1"`, dir+string(linkPath)); got != dir+string(samplePath)+"\n" {
			t.Errorf("realpath: %q", got)
		}
	}
}

func TestMountTable(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Name: "a, b\\c"})
	m, err := mountAt(s.Mountpoint())
	must(t, err)
	if m.fsType != "fuse.narvault" || m.source != "narvault:a, b\\c" || !m.ours() {
		t.Errorf("%+v", m)
	}
	options := sh(t, `awk -v m="$1" '$5 == m {print $6}' /proc/self/mountinfo`, s.Mountpoint())
	for _, want := range []string{"ro", "nosuid", "nodev"} {
		if !strings.Contains(","+strings.TrimSpace(options)+",", ","+want+",") {
			t.Errorf("mount options %q lack %s", options, want)
		}
	}
	if got := shFails(t, `touch "$1"/x`, s.Mountpoint()); !strings.Contains(got, "Read-only") {
		t.Errorf("touch: %q", got)
	}
	if got := sh(t, `stat -f -c '%s %b %f %a %c %l' "$1"`, s.Mountpoint()); got != "4096 0 0 0 4 255\n" {
		t.Errorf("statfs: %q", got)
	}
}

func TestSecondPassAsksNothing(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	const pass = `cd "$1/store" && find -P . -mindepth 1 -printf '%p %m %s %l\n' && find . -type f -exec cat {} + && ls -lR */ `
	want := sh(t, pass, s.Mountpoint())
	var before, after Requests
	for range 3 { // the kernel may drop pages at any time; seen with DAMON, of an idle machine
		before = s.Requests()
		time.Sleep(2 * brief) // what the kernel may keep for a short time is not enough
		got := sh(t, pass, s.Mountpoint())
		after = s.Requests()
		if got != want {
			t.Fatal("the second pass sees something else")
		}
		if after.InPaths == before.InPaths {
			break
		}
	}
	// Names in store/ itself may be asked for again; they are not in a path.
	if n := after.InPaths - before.InPaths; n != 0 {
		t.Errorf("%d requests about the inside of store paths: before %+v, after %+v", n, before, after)
	}
	if after.Open > 4 {
		t.Errorf("%d requests to open or close", after.Open)
	}
}

func TestSharedFileIsReadOnce(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	file := string(samplePath) + "/big"
	a := sh(t, `sha256sum < "$1"`, s.Mountpoint()+"/store/"+file)
	reads := s.Requests().Read
	c := sh(t, `sha256sum < "$1"`, s.Mountpoint()+"/releases/demo/demo-1.0/"+file)
	if n := s.Requests().Read; n != reads || a != c {
		t.Errorf("%d READs through the second name; sums %s %s", n-reads, a, c)
	}
	inode := `stat -c %i "$1"`
	if a, c := sh(t, inode, s.Mountpoint()+"/store/"+file), sh(t, inode, s.Mountpoint()+"/releases/demo/demo-1.1/"+file); a != c {
		t.Errorf("inodes %s and %s", a, c)
	}
}

func TestAccessModes(t *testing.T) {
	b, _ := sample(t)
	program := path(7, "program")
	real, err := filepath.EvalSymlinks("/bin/cat")
	must(t, err)
	b.add(t, program, real)
	s := mounted(t, b, Options{Logf: t.Logf})
	big := s.Mountpoint() + "/store/" + string(samplePath) + "/big"
	want := content(3<<20 + 17)

	if got := sh(t, `"$1" "$2"`, s.Mountpoint()+"/store/"+string(program), big); got != string(want) {
		t.Error("an archived program, run from the mount, copies wrongly")
	}
	if got := sh(t, `dd iflag=direct bs=64k status=none if="$1"`, big); got != string(want) {
		t.Error("O_DIRECT reads wrongly")
	}
	if got := sh(t, `tail -c 1000 "$1"`, big); got != string(want[len(want)-1000:]) {
		t.Error("the tail is wrong")
	}
	for _, mode := range []string{"mmap", "holes"} {
		if got := child(t, mode, big); got != "ok\n" {
			t.Errorf("%s: %q", mode, got)
		}
	}
}

// A handle, as the NFS server keeps it, is good in the next mount, too.
func TestHandlesOutliveTheMount(t *testing.T) {
	testenv.Need(t, "root")
	b, _ := sample(t)
	for _, file := range []string{"/bin/hello", "/one"} {
		s, stop, done := waiting(t, Options{})
		handle, _, _ := strings.Cut(child(t, "handle", s.Mountpoint()+"/store/"+string(samplePath)+file), "\n")
		stop()
		must(t, soon(t, "Wait", done))
		s = mounted(t, b, Options{Logf: t.Logf})
		n, err := nar.ReadListing(bytes.NewReader(b.nars[samplePath]), int64(len(b.nars[samplePath])))
		must(t, err)
		i, _ := n.Find(file[1:])
		e := n.Entry(i)
		want := string(b.nars[samplePath][e.Offset:e.Offset+e.Size]) + "ok\n"
		if got := child(t, "open-handle", handle+" "+s.Mountpoint()); got != want {
			t.Errorf("%s by its handle: %q, want %q", file, got, want)
		}
	}
}

func TestSeekdir(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	for _, dir := range []string{"store/" + string(manyPath), "releases/demo/demo-1.1", "exports/store", "."} {
		if got := child(t, "seekdir", filepath.Join(s.Mountpoint(), dir)); got != "ok\n" {
			t.Errorf("%s: %q", dir, got)
		}
	}
}

func TestParallelReaders(t *testing.T) {
	for _, procs := range []int{1, runtime.GOMAXPROCS(0)} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			b, oracle := sample(t)
			s := mounted(t, b, Options{RawLinks: true, MaxTrees: 2, Logf: t.Logf})
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					view := []string{"/store/", "/releases/demo/demo-1.0/"}[i%2]
					for _, p := range []storepath.Path{samplePath, filePath, linkPath} {
						sh(t, `diff -r --no-dereference "$1" "$2"`, filepath.Join(oracle, string(p)), s.Mountpoint()+view+string(p))
					}
					sh(t, `ls -lR "$1"/store/*/ > /dev/null`, s.Mountpoint())
				})
			}
			wg.Wait()
		})
	}
}

func TestStreamsAreRight(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	for name, want := range map[string]string{
		"exports/store/" + string(filePath) + ".closure": exportText([]storepath.Path{filePath}),
		"exports/releases/demo/demo-1.1.closure":         exportText(b.releases[otherRelease]),
	} {
		if got := sh(t, `cat "$1"`, filepath.Join(s.Mountpoint(), name)); got != want {
			t.Errorf("%s: %d bytes, want %d", name, len(got), len(want))
		}
	}
}

func TestChangesShowWithinASecond(t *testing.T) {
	b, _ := sample(t)
	s := mounted(t, b, Options{Logf: t.Logf})
	// That much by design; a busy machine takes as long as it takes, but not the
	// minutes after which names of store paths are forgotten anyway.
	if worst := maxAge + max(brief, watchTick); worst >= time.Second {
		t.Errorf("a change may show after %v", worst)
	}
	const until = `i=0; until ` + `eval "$2"` + `; do i=$((i+1)); test $i -lt 1000 || exit 1; sleep 0.02; done`
	const look = `cd "$1"; ls releases/* store exports/releases/* > /dev/null; stat exports/releases/demo/demo-1.0.closure >/dev/null`
	appears := func(what string, change func(), test string) {
		t.Helper()
		t.Logf("look for %s", what)
		sh(t, look, s.Mountpoint()) // the kernel has everything in its caches
		b.do(change)
		sh(t, `cd "$1"; `+until, s.Mountpoint(), test)
	}
	id := ReleaseID{"new", "new-1"}
	added := path(0, "added")
	appears("a release", func() { b.releases[id] = []storepath.Path{filePath} }, `ls releases | grep -q new && test -x releases/new/new-1/`+string(filePath))
	appears("a path", func() { b.nars[added] = b.nars[filePath] }, `ls store | grep -q added && test -x store/`+string(added))
	appears("a changed release", func() { b.releases[id] = []storepath.Path{filePath, added} }, `ls releases/new/new-1 | grep -q added`)
	appears("a changed stream", func() { b.releases[sampleRelease] = []storepath.Path{filePath} },
		fmt.Sprintf(`test $(stat -c %%s exports/releases/demo/demo-1.0.closure) = %d`, len(exportText([]storepath.Path{filePath}))))
	appears("a removed release", func() { delete(b.releases, id) }, `test ! -e releases/new/new-1 && ! ls releases | grep -q new`)
	appears("a removed path", func() { delete(b.nars, added) }, `test ! -e store/`+string(added)+` && ! ls store | grep -q added`)
}

func TestDamageIsLocalAndPasses(t *testing.T) {
	b := newMemBackup()
	p := path(1, "x")
	const size, bad = 4 << 20, 2<<20 + 5000
	b.pack(t, p, nar.Header{Type: nar.Directory},
		nar.Header{Depth: 1, Name: "big", Type: nar.Regular, Size: size},
		nar.Header{Depth: 1, Name: "small", Type: nar.Regular, Size: 10})
	s := mounted(t, b, Options{Logf: t.Logf})
	l, err := nar.ReadListing(bytes.NewReader(b.nars[p]), int64(len(b.nars[p])))
	must(t, err)
	at := l.Entry(1).Offset + bad
	b.do(func() { b.fault = failing(p, at, at+1) })
	file := s.Mountpoint() + "/store/" + string(p) + "/big"

	if got := shFails(t, `sha256sum "$1"`, file); !strings.Contains(got, "Input/output error") {
		t.Errorf("read of a damaged file: %q", got)
	}
	if got := sh(t, `cat "$1/store/$2/small"`, s.Mountpoint(), string(p)); got != string(content(10)) {
		t.Errorf("another file of the same archive: %q", got)
	}
	// Block by block, with O_DIRECT so that it is our answer that is seen, and
	// through the page cache.
	for _, flag := range []string{"iflag=fullblock,direct", "iflag=fullblock"} {
		got := sh(t, `for i in $(seq 0 63); do dd `+flag+` if="$1" bs=64k skip=$i count=1 status=none 2>/dev/null >/dev/null || echo $i; done`, file)
		if got != fmt.Sprintln(bad>>16) {
			t.Errorf("%s: these blocks of 64 KiB cannot be read: %q, want %d", flag, got, bad>>16)
		}
	}
	b.do(func() { b.fault = nil })
	if got := sh(t, `cat "$1"`, file); got != string(content(size)) {
		t.Error("after the damage is gone the file is still wrong")
	}
}

func TestPanicIsEIO(t *testing.T) {
	b, _ := sample(t)
	var mu sync.Mutex
	var lines []string
	s := mounted(t, b, Options{Logf: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}})
	b.do(func() { b.fault = func(storepath.Path, int64, int) error { panic("oops") } })
	if got := shFails(t, `cat "$1"`, s.Mountpoint()+"/store/"+string(filePath)); !strings.Contains(got, "Input/output error") {
		t.Errorf("cat: %q", got)
	}
	b.do(func() { b.fault = nil })
	if got := sh(t, `"$1" x`, s.Mountpoint()+"/store/"+string(filePath)); got != "ran x\n" {
		t.Errorf("after a panic: %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(lines) != 1 || !strings.Contains(lines[0], "panic: oops") {
		t.Errorf("logged %q", lines)
	}
}
