package nixstore

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/storepath"
	"github.com/narvault/narvault/narread/testenv"
)

// openDaemon opens a new store through a daemon of its own.
func openDaemon(t *testing.T) *testStore {
	testenv.Need(t, "nix", "nix-daemon")
	dir := scratch(t)
	socket := filepath.Join(dir, "socket")
	// The daemon must be told that its store is the local one: left to find out,
	// it takes a state directory that does not exist yet and a socket that does
	// as a sign to connect to a daemon, which is itself, without end.
	local := append(testenv.NixEnv(t), "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/var",
		"NIX_LOG_DIR="+dir+"/log", "NIX_DAEMON_SOCKET_PATH="+socket, "NIX_REMOTE=local")
	startDaemon(t, dir, local, socket)
	return open(t, Options{Env: append(local, "NIX_REMOTE=daemon")})
}

// openChrootDaemon opens a new chroot store through a daemon of its own.
func openChrootDaemon(t testing.TB) *testStore {
	testenv.Need(t, "nix", "nix-daemon")
	dir := scratch(t)
	socket := filepath.Join(dir, "socket")
	env := append(testenv.NixEnv(t), "NIX_DAEMON_SOCKET_PATH="+socket)
	startDaemon(t, dir, append(env, "NIX_REMOTE=local?root="+dir), socket)
	return open(t, Options{Env: env, URL: "unix://" + socket + "?root=" + dir})
}

// startDaemon makes a store, with one path, starts a daemon for it and waits for
// its socket.
func startDaemon(t testing.TB, dir string, env []string, socket string) {
	t.Helper()
	write(t, filepath.Join(dir, "file"), "")
	add := exec.Command("nix-store", "--add", filepath.Join(dir, "file"))
	add.Env = env
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	daemon := exec.Command("nix-daemon")
	daemon.Env = env
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
	})
	awaitSocket(t, socket)
}

// awaitSocket waits until the file is there. It does not connect: the daemon
// forks for everyone who does.
func awaitSocket(t testing.TB, socket string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Stat(socket); err == nil {
			return
		}
	}
	t.Fatalf("no daemon at %s", socket)
}

func TestDaemon(t *testing.T) {
	ctx := context.Background()
	s := openDaemon(t)
	drv := s.instantiate(t, graph, "top")
	if err := s.Realise(ctx, []storepath.Path{drv}); err != nil {
		t.Fatal(err)
	}
	missing, err := s.MissingOutputs(ctx, []storepath.Path{drv})
	if err != nil || len(missing) > 0 {
		t.Errorf("after Realise: %v, %v", missing, err)
	}
	closure, err := s.Closure(ctx, []storepath.Path{drv}, true)
	if want := s.paths(t, "nix-store", "-qR", "--include-outputs", drv.In(s.Dir())); err != nil || !slices.Equal(closure, want) {
		t.Errorf("Closure = %s, %v; want %s", closure, err, want)
	}
	if err := s.Lock(ctx, closure); err != nil {
		t.Fatal(err)
	}
	s.nix(t, "nix-store", "--gc")
	if slices.Contains(s.exist(closure...), false) {
		t.Error("the daemon collected locked paths")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s.nix(t, "nix-store", "--gc")
	if s.exist(drv)[0] {
		t.Error("the derivation is still locked after Close")
	}
}
