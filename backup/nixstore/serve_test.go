package nixstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// words encodes numbers (int) and strings as the serve protocol does.
func words(list ...any) []byte {
	var b bytes.Buffer
	q := question{Writer: newWriter(&b)}
	for _, w := range list {
		switch w := w.(type) {
		case int:
			q.uint64(uint64(w))
		case string:
			q.string(w)
		}
	}
	q.Flush()
	return b.Bytes()
}

var hello = words(magicServer, 2<<8|7)

// fakeServer starts a child that complains on standard error, says what is given,
// and then runs a script.
func fakeServer(t *testing.T, ctx context.Context, says []byte, script string) (*server, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "says")
	write(t, file, string(says))
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "echo complaint >&2; cat "+file+"; "+script)
	return startServer(ctx, cmd, "/s")
}

// drain is the rest of a fake server that behaves: it ends with its input.
const drain = "exec cat >/dev/null"

func TestGreeting(t *testing.T) {
	for _, test := range []struct {
		name   string
		says   []byte
		script string
		want   string // in the error; "" for success
	}{
		{"2.7", hello, drain, ""},
		{"2.4", words(magicServer, 2<<8|4), drain, ""},
		{"future", words(magicServer, 2<<8|99), drain, ""},
		{"too old", words(magicServer, 2<<8|3), drain, "version 2.3"},
		{"other major", words(magicServer, 3<<8|7), drain, "version 3.7"},
		{"silly version", words(magicServer, 1<<62), drain, "version"},
		{"garbage", []byte("Welcome to this machine!\n"), drain, "greeting"},
		{"truncated", hello[:12], "", "unexpected EOF"},
		{"nothing", nil, "exit 0", "unexpected EOF"},
		{"status", nil, "echo out of cheese >&2; exit 3", "exit status 3: complaint\nout of cheese"},
		{"signal", nil, "kill -9 $$", "signal: killed"},
		{"much on stderr", nil, "yes gargle | head -c 1000000 >&2; echo the end >&2; exit 3", "the end"},
	} {
		v, err := fakeServer(t, context.Background(), test.says, test.script)
		switch {
		case test.want == "":
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			} else if err := v.close(); err != nil {
				t.Errorf("%s: close: %v", test.name, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want):
			t.Errorf("%s: error %v, want %q in it", test.name, err, test.want)
		case len(err.Error()) > 2*tailSize:
			t.Errorf("%s: an error of %d bytes", test.name, len(err.Error()))
		}
	}
}

// fakeStore is a Store that asks a fake server.
func fakeStore(t *testing.T, ctx context.Context, answer []byte, script string) *Store {
	t.Helper()
	v, err := fakeServer(t, ctx, append(bytes.Clone(hello), answer...), script)
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{life: ctx, dir: "/s", real: "/s", current: v}
	t.Cleanup(func() { s.Close() })
	return s
}

const (
	baseA = "00000000000000000000000000000000-a"
	baseB = "00000000000000000000000000000000-b"
	hashA = "sha256:0000000000000000000000000000000000000000000000000000"
)

func infoWords(path string) []byte {
	return words(path, "", 0, 24, 24, hashA, "", 0)
}

func TestBadAnswers(t *testing.T) {
	ctx := context.Background()
	lock := func(s *Store) error { return s.Lock(ctx, []storepath.Path{baseA}) }
	closure := func(s *Store) error { _, err := s.Closure(ctx, nil, false); return err }
	infos := func(s *Store) error { _, err := s.Infos(ctx, []storepath.Path{baseA}); return err }
	huge := 1 << 60
	for _, test := range []struct {
		name   string
		answer []byte
		ask    func(*Store) error
		want   string
	}{
		{"huge number of paths", words(huge), lock, "paths"},
		{"many paths announced", words(maxPaths), closure, "unexpected EOF"},
		{"huge path", words(1, huge), closure, "string of"},
		{"path outside", words(1, "/t/"+baseA), closure, "store directory"},
		{"path with a tail", words(1, "/s/"+baseA+"/b"), closure, "character"},
		{"truncated", words(2, "/s/"+baseA), closure, "unexpected EOF"},
		{"padding", append(words(1, len("/s/")+len(baseA)), "/s/"+baseA+"xxx"...), closure, "padding"},
		{"truncated info", infoWords("/s/" + baseA)[:80], infos, "unexpected EOF"},
		{"no end of infos", infoWords("/s/" + baseA), infos, "unexpected EOF"},
		{"not asked for", infoWords("/s/" + baseB), infos, "not asked"},
		{"twice", bytes.Repeat(infoWords("/s/"+baseA), 2), infos, "twice"},
		{"huge references", words("/s/"+baseA, "", huge), infos, "paths"},
		{"bad deriver", words("/s/"+baseA, "x"), infos, "store directory"},
		{"negative size", words("/s/"+baseA, "", 0, 24, -1), infos, "NAR size"},
		{"bad hash", words("/s/"+baseA, "", 0, 24, 24, "sha256:?"), infos, "hash"},
		{"no hash", words("/s/"+baseA, "", 0, 24, 24, ""), infos, "hash"},
		{"huge CA", words("/s/"+baseA, "", 0, 24, 24, hashA, huge), infos, "string of"},
		{"huge signatures", words("/s/"+baseA, "", 0, 24, 24, hashA, "", huge), infos, "signatures"},
	} {
		s := fakeStore(t, ctx, test.answer, "exec >&-; "+drain)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := test.ask(s)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "complaint") {
			t.Errorf("%s: error %v, want %q and the complaint in it", test.name, err, test.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", test.name, n)
		}
		if again := test.ask(s); again == nil {
			t.Errorf("%s: the next question succeeds", test.name)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close repeats what was said: %v", test.name, err)
		}
	}
}

