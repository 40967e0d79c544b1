package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("SPOOL_TEST_CHILD"); role != "" {
		child(role, os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDecodedOnce lets goroutines and processes want the same NARs at the same
// time.
func TestDecodedOnce(t *testing.T) {
	dir := t.TempDir()
	const nars = 10
	decoded := make([]int, nars)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range 6 {
		if g < 3 {
			d := New(dir, 1<<30)
			wg.Go(func() {
				for i := range nars {
					if use(t, d, content(i, 100_000)) {
						mu.Lock()
						decoded[i]++
						mu.Unlock()
					}
				}
			})
			continue
		}
		wg.Go(func() {
			out, err := command("many", dir, strconv.Itoa(nars)).Output()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, f := range strings.Fields(string(out)) {
				i, err := strconv.Atoi(f)
				must(t, err)
				mu.Lock()
				decoded[i]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, n := range decoded {
		if n != 1 {
			t.Errorf("%d was decoded %d times", i, n)
		}
	}
}

// TestWaitEnds stops waiting for another one when the context ends.
func TestWaitEnds(t *testing.T) {
	d := New(t.TempDir(), 1<<30)
	b := content(1, 1000)
	_, w, err := d.Acquire(t.Context(), keyOf(b))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.Acquire(ctx, keyOf(b)); err != context.Canceled {
		t.Errorf("%v", err)
	}
	must(t, w.Abort())
	if !use(t, d, b) {
		t.Error("what was given up is there")
	}
}

// TestStopped does not wait for a process that does not get on, and leaves its
// file alone.
func TestStopped(t *testing.T) {
	d := New(t.TempDir(), 1<<30)
	b := content(1, 1000)
	_, w, err := d.Acquire(t.Context(), keyOf(b))
	must(t, err)
	long := time.Now().Add(-2 * stalled)
	must(t, os.Chtimes(d.path(keyOf(b), partExt), long, long))
	if !use(t, d, b) {
		t.Error("it is not decoded here")
	}
	f, err := put(w, b) // it goes on after all
	must(t, err)
	must(t, errors.Join(verify(f, b), f.Close()))
	if use(t, d, b) {
		t.Error("what it decoded in the end is not kept")
	}
}

// TestKilled kills a process after each step that it takes. Whatever it leaves
// behind is used or taken away.
func TestKilled(t *testing.T) {
	b, old := content(1, 3*BlockSize+5), content(2, BlockSize)
	steps := 0
	for n := 1; ; n++ {
		dir := t.TempDir()
		d := New(dir, int64(len(b))+100) // old has to go
		use(t, d, old)
		out, err := command("killed", dir, strconv.Itoa(n)).Output()
		steps, _ = strconv.Atoi(string(bytes.TrimSpace(out)))
		if err == nil {
			break // it took fewer steps
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%v\n%s", err, exit.Stderr)
		}
		use(t, d, b)
		if use(t, d, b) {
			t.Errorf("killed after step %d: it is not kept", n)
		}
		use(t, d, old)
		if got := names(t, dir); strings.Contains(got, partExt) {
			t.Errorf("killed after step %d: left is %s", n, got)
		}
	}
	if steps < 8 {
		t.Errorf("only %d steps", steps)
	}
}

func command(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SPOOL_TEST_CHILD="+role)
	return cmd
}

// child is what the other processes do.
func child(role string, args []string) {
	d := New(args[0], 1<<30)
	n, _ := strconv.Atoi(args[1])
	switch role {
	case "many": // says which it decoded
		for i := range n {
			f, decoded, err := get(d, content(i, 100_000))
			if err == nil {
				err = verify(f, content(i, 100_000))
			}
			if err != nil {
				panic(err)
			}
			if decoded {
				fmt.Println(i)
			}
			f.Close()
		}
	case "killed": // after n steps; else says how many there are
		b := content(1, 3*BlockSize+5)
		d.max = int64(len(b)) + 100
		steps := 0
		d.hook = func(string) {
			if steps++; steps == n {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		if _, _, err := get(d, b); err != nil {
			panic(err)
		}
		fmt.Println(steps)
	}
}
