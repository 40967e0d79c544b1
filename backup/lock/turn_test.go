package lock

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/layout"
)

// Backups that overlap, so that there is always one, do not keep gc waiting: it
// gets its turn, and they go on after it.
func TestTurn(t *testing.T) {
	dir := t.TempDir()
	mustLock(t, dir, Writing, Options{}).Close()
	var stop atomic.Bool
	var begun, all sync.WaitGroup
	rounds := make([]int, 2)
	next := []chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	begun.Add(2)
	for i := range 2 {
		all.Go(func() {
			for !stop.Load() {
				l, err := Take(t.Context(), dir, Writing, Options{Wait: -1})
				if err != nil {
					t.Error(err)
					return
				}
				if rounds[i]++; rounds[i] == 1 {
					begun.Done()
				}
				// Each ends only when the other has begun anew, or waits.
				select {
				case next[1-i] <- struct{}{}:
				default:
				}
				select {
				case <-next[i]:
				case <-time.After(200 * time.Millisecond):
				}
				l.Close()
			}
		})
	}
	begun.Wait()
	l, err := Take(t.Context(), dir, Excluding, Options{Wait: 20 * time.Second})
	if err != nil {
		t.Error("gc did not get its turn: ", err)
	} else {
		l.Close()
	}
	stop.Store(true)
	all.Wait()
}

// Nobody fails because gc waits: who does not wait at all, or has waited for long
// enough, goes on beside those whom gc waits for.
func TestGiveWay(t *testing.T) {
	dir := t.TempDir()
	first := mustLock(t, dir, Writing, Options{Command: "first"})
	waits, done := make(chan struct{}), make(chan error)
	go func() {
		l, err := Take(t.Context(), dir, Excluding, Options{Wait: -1, Command: "gc", Waiting: func(*HeldError) { close(waits) }})
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	<-waits
	for !hasTurn(dir) {
		time.Sleep(time.Millisecond)
	}
	mustLock(t, dir, Writing, Options{}).Close()
	told := ""
	began := time.Now()
	o := Options{Wait: 100 * time.Millisecond, Waiting: func(e *HeldError) { told = e.Error() }}
	mustLock(t, dir, Reading, o).Close()
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("it gave way for %v", waited)
	}
	if !strings.Contains(told, "(gc, since ") {
		t.Errorf("told: %s", told)
	}
	first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, layout.LocksDir, "*-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// hasTurn reports whether somebody waits to exclude all others, and says who he
// is.
func hasTurn(dir string) bool {
	names, _ := filepath.Glob(filepath.Join(dir, layout.LocksDir, waitPrefix+"*"))
	l := &Lock{dir: dir, o: Options{Flock: flock}}
	return len(names) > 0 && strings.Contains(l.locked().Error(), "(gc, since ")
}

// Two that wait to exclude all others both get their turn.
func TestTurns(t *testing.T) {
	dir := t.TempDir()
	held := mustLock(t, dir, Writing, Options{})
	var waiting, ended sync.WaitGroup
	for range 3 {
		waiting.Add(1)
		ended.Go(func() {
			l, err := Take(t.Context(), dir, Excluding, Options{Wait: 20 * time.Second, Waiting: func(*HeldError) { waiting.Done() }})
			if err != nil {
				t.Error(err)
				return
			}
			l.Close()
		})
	}
	waiting.Wait()
	var e *HeldError
	if _, err := Take(t.Context(), dir, Excluding, Options{Wait: 50 * time.Millisecond}); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
	held.Close()
	ended.Wait()
}
