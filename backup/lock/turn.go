package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/narvault/narvault/backup/layout"
)

// maxGiveWay is how long others are let go first at most, whatever Options.Wait:
// two that hold what the other's gc waits for shall not wait for ever.
const maxGiveWay = 10 * time.Minute

// inTurn takes the lock, which f is, when it is our turn.
func (l *Lock) inTurn(ctx context.Context, f *os.File, kind Kind) error {
	began := time.Now()
	if kind != Excluding {
		if err := l.giveWay(ctx); err != nil {
			return err
		}
		return l.acquire(ctx, f, kind.how(), l.remaining(began))
	}
	var held *HeldError
	err := l.acquire(ctx, f, kind.how(), 0)
	if l.o.Wait == 0 || !errors.As(err, &held) {
		return err
	}
	turn, err := openLock(filepath.Join(l.dir, layout.LocksDir, layout.TurnFile))
	if err == nil {
		defer turn.Close()
		if err := l.acquire(ctx, turn, syscall.LOCK_EX, l.o.Wait); err != nil {
			return err
		}
		// So that those who give way can say to whom.
		l.register(ctx, waitPrefix)
		defer l.Leave()
	} // else the disk is full: who frees it has to do without
	return l.acquire(ctx, f, kind.how(), l.remaining(began))
}

// giveWay lets whoever has the turn go first, for a while.
func (l *Lock) giveWay(ctx context.Context) error {
	wait := l.o.Wait
	if wait < 0 {
		wait = maxGiveWay
	}
	turn, err := os.OpenFile(filepath.Join(l.dir, layout.LocksDir, layout.TurnFile), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil || wait == 0 {
		return nil // nobody has ever waited, or we do not
	}
	defer turn.Close()
	l.acquire(ctx, turn, syscall.LOCK_SH, min(wait, maxGiveWay)) // only the lock itself counts
	return ctx.Err()
}

// remaining returns how long we may still wait.
func (l *Lock) remaining(began time.Time) time.Duration {
	if l.o.Wait < 0 {
		return -1
	}
	return max(0, l.o.Wait-time.Since(began))
}