func TestCloseStatus(t *testing.T) {
	s := fakeStore(t, context.Background(), nil, "cat >/dev/null; echo database is locked >&2; exit 5")
	err := s.Close()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 5 || !strings.Contains(err.Error(), "database is locked") {
		t.Errorf("Close = %v; want exit status 5 and its reason", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := s.Closure(context.Background(), nil, false); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Closure after Close = %v", err)
	}
}

// TestCancel: a server that never answers, with a child that holds its pipes.
func TestCancel(t *testing.T) {
	for _, whose := range []string{"question", "store"} {
		life, endLife := context.WithCancelCause(context.Background())
		ctx, end := context.WithCancelCause(context.Background())
		why := errors.New("enough of this " + whose)
		s := fakeStore(t, life, nil, "sleep 1000 & exec sleep 1000")
		go func() {
			if whose == "store" {
				endLife(why)
			} else {
				end(why)
			}
		}()
		if _, err := s.Closure(ctx, nil, false); !errors.Is(err, why) {
			t.Errorf("Closure = %v, want %v", err, why)
		}
		if err := s.Lock(context.Background(), []storepath.Path{baseA}); !errors.Is(err, why) {
			t.Errorf("the next question: %v, want %v", err, why)
		}
		endLife(nil)
		end(nil)
	}
}

// TestCancelWaiting: a question that waits for its turn is not bound to the one
// before it.
func TestCancelWaiting(t *testing.T) {
	s := fakeStore(t, context.Background(), nil, drain)
	<-s.current.turn
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Closure(ctx, []storepath.Path{baseA}, false); !errors.Is(err, context.Canceled) {
		t.Errorf("while another asks: %v", err)
	}
	s.current.turn <- struct{}{}
	if err := s.Close(); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	testenv.Need(t, "nix")
	ctx := context.Background()
	_, err := Open(ctx, Options{Env: []string{"PATH=" + t.TempDir()}})
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "install Nix") {
		t.Errorf("no Nix: %v", err)
	}
	for _, url := range []string{"ssh://host", "https://cache.example.org", "file:///tmp", "dummy://"} {
		if _, err := Open(ctx, Options{URL: url, Env: testenv.NixEnv(t)}); !errors.Is(err, ErrNotLocal) {
			t.Errorf("%s: %v, want ErrNotLocal", url, err)
		}
	}
	var command *CommandError
	_, err = Open(ctx, Options{URL: "nonsense", Env: testenv.NixEnv(t)})
	if !errors.As(err, &command) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("nonsense: %v, want Nix's words", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(canceled, Options{Env: testenv.NixEnv(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestConfiguredStore: the store is named by nix.conf, and by NIX_REMOTE.
func TestConfiguredStore(t *testing.T) {
	for _, variable := range []string{"NIX_REMOTE=", "NIX_CONFIG=" + testenv.NixConfig + "store = "} {
		root := scratch(t)
		s := open(t, Options{Env: append(testenv.NixEnv(t), variable+root)})
		if want := root + "/nix/store/" + baseA; s.RealPath(baseA) != want {
			t.Errorf("%s: files at %s, want %s", variable, s.RealPath(baseA), want)
		}
	}
}

// TestNoLeaks: after Close neither goroutines nor processes are left.
func TestNoLeaks(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for range 3 {
		s, err := Open(context.Background(), Options{Env: testenv.NixEnv(t)})
		if err != nil {
			t.Fatal(err)
		}
		pid := s.current.cmd.Process.Pid
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

func TestTail(t *testing.T) {
	var all tail
	for i := range 5000 {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	if got := all.String(); !strings.HasPrefix(got, "...") || !strings.HasSuffix(got, "\nline 4999") || len(got) > tailSize+3 {
		t.Errorf("tail of 5000 lines: %q", got)
	}
	var one tail
	one.Write(append(bytes.Repeat([]byte("x"), tailSize), "\x1b[31mred\n"...))
	if got := one.String(); !strings.HasSuffix(got, "x?[31mred") {
		t.Errorf("tail of one long line: %q", got)
	}
}

// TestEncoding pins the wire format with bytes written down by hand.
func TestEncoding(t *testing.T) {
	got := words(1, "abc", "12345678", "")
	var want []byte
	want = binary.LittleEndian.AppendUint64(want, 1)
	want = binary.LittleEndian.AppendUint64(want, 3)
	want = append(want, "abc\x00\x00\x00\x00\x00"...)
	want = binary.LittleEndian.AppendUint64(want, 8)
	want = append(want, "12345678"...)
	want = binary.LittleEndian.AppendUint64(want, 0)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if _, err := newAnswer(bytes.NewReader(nil), "/s").uint64(); err != io.ErrUnexpectedEOF {
		t.Errorf("end of input: %v", err)
	}
}
