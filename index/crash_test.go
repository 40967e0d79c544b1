package index

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narvault/narvault/index/bincache"
)

var errCrash = errors.New("crash")

// A crashDisk stops before its n-th operation, and does nothing from then on. A
// file that was to be written then is there by half.
type crashDisk struct {
	osDisk
	left int
	log  []string
}

func (d *crashDisk) step(op string, names ...string) error {
	if d.left--; d.left < 0 {
		return errCrash
	}
	d.log = append(d.log, op+" "+strings.Join(names, " "))
	return nil
}

func (d *crashDisk) Mkdir(name string) error {
	if err := d.step("mkdir", name); err != nil {
		return err
	}
	return d.osDisk.Mkdir(name)
}

func (d *crashDisk) Write(name string, data []byte) error {
	if err := d.step("write", name); err != nil {
		if d.left == -1 {
			_ = os.WriteFile(name, data[:len(data)/2], 0o600)
		}
		return err
	}
	return d.osDisk.Write(name, data)
}

func (d *crashDisk) Sync(name string) error {
	if err := d.step("sync", name); err != nil {
		return err
	}
	return d.osDisk.Sync(name)
}

func (d *crashDisk) SyncDir(name string) error {
	if err := d.step("syncdir", name); err != nil {
		return err
	}
	return d.osDisk.SyncDir(name)
}

func (d *crashDisk) Rename(from, to string) error {
	if err := d.step("rename", from, to); err != nil {
		return err
	}
	return d.osDisk.Rename(from, to)
}

func (d *crashDisk) RemoveAll(name string) error {
	if err := d.step("remove", name); err != nil {
		if d.left == -1 { // by half, too
			_ = os.Remove(filepath.Join(name, manifestFile))
		}
		return err
	}
	return d.osDisk.RemoveAll(name)
}

// A crash at every operation leaves an index that opens and shows the cache as
// it was or as it is, and the next build makes all well.
func TestCrashAtEveryStep(t *testing.T) {
	for steps := 0; ; steps++ {
		f := newFakeCache(t, 5)
		dir := t.TempDir()
		f.build(dir, BuildOptions{})
		before := *f
		before.want = maps.Clone(f.want)
		f.remove(f.paths()[1])
		f.add("added")

		d := &crashDisk{left: steps}
		_, err := Build(t.Context(), dir, f.open(), BuildOptions{disk: d})
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", steps, err)
		}
		checkEither(t, dir, &before, f)
		if s := f.build(dir, BuildOptions{}); s.Paths != 5 {
			t.Errorf("step %d: %+v", steps, s)
		}
		f.check(dir)
		if got := generations(t, dir); len(got) != 1 || strings.HasSuffix(got[0], tempSuffix) {
			t.Errorf("step %d: generations %v", steps, got)
		}
		if err == nil {
			checkOrder(t, dir, d.log)
			return
		}
	}
}

func checkEither(t *testing.T, dir string, before, after *fakeCache) {
	t.Helper()
	ix, err := Open(dir, Options{})
	must(t, err)
	defer ix.Close()
	if ix.Generation() == 1 {
		before.compare(ix)
	} else {
		after.compare(ix)
	}
}

// checkOrder checks that everything is durable before something names it.
func checkOrder(t *testing.T, dir string, log []string) {
	t.Helper()
	at := func(op string) int {
		i := slices.Index(log, strings.ReplaceAll(op, "DIR", dir))
		if i < 0 {
			t.Fatalf("there is no %q in\n%s", op, strings.Join(log, "\n"))
		}
		return i
	}
	order := []int{
		at("write DIR/gen-2.tmp/names"),
		at("sync DIR/gen-2.tmp/records/000001.sst"),
		at("write DIR/gen-2.tmp/manifest"),
		at("syncdir DIR/gen-2.tmp"),
		at("rename DIR/gen-2.tmp DIR/gen-2"),
		at("syncdir DIR"),
		at("write DIR/CURRENT.tmp"),
		at("rename DIR/CURRENT.tmp DIR/CURRENT"),
		at("rename DIR/gen-1 DIR/gen-1.tmp"),
		at("remove DIR/gen-1.tmp"),
	}
	if !slices.IsSorted(order) || at("syncdir DIR/gen-2.tmp/records") > at("syncdir DIR/gen-2.tmp") ||
		at("sync DIR/gen-2.tmp/records/MANIFEST") > at("write DIR/gen-2.tmp/manifest") {
		t.Errorf("order:\n%s", strings.Join(log, "\n"))
	}
}

