package fusefs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/narvault/narvault/narread"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// slowly is a backup in gzip, which cannot be entered in the middle, and whose
// files cannot be read to their ends before the gate is opened.
type slowly struct {
	*memBackup
	t       testing.TB
	reached chan struct{} // closed when somebody wants the end
	gate    chan struct{}
	once    *sync.Once
	decoded *int // how often; guarded by mu
	mu      *sync.Mutex
}

type gatedFile struct {
	*bytes.Reader
	s slowly
}

func (f gatedFile) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) >= f.Size() && off > 0 {
		f.s.mu.Lock()
		*f.s.decoded++
		f.s.mu.Unlock()
		f.s.once.Do(func() { close(f.s.reached) })
		<-f.s.gate
	}
	return f.Reader.ReadAt(p, off)
}

func (s slowly) Open(p storepath.Path) (Tree, error) {
	file := testenv.RunInput(s.t, "/", s.nars[p], "gzip", "-1")
	r := bytes.NewReader([]byte(file))
	return narread.Open(gatedFile{r, s}, r.Size(), narread.Options{
		Name: string(p), Compression: "gzip", NarSize: int64(len(s.nars[p])), NarHash: narinfo.Hash(sha256.Sum256(s.nars[p])),
	})
}

// TestKillWhoWaits kills those who wait for an archive to be decoded: they end at
// once, whatever they do. A signal that they catch does not make a system call
// fail. The archive is decoded once, and is there for others.
func TestKillWhoWaits(t *testing.T) {
	testenv.Need(t, "fuse", "gzip")
	b, oracle := sample(t)
	s := slowly{b, t, make(chan struct{}), make(chan struct{}), new(sync.Once), new(int), new(sync.Mutex)}
	open := sync.OnceFunc(func() { close(s.gate) })
	defer open()
	var log []string // guarded by s.mu
	m := mounted(t, s, Options{RawLinks: true, Logf: func(format string, args ...any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		log = append(log, fmt.Sprintf(format, args...))
	}})
	sh(t, `stat "$1"/store`, m.Mountpoint()) // so that the first request of others is for the path
	path := filepath.Join(m.Mountpoint(), "store", string(samplePath))
	start := func(args ...string) (*exec.Cmd, chan error) {
		cmd, before := exec.Command(args[0], args[1:]...), m.fs.count.total()
		must(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		<-s.reached
		for m.fs.count.total() == before { // it has not asked yet
			time.Sleep(time.Millisecond)
		}
		return cmd, done
	}
	for _, kill := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		for _, args := range [][]string{{"stat", path}, {"cat", path + "/big"}, {"ls", "-l", path + "/lib"}} {
			cmd, done := start(args...)
			must(t, cmd.Process.Signal(kill))
			select {
			case <-done:
				if got := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != kill {
					t.Errorf("%q ended by signal %v, not %v", args, got, kill)
				}
			case <-time.After(patience):
				t.Fatalf("%q still waits after %v", args, kill)
			}
		}
	}
	cmd, done := start("sh", "-c", `trap : USR1; test -e "$1"`, "sh", path)
	must(t, cmd.Process.Signal(syscall.SIGUSR1))
	select {
	case err := <-done:
		t.Fatalf("a signal that is caught ends the wait: %v", err)
	case <-time.After(5 * dyingPoll): // enough to find out
	}
	open()
	if err := <-done; err != nil {
		t.Errorf("after a signal that is caught: %v", err)
	}
	sh(t, `diff -r --no-dereference "$1" "$2"`, filepath.Join(oracle, string(samplePath)), path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if *s.decoded != 1 || log != nil {
		t.Errorf("decoded %d times, log: %q", *s.decoded, log)
	}
}

// TestHandlesFinish opens in the background: all who ask meanwhile are told to
// wait, for one and the same outcome, which is not asked for again.
func TestHandlesFinish(t *testing.T) {
	for _, failure := range []error{nil, errors.New("no")} {
		var opened, finished, closed atomic.Int32
		gate := make(chan struct{})
		h := &handles[thing]{maxN: 1, maxCost: 1000,
			open: func(key node) (thing, int64, error) { opened.Add(1); return thing{&closed}, 0, errSlow },
			finish: func(thing) (int64, error) {
				<-gate
				finished.Add(1)
				return 7, failure
			}}
		f := new(fileSystem)
		var askers, waiting sync.WaitGroup
		waiting.Add(10)
		for range 10 {
			askers.Go(func() {
				told := sync.OnceFunc(waiting.Done)
				err := f.patiently(nil, fuse.Caller{}, func() error {
					defer told()
					return h.with(3, func(thing) error { return nil })
				})
				if err != failure {
					t.Errorf("got %v, want %v", err, failure)
				}
			})
		}
		var w *waitError
		if _, err := h.acquire(3); !errors.As(err, &w) {
			t.Fatalf("acquire does not say that it takes long, but %v", err)
		}
		waiting.Wait()
		close(gate)
		askers.Wait()
		if opened.Load() != 1 || finished.Load() != 1 {
			t.Errorf("opened %d times, finished %d times", opened.Load(), finished.Load())
		}
		h.drop()
		if n, cost := h.size(); n != 0 || cost != 0 {
			t.Errorf("%d at %d are left", n, cost)
		}
	}
}

// endless is something whose opening ends when it is closed.
type endless struct{ closed chan struct{} }

func (x endless) Close() error {
	select {
	case <-x.closed:
	default:
		close(x.closed)
	}
	return nil
}

// TestHandlesCloseWhatIsBeingOpened ends what goes on in the background.
func TestHandlesCloseWhatIsBeingOpened(t *testing.T) {
	ended := make(chan struct{})
	h := &handles[endless]{maxN: 1, maxCost: 1000,
		open: func(node) (endless, int64, error) { return endless{make(chan struct{})}, 0, errSlow },
		finish: func(x endless) (int64, error) {
			<-x.closed
			close(ended)
			return 0, errors.New("closed")
		}}
	var w *waitError
	if _, err := h.acquire(3); !errors.As(err, &w) {
		t.Fatal(err)
	}
	h.close()
	<-ended
	<-w.ready
	if n, _ := h.size(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
