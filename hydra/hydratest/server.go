// Package hydratest gives tests a real PostgreSQL with Hydra's tables, in the
// shapes that they have had, and fills them as Hydra would. Only tests import
// it.
package hydratest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/narvault/narvault/narread/testenv"
)

// A server is a private PostgreSQL. It listens on a socket in a directory of
// its own only, where everybody is who they say they are, but for the role
// Guarded.
type server struct {
	dir  string
	held *os.File // dir, locked
	tls  *TLS     // nil, or what it offers over TCP
	cmd  *exec.Cmd
	stop chan struct{} // closed to end the server
	done chan struct{} // closed when it has ended

	mu        sync.Mutex
	templates map[string]bool // guarded by mu: databases to copy, by name
	databases int             // guarded by mu: made so far
}

// Guarded is a role that needs a password, Password.
const (
	Guarded  = "guarded"
	Password = "secret"
)

// theServer serves all tests of a test binary.
var theServer = sync.OnceValues(start)

// started says whether there is something to stop.
var started bool

// Main is for TestMain: it runs the tests, and ends the server when they have
// ended.
type Main struct{ M *testing.M }

// Run runs the tests and returns their exit code.
func (m Main) Run() int {
	code := m.M.Run()
	if started {
		if s, err := theServer(); err == nil {
			s.end()
		}
	}
	return code
}

func start() (*server, error) {
	started = true
	return startWith(nil)
}

func startWith(tls *TLS) (*server, error) {
	s := &server{tls: tls, stop: make(chan struct{}), done: make(chan struct{}), templates: make(map[string]bool)}
	if err := s.start(); err != nil {
		os.RemoveAll(s.dir)
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *server) start() (err error) {
	credential, err := unprivileged()
	if err != nil {
		return err
	}
	if err := s.makeDir(); err != nil {
		return err
	}
	if credential != nil {
		if err := os.Chown(s.dir, int(credential.Uid), int(credential.Gid)); err != nil {
			return err
		}
	}
	if err := s.initialise(credential); err != nil {
		return err
	}
	program, err := testenv.PostgreSQL("postgres")
	if err != nil {
		return err
	}
	args := []string{"-D", s.data(), "-k", s.dir,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off",
		"-c", "autovacuum=off", "-c", "shared_buffers=32MB", "-c", "dynamic_shared_memory_type=mmap"}
	if s.tls == nil {
		args = append(args, "-c", "listen_addresses=")
	} else if err := s.tls.prepare(s.data(), credential); err != nil {
		return err
	} else {
		args = append(args, s.tls.args()...)
	}
	s.cmd = exec.Command(program, args...)
	s.cmd.Dir = s.dir
	// A server never outlives the tests, however they end.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGQUIT}
	log := new(bytes.Buffer)
	s.cmd.Stderr = log
	started := make(chan error)
	go s.run(started)
	if err := <-started; err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		s.end()
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

// dirPrefix is how the directories of servers begin.
const dirPrefix = "narvault-postgresql-"

// makeDir makes the directory of the server: in memory, where there is some, as
// databases are made three times as fast there. (Not where TMPDIR is: the path of
// a socket has at most 107 bytes.) Directories of tests that were killed go.
func (s *server) makeDir() (err error) {
	parent := "/tmp"
	var memory syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &memory); err == nil && memory.Bavail*uint64(memory.Bsize) > 2<<30 {
		parent = "/dev/shm"
	}
	leftovers, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range leftovers {
		st, err := os.Stat(dir)
		if err != nil || time.Since(st.ModTime()) < time.Minute {
			continue // whoever makes it has yet to lock it
		}
		if f, err := hold(dir); err == nil {
			os.RemoveAll(dir)
			f.Close()
		}
	}
	if s.dir, err = os.MkdirTemp(parent, dirPrefix); err != nil {
		return err
	}
	s.held, err = hold(s.dir)
	return err
}

// hold locks a directory for as long as this process lives, or the file is open.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// unprivileged returns who runs the server when the tests run as root, which
// PostgreSQL refuses: Debian's user for it, or nobody.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// initialise makes the directory of the server.
func (s *server) initialise(credential *syscall.Credential) error {
	program, err := testenv.PostgreSQL("initdb")
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "-D", s.data(), "-U", "hydra", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	access := "local all " + Guarded + " scram-sha-256\nlocal all all trust\n"
	if s.tls != nil {
		access += "hostssl all " + Guarded + " all scram-sha-256\nhostssl all hydra all cert\n"
	}
	return os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(access), 0o644)
}

// run is the server's life. It stays on one thread: the server dies with the
// thread that started it.
func (s *server) run(started chan<- error) {
	runtime.LockOSThread()
	err := s.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		s.cmd.Wait() // how it ends does not matter
		close(ended)
	}()
	select {
	case <-s.stop:
		s.cmd.Process.Signal(syscall.SIGINT) // fast shutdown: clients are sent away
		<-ended
	case <-ended:
	}
	close(s.done)
}

// ready waits until the server answers.
func (s *server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			_, err = conn.Exec(ctx, "create role "+Guarded+" login password '"+Password+"'")
			return errors.Join(err, conn.Close(ctx))
		}
		select {
		case <-s.done:
			return errors.New("the server has ended")
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end ends the server and removes what it has.
func (s *server) end() {
	close(s.stop)
	<-s.done
	os.RemoveAll(s.dir)
	s.held.Close()
}

// url is how to connect to a database, as the role that owns everything.
func (s *server) url(database string) string {
	url := fmt.Sprintf("postgres:///%s?host=%s&user=hydra", database, s.dir)
	if s.tls != nil {
		url += "&port=" + s.tls.Port
	}
	return url
}