// A failure that is no crash leaves nothing behind.
func TestFailedBuildCleansUp(t *testing.T) {
	f := newFakeCache(t, 5)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	f.add("added")
	_, err := Build(t.Context(), dir, f.open(), BuildOptions{disk: &failingWrite{}})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	if got := generations(t, dir); !slices.Equal(got, []string{"gen-1"}) {
		t.Errorf("generations %v", got)
	}
}

type failingWrite struct{ osDisk }

func (failingWrite) Write(string, []byte) error { return errCrash }

const childVar = "NARVAULT_INDEX_TEST_CHILD"

// TestMain lets the test binary be the child of a test.
func TestMain(m *testing.M) {
	args := strings.Split(os.Getenv(childVar), "|")
	switch args[0] {
	case "user":
		childIsUser(args[1], args[2])
	case "build":
		childBuilds(args[1], args[2])
	}
	os.Exit(m.Run())
}

// child returns a command that runs the test binary as a child.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childVar+"="+strings.Join(args, "|"))
	cmd.Stderr = os.Stderr
	return cmd
}

// childBuilds builds again and again, each time with a store path more or less,
// and writes a line whenever it is a bit further.
func childBuilds(dir, cacheDir string) {
	c, err := bincache.Open(cacheDir, bincache.Options{})
	if err != nil {
		panic(err)
	}
	all, err := c.Hashes()
	if err != nil {
		panic(err)
	}
	name := filepath.Join(cacheDir, all[0]+bincache.NarInfoExt)
	for {
		if os.Rename(name, name+".hidden") != nil {
			_ = os.Rename(name+".hidden", name)
		}
		o := BuildOptions{Progress: func(done, _ int) {
			if done%20 == 0 {
				fmt.Println("progress", done)
			}
		}, disk: tellDisk{}}
		if _, err := Build(context.Background(), dir, c, o); err != nil {
			panic(err)
		}
	}
}

// tellDisk tells of each operation.
type tellDisk struct{ osDisk }

func (d tellDisk) Sync(name string) error { fmt.Println("sync"); return d.osDisk.Sync(name) }
func (d tellDisk) Rename(from, to string) error {
	fmt.Println("rename")
	return d.osDisk.Rename(from, to)
}
func (d tellDisk) RemoveAll(name string) error {
	fmt.Println("remove")
	return d.osDisk.RemoveAll(name)
}
func (d tellDisk) Write(name string, data []byte) error {
	fmt.Println("write")
	return d.osDisk.Write(name, data)
}

// TestKill kills a process that builds, at many points.
func TestKill(t *testing.T) {
	f := newFakeCache(t, 60)
	dir := t.TempDir()
	f.build(dir, BuildOptions{})
	hidden := f.narInfo(f.paths()[0])
	for round := range 14 {
		cmd := child(t, "build", dir, f.dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for range 1 + round*5 {
			lines.Scan()
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		_ = os.Rename(hidden+".hidden", hidden)

		ix, err := Open(dir, Options{})
		must(t, err)
		if n := ix.Len(); n != 60 && n != 59 {
			t.Errorf("round %d: %d store paths", round, n)
		}
		for _, e := range ix.Paths() {
			if problem := f.want[e.Path].compare(ix, e.Path); problem != "" {
				t.Errorf("round %d: %s: %s", round, e.Path, problem)
			}
		}
		must(t, ix.Close())
		f.build(dir, BuildOptions{})
		f.check(dir)
		if got := generations(t, dir); len(got) != 1 {
			t.Errorf("round %d: generations %v", round, got)
		}
	}
}
